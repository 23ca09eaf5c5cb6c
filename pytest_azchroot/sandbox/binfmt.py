"""Which programs of other machines the kernel hands to an interpreter, and whether it finds that in an image.

Source: the kernel's Documentation/admin-guide/binfmt-misc.rst, and fs/binfmt_misc.c.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_azchroot.disk.elf import Header

DIRECTORY = Path("/proc/sys/fs/binfmt_misc")
_LOOKED_AT = 256
"""Bytes of a program that the kernel compares: BINPRM_BUF_SIZE of include/uapi/linux/binfmts.h."""


@dataclass(frozen=True)
class Handler:
    """One file of binfmt_misc that goes by a magic."""

    name: str
    enabled: bool
    interpreter: str
    flags: str
    """``F``: the interpreter was opened when the handler was registered, and is used in any root directory."""
    offset: int
    magic: bytes
    mask: bytes

    def takes(self, data: bytes) -> bool:
        """Whether it is for a program that begins so."""
        part = data[:_LOOKED_AT][self.offset : self.offset + len(self.magic)]
        if len(part) < len(self.magic) or not self.magic:
            return False
        return all(((a ^ b) & m) == 0 for a, b, m in zip(part, self.magic, self.mask, strict=True))


@dataclass(frozen=True)
class State:
    """What the kernel says of binfmt_misc."""

    mounted: bool
    enabled: bool = True
    """As a whole: its file ``status``."""
    handlers: tuple[Handler, ...] = ()


NOT_MOUNTED = State(mounted=False)

Look = Callable[[str], Header | None]
"""What the file at a path of the image is; None for none, and for what is no ELF program."""


def parse(name: str, text: str) -> Handler | None:
    """One handler's file.

    :return: None for one that goes by a file name's extension, and for what is no such file.
    """
    state, *lines = text.splitlines() or [""]
    found = dict(_pair(line) for line in lines)
    magic = _bytes(found.get("magic", ""))
    mask = _bytes(found["mask"]) if "mask" in found else b"\xff" * len(magic or b"")
    offset = found.get("offset", "0")
    if state not in {"enabled", "disabled"} or not found.get("interpreter") or not magic or mask is None:
        return None
    if not offset.isdecimal() or len(mask) != len(magic):
        return None
    return Handler(
        name=name,
        enabled=state == "enabled",
        interpreter=found["interpreter"],
        flags=found.get("flags", ""),
        offset=int(offset),
        magic=magic,
        mask=mask,
    )


def _pair(line: str) -> tuple[str, str]:
    word, _, rest = line.partition(" ")
    return word.rstrip(":"), rest.strip()


def _bytes(text: str) -> bytes | None:
    if len(text) % 2 or not set(text) <= set(string.hexdigits):
        return None
    return bytes.fromhex(text)


def read(directory: Path = DIRECTORY) -> State:
    """What is registered now."""
    try:
        status = (directory / "status").read_text(encoding="ascii")
    except (FileNotFoundError, NotADirectoryError):
        return NOT_MOUNTED
    found = [parse(entry.name, _text(entry)) for entry in sorted(directory.iterdir())]
    return State(True, status.strip() == "enabled", tuple(handler for handler in found if handler is not None))


def _text(entry: Path) -> str:
    if entry.name in {"register", "status"}:
        return ""
    try:
        return entry.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:  # unregistered meanwhile
        return ""


def chosen(state: State, data: bytes) -> Handler | None:
    """The handler for a program that begins so; where several are, one that needs nothing of the image."""
    if not state.enabled:
        return None
    able = [handler for handler in state.handlers if handler.enabled and handler.takes(data)]
    return max(able, key=lambda handler: "F" in handler.flags, default=None)


def obstacle(state: State, data: bytes, *, image: Look, native: Sequence[str]) -> str | None:
    """Why a program of an image does not run by an interpreter; None if it should.

    :param data: how it begins.
    :param native: the architectures, by Debian's names, that this machine runs without one.
    """
    if not state.mounted:
        return f"binfmt_misc is not mounted on {DIRECTORY}, so no interpreter is known"
    if not state.enabled:
        return f"binfmt_misc is disabled ({DIRECTORY}/status)"
    handler = chosen(state, data)
    if handler is not None:
        return None if "F" in handler.flags else _missing(handler, image, native)
    disabled = [handler.name for handler in state.handlers if handler.takes(data)]
    if disabled:
        return f"the handler {disabled[0]} of binfmt_misc is disabled"
    return "binfmt_misc has no handler for it"


def _missing(handler: Handler, image: Look, native: Sequence[str]) -> str | None:
    words = f"the handler {handler.name} of binfmt_misc lacks the flag F, so its interpreter is looked for in the image"
    path = handler.interpreter
    found = image(path)
    if found is None:
        return f"{words}, and {path} is not there"
    if found.architecture.debian not in native:
        return f"{words}, and {path} is there for {found.architecture} itself"
    if found.loader is not None and image(found.loader) is None:
        return f"{words}, and {path} there needs {found.loader}, which is not"
    return None
