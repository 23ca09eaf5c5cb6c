"""Whether the image's programs run on this machine, and if not, why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_azchroot.disk import elf
from pytest_azchroot.disk.elf import Architecture, Header
from pytest_azchroot.errors import SandboxError, UnavailableError

from . import binfmt
from .result import CommandError

if TYPE_CHECKING:
    from .sandbox import Sandbox

_CANDIDATES: tuple[tuple[str, tuple[str, ...] | None], ...] = (
    ("/bin/sh", ("-c", ":")),
    ("/usr/bin/env", ()),
    ("/sbin/init", None),
    ("/lib64/ld-linux-x86-64.so.2", None),
    ("/lib/ld-linux-aarch64.so.1", None),
    ("/lib/ld-linux-armhf.so.3", None),
    ("/lib/ld-linux.so.2", None),
)
"""Programs that tell what an image was made for, and with which arguments they do nothing; None: not to be tried."""

_SIBLING = {"amd64": "i386", "arm64": "armhf"}
"""What the kernel of a machine may run beside its own programs, if it was built so."""

_QEMU = {"armv7l": "arm", "i686": "i386"}
"""QEMU's names for what the kernel calls otherwise."""

_PATIENCE = 60.0
_INSTALL = "apt-get install qemu-user-static (qemu-user-binfmt on a system that has no such package)"
_MOUNT = f"mount -t binfmt_misc binfmt_misc {binfmt.DIRECTORY}"
_ENABLE = f"echo 1 >{binfmt.DIRECTORY}/status"
_REGISTER = "update-binfmts --enable, or systemctl restart systemd-binfmt"
_CONTAINER = "in a container, do it on the machine that runs the container"  # whose kernel, and list of handlers, it is


@dataclass(frozen=True)
class Runs:
    """How the image's programs run here."""

    architecture: Architecture
    emulator: str | None
    """The interpreter that runs them, as binfmt_misc names it; None where the machine does."""


def require_runnable(sandbox: Sandbox) -> Runs | None:
    """See that programs of the mounted image run here. The kernel decides: one of them is started, unless it is for
    this machine.

    :return: None where nothing tells what the image was made for: it may be still empty.
    :raises UnavailableError: they do not; why.
    """
    for path, arguments in _CANDIDATES:
        data = _beginning(sandbox, path)
        header = elf.header(data)
        if header is not None:
            return _require(sandbox, data, header, None if arguments is None else [path, *arguments])
    return None


def _require(sandbox: Sandbox, data: bytes, header: Header, trial: Sequence[str] | None) -> Runs:
    machine = elf.of_machine(os.uname().machine)
    image = header.architecture
    if image.kernel == machine and image.debian != "x32":
        return Runs(image, None)
    state = binfmt.read()
    native = elf.debian_names(machine)
    refusal = None if trial is None else _tried(sandbox, trial)
    obstacle = binfmt.obstacle(state, data, image=lambda path: elf.header(_beginning(sandbox, path)), native=native)
    handler = binfmt.chosen(state, data)
    if refusal is None and (trial is not None or obstacle is None):
        return Runs(image, _emulator(handler, sibling=image.debian in {_SIBLING.get(name) for name in native}))
    if obstacle is None and handler is not None:
        obstacle = f"the handler {handler.name} of binfmt_misc runs it by {handler.interpreter}, and {refusal}"
    hint = remedy(state, data, installed=_is_installed(image))
    raise UnavailableError(f"the image is {image} and this machine is {machine}", why=obstacle, hint=hint)


def remedy(state: binfmt.State, data: bytes, *, installed: bool) -> str:
    """What is left to do so that a program that begins so runs. Pure.

    :param installed: whether its emulator is.
    """
    steps = []
    if not state.mounted:
        steps.append(_MOUNT)
    elif not state.enabled:
        steps.append(_ENABLE)
    if not any(handler.enabled and handler.takes(data) for handler in state.handlers):
        steps.append(_REGISTER if installed else _INSTALL)
    elif not steps:  # its handler lacks the flag F, which those of this package have
        steps.append(_INSTALL)
    return f"{'; then '.join(steps)}; {_CONTAINER}"


def _is_installed(architecture: Architecture) -> bool:
    """Whether QEMU's emulator of its programs is, whatever the kernel knows of that."""
    name = f"qemu-{_QEMU.get(architecture.kernel, architecture.kernel)}"
    return any(shutil.which(each) for each in (name, f"{name}-static"))


def _emulator(handler: binfmt.Handler | None, *, sibling: bool) -> str | None:
    if handler is not None:
        return handler.interpreter
    # a container need not see the handlers that work in it
    return None if sibling else "an interpreter of binfmt_misc"


def _tried(sandbox: Sandbox, command: Sequence[str]) -> str | None:
    """What came of starting a program of the image; None if it did nothing, and that well."""
    try:
        done = sandbox.inside(command, env={"PATH": "/"}, timeout=_PATIENCE, check=False, output=_unheard)
    except CommandError:
        return f"`{' '.join(command)}` does not end"
    except SandboxError as error:
        return error.why or error.what
    return None if done.code == 0 else f"`{done.command}` exited with {done.code}\n{done.output.strip()}".strip()


def _beginning(sandbox: Sandbox, path: str) -> bytes:
    try:
        return sandbox.read(path, limit=elf.ENOUGH)
    except SandboxError:
        return b""


def _unheard(stream: str, data: bytes) -> None:
    """What is tried for ourselves is not part of the log."""
