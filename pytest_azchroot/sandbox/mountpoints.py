"""Mount points on the build machine's own file system, made where missing and removed again.

Removing a directory detaches what *other* mount namespaces have mounted on it (since Linux 3.18). Two builds may be
given the same mount path, so each keeps a shared lock on the directories it made or found, and only who gets the
exclusive one removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable

from pytest_azchroot.errors import SandboxError


def make(path: str) -> tuple[str, Callable[[], None]]:
    """Make sure that a directory is there.

    :return: its path without links, and what to call once nothing is mounted on it any more.
    :raises SandboxError: it cannot be made.
    """
    real = os.path.realpath(path)
    try:
        made, lock = _made_and_locked(real)
    except OSError as error:
        raise SandboxError(f"the mount point {path} cannot be made", why=error.strerror) from error

    def remove() -> None:
        try:
            if made and _is_ours_alone(lock):
                for each in reversed(made):
                    with contextlib.suppress(OSError):  # somebody put something there: then it is theirs
                        os.rmdir(each)
        finally:
            os.close(lock)

    return real, remove


def _made_and_locked(path: str) -> tuple[list[str], int]:
    while True:
        made = _make_directories(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return made, descriptor
        except FileNotFoundError:
            pass  # its maker removed it between our look and our lock
        os.close(descriptor)


def _make_directories(path: str) -> list[str]:
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another build was faster
            os.mkdir(each, 0o755)
    return missing[::-1]


def _is_ours_alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
