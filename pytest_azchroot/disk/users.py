"""Who else has a disk image file: our own shells and builds, virtual machines, loop devices."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from pytest_azchroot.disk import loop
from pytest_azchroot.errors import DiskError

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})
"""How file systems say that they have no locks (flock(2), and FUSE)."""

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2): type, whence, start, length, pid
_WRITTEN = 101  # QEMU's block/file-posix.c: RAW_LOCK_PERM_BASE and the bit of BLK_PERM_WRITE


def claim(fd: int, path: Path, *, write: bool) -> None:
    """Have the file until ``fd`` is closed: one may write, or many may read.

    :param fd: the file, open for writing if ``write``.
    :param path: what it is called.
    :raises DiskError: another has it.
    """
    hint = "wait until it has ended; see who has it: lslocks, fuser"
    if not _lock(fd, fcntl.LOCK_EX if write else fcntl.LOCK_SH):
        other = "a shell or a build has it" if write else "a shell with --write or a build has it"
        raise DiskError(f"{path} is in use", why=other, hint=hint)
    if _is_written(fd) or (write and _is_locked(fd)):
        raise DiskError(f"{path} is in use", why="a virtual machine or another program has locked it", hint=hint)
    if users := _loops(path, write=write):
        raise DiskError(f"{path} is in use", why=f"{', '.join(users)} is bound to it", hint="see losetup; losetup -d")


def _lock(fd: int, kind: int) -> bool:
    """What a build holds its unfinished disk by, and we what is looked at."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_written(fd: int) -> bool:
    """Whether QEMU has the file for a machine that writes to it."""
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _WRITTEN, 1, 0)
    try:
        kind, *_ = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted))
    except OSError:  # this file system has no such locks
        return False
    return bool(kind != fcntl.F_UNLCK)


def _is_locked(fd: int) -> bool:
    """Whether somebody has locked a part of the file, as QEMU does for whatever it does. Else we do, all of it
    (fcntl(2), "Open file description locks")."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        return error.errno in {errno.EAGAIN, errno.EACCES}  # else this file system has no such locks
    return False


def _loops(path: Path, *, write: bool) -> list[str]:
    """Loop devices that are bound to the file; those for reading do not disturb who reads."""
    real = str(path.resolve())
    names = [entry.parent.name for entry in Path("/sys/block").glob("loop*/loop")]
    bound = [name for name in names if loop.bound_to(name) == real]
    return [f"/dev/{name}" for name in bound if write or Path(f"/sys/block/{name}/ro").read_text("ascii") != "1\n"]
