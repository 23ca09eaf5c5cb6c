"""The control group of a sandbox, below that of the caller, with no controllers: nothing is counted or limited in it,
it only tells the image's processes from all others (cgroups(7), "Cgroups version 2").

The holder lives in it, so whatever it starts is born there, and a tool of the build machine has to leave. The kernel
removes no group, but refuses to remove one that has a process. So whoever sees the holder end removes it: the caller,
or the keeper if the caller is dead; and if both were killed at once, the next sandbox that starts there. None of them
can take the group of a living one.

File names are those of a mount of our own, which is nowhere: where and whether the machine has mounted cgroup2 does
not matter, nor that it is read-only in most containers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator

from . import syscalls

_NAME = "azchroot-"
_PATIENCE = 2.0
"""Seconds; a process leaves its group a moment after it has ended."""
_POLL = 0.002
_TRIES = 10


def new() -> str | None:
    """A path for a group below that of this process; None where there is no cgroup2."""
    own = _own()
    return None if own is None else f"{own.rstrip('/')}/{_NAME}{secrets.token_hex(4)}"


def enter(path: str) -> int:
    """Make a group and move this process into it. What is left of dead sandboxes beside it is removed.

    :return: a descriptor of its directory.
    :raises OSError: the kernel or the machine does not allow it.
    """
    with _root() as root:
        _sweep(root, os.path.dirname(path))
        for left in reversed(range(_TRIES)):
            with contextlib.suppress(FileExistsError):
                os.mkdir(_at(path), 0o755, dir_fd=root)
            try:
                _move(root, path)
                return os.open(_at(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
            except OSError as error:
                # another sandbox has swept it before there was a process in it
                if error.errno not in {errno.ENOENT, errno.ENODEV} or left == 0:
                    _removed(root, path)
                    raise
    raise AssertionError("unreachable")


def leave() -> None:
    """Move this process to the group above its own."""
    own = _own()
    assert own is not None
    with _root() as root:
        _move(root, os.path.dirname(own))


def remove(path: str) -> None:
    """Remove the group of a sandbox that has ended; it need not be there."""
    with contextlib.suppress(OSError), _root() as root:
        deadline = time.monotonic() + _PATIENCE
        while not _removed(root, path) and time.monotonic() < deadline:
            time.sleep(_POLL)


def _sweep(root: int, directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        listing = os.open(_at(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        with _closing(listing):
            for name in os.listdir(listing):
                if name.startswith(_NAME):
                    _removed(root, f"{directory}/{name}")


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _removed(root: int, path: str) -> bool:
    try:
        os.rmdir(_at(path), dir_fd=root)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _move(root: int, path: str) -> None:
    file = os.open(f"{_at(path)}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=root)
    with _closing(file):
        os.write(file, b"0")


@contextlib.contextmanager
def _root() -> Iterator[int]:
    root = syscalls.detached_mount("cgroup2")
    with _closing(root):
        yield root


def _at(path: str) -> str:
    """A path of the group file system, from its root."""
    return f"./{path}"


def _own() -> str | None:
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            number, _, path = line.rstrip("\n").split(":", 2)
            if number == "0":
                return path
    return None
