"""Copies of disk images that share extents where the file system can, and stay sparse where it cannot."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_azchroot.errors import DiskError

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

FICLONE = 0x40049409
"""``_IOW(0x94, 9, int)``, linux/fs.h, ioctl_ficlone(2). Python names it from 3.12 on."""
CHUNK = 32 * 1024**2
"""Bytes for one copy_file_range(2): short enough that an interrupt and the progress come through."""
BLOCK = 64 * 1024
"""Bytes that are written or left out together when a file is searched for zeros: a multiple of any block size."""
ZEROS = bytes(BLOCK)

_CANNOT_CLONE = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}
)
_CANNOT_RANGE = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.ETXTBSY})


def quiet(done: int, total: int) -> None:
    """The progress that nobody hears."""


def copy(source: int, target: int, *, length: int, progress: Progress = quiet) -> bool:
    """Copy the first ``length`` bytes of ``source`` into ``target``, an empty file open for writing.

    Afterwards the target has exactly ``length`` bytes; what the source has beyond (the footer of a VHD) is not in it.

    :returns: whether the two share their extents.
    :raises OSError: as the system says; ENOSPC among others.
    :raises DiskError: the source ended early.
    """
    if os.fstat(source).st_size < length:
        raise _too_short(os.fstat(source).st_size, length)
    shared = clone(source, target)
    os.ftruncate(target, length)
    if not shared:
        _copy_data(source, target, length=length, progress=progress)
    progress(length, length)
    return shared


def clone(source: int, target: int) -> bool:
    """Share all extents of ``source`` with ``target``; False where these file systems cannot.

    The whole file, because a range must end at a block, and a disk followed by a footer need not: the caller
    truncates afterwards. FICLONERANGE would succeed in no other case than this does.
    """
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT_CLONE:
            return False
        raise
    return True


def can_clone(source: int, directory: Path) -> bool:
    """Whether a copy of ``source`` in ``directory`` would share its extents. Tried on a file that gets no name."""
    try:
        target = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        return clone(source, target)
    finally:
        os.close(target)


def extents(fd: int, length: int) -> Iterator[tuple[int, int]]:
    """Where the first ``length`` bytes hold data: pairs of begin and end, in order. What lies between is zero.

    A file system that knows no holes reports one extent (lseek(2), SEEK_DATA). So it is with a block device, which
    does not know the question.
    """
    if stat.S_ISBLK(os.fstat(fd).st_mode):
        yield 0, length
        return
    position = 0
    while position < length:
        try:
            begin = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        if begin >= length:
            return
        end = min(os.lseek(fd, begin, os.SEEK_HOLE), length)
        yield begin, end
        position = end


def _copy_data(source: int, target: int, *, length: int, progress: Progress) -> None:
    found = list(extents(source, length))
    # A source without holes may still be mostly zeros: downloads and copies by careless tools are.
    search = found == [(0, length)]
    for begin, end in found:
        position = begin
        while position < end:
            count = min(CHUNK, end - position)
            copied = 0 if search else _copy_range(source, target, position, count)
            position += copied or _copy_nonzero(source, target, position, count)
            progress(position, length)


def _copy_range(source: int, target: int, position: int, count: int) -> int:
    """Let the kernel, or a file server, copy; 0 where it cannot (other file system, old kernel)."""
    try:
        return os.copy_file_range(source, target, count, position, position)
    except OSError as error:
        if error.errno in _CANNOT_RANGE:
            return 0
        raise


def _copy_nonzero(source: int, target: int, position: int, count: int) -> int:
    """Copy by way of memory, up to the next multiple of a block, leaving out blocks of zeros."""
    end = position + count
    while position < end:
        data = os.pread(source, min(BLOCK - position % BLOCK, end - position), position)
        if not data:
            raise _too_short(position, end)
        if data != ZEROS[: len(data)]:
            write_all(target, data, position)
        position += len(data)
    return count


def write_all(fd: int, data: bytes, position: int) -> None:
    """pwrite(2) until all is written: it may write less, before an error that the next call reports."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, position)
        view = view[written:]
        position += written


def _too_short(found: int, wanted: int) -> DiskError:
    return DiskError(
        "the source ended early",
        why=f"it has {found} bytes where {wanted} were expected",
        hint="something truncated it meanwhile: build again when nothing writes to it",
    )
