"""Room on file systems: how much there is, how much a file takes, and what to say when it ran out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pytest_azchroot.errors import DiskError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The file system, or the user's share of it, is full."""

NOTHING = 1 << 20
"""Bytes: with less than this, nothing of use can be written."""


_DEFAULT = "/var/tmp"  # /tmp may be memory
_ELSEWHERE = "choose another directory by TMPDIR"


def scratch() -> Path:
    """The directory of large temporary files: ``$TMPDIR``, else ``/var/tmp``.

    :raises DiskError: there is none, or it cannot be written to.
    """
    path = _scratch()
    if not path.is_dir():
        raise DiskError(f"{path}, for large temporary files, is no directory", hint=f"make it, or {_ELSEWHERE}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise DiskError(f"{path}, for large temporary files, cannot be written to", hint=_ELSEWHERE)
    return path


def _scratch() -> Path:
    return Path(os.environ.get("TMPDIR") or _DEFAULT)


def mount_point(path: Path) -> Path:
    """The directory at which the file system that holds ``path`` is mounted."""
    path = path.resolve()
    while not path.is_mount():
        path = path.parent
    return path


def free(path: Path) -> int:
    """Bytes that this process may still allocate in the file system that holds ``path``."""
    state = os.statvfs(path)
    return (state.f_bfree if os.geteuid() == 0 else state.f_bavail) * state.f_frsize


def exhausted(file: Path) -> str | None:
    """What to tell the user where a disk image's own file system has no room for it to grow.

    A loop device can report that only as an I/O error, after which the file system on it is read-only.
    """
    directory = file.resolve().parent
    if not file.is_file() or not directory.is_dir() or free(directory) >= NOTHING:
        return None
    where = mount_point(directory)
    return f"the file system at {where}, where the image's disk grows, is full: make room below {where}"


def allocated(fd: int) -> int:
    """Bytes that an open file takes, holes not counted. ``st_blocks`` counts 512 bytes whatever the file system."""
    return os.fstat(fd).st_blocks * 512


def human(size: int) -> str:
    """``size`` bytes for a reader: ``512 bytes``, ``20.0 MiB``, ``1.5 GiB``."""
    amount = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def explained(error: OSError, *, doing: str, directory: Path, needed: int | None = None) -> DiskError:
    """What to raise for an operating system's error while ``doing`` something in ``directory``.

    :param doing: ``copying /images/a.vhd``.
    :param needed: bytes that the whole of it takes, if known.
    """
    if error.errno in FULL:
        return full(doing=doing, directory=directory, needed=needed)
    if error.errno == errno.EFBIG:
        return DiskError(
            f"{doing} failed",
            why=f"the file system at {mount_point(directory)} does not hold files this large",
            hint="put the output on another file system",
        )
    return DiskError(f"{doing} failed", why=f"{error.strerror or error}: {error.filename or directory}")


def full(*, doing: str, directory: Path, needed: int | None = None) -> DiskError:
    """The error for a file system that has no room left."""
    where = mount_point(directory)
    other = _ELSEWHERE if directory == _scratch() else "put the output on another file system"
    wanted = f"{human(needed)} were needed, " if needed is not None else ""
    return DiskError(
        f"{doing} failed",
        why=f"the file system at {where} is full ({wanted}{human(free(where))} are free now)",
        hint=f"make room below {where}, or {other}",
    )
