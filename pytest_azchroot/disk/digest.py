"""The payload digest: what a disk holds, whatever file it is in.

Two files have the same payload digest where a machine would find the same bytes on the same size of disk. Holes and
written zeros are the same; so are a raw file, a fixed or dynamic VHD, a VHDX and a qcow2 of one disk.

The digest, version 1. A disk of N bytes is cut into blocks of 65536 bytes, numbered from 0; the last one is filled up
with zeros if N is no multiple. SHA-256 (FIPS 180-4) is fed with, in this order and with nothing between::

    the 18 bytes "azchroot payload 1", and a newline (0x0a)
    for each block that is not all zeros, in ascending order:
        its number, 8 bytes, unsigned, big-endian
        its 65536 bytes
    N, 8 bytes, unsigned, big-endian

It is written ``azd1:`` and 64 hexadecimal digits in lower case. As a record has 65544 bytes and the end 8, no two
disks feed the same bytes.

N counts, because a larger disk is another disk: its last sectors, where a GPT has a copy of itself, are elsewhere.
N is the size that a machine sees: the footer of a VHD is no part of the disk. A source that was rounded up to whole
MiB, or enlarged by ``os_disk_size_gb``, so has another digest than the working disk; the artifacts of one image all
have the same.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from pytest_azchroot.disk import qemu, space
from pytest_azchroot.disk.copy import Progress, extents, quiet
from pytest_azchroot.disk.image import DiskImage, identify_open, opened, qemu_node
from pytest_azchroot.disk.partial import partial
from pytest_azchroot.errors import DiskError

BLOCK = 65536
"""Bytes of a block. Part of the format, so not the constant of the same size in :mod:`.copy`."""

PREFIX = "azd1:"
PATTERN = re.compile(rf"{PREFIX}[0-9a-f]{{64}}")
"""What a digest looks like."""

_DOMAIN = b"azchroot payload 1\n"
_ZEROS = bytes(BLOCK)
_STRIDE = 256
"""Blocks between two words on the progress: 16 MiB, some hundredths of a second."""


def digest(fd: int, *, size: int, progress: Progress = quiet) -> str:
    """The payload digest of the raw disk that the first ``size`` bytes of a file or block device are.

    Only what holds data is read; the file's position moves.

    :raises DiskError: it ends early, or cannot be read.
    """
    hasher = hashlib.sha256(_DOMAIN)
    following = 0
    try:
        # Looked at first: what is beyond the end of a file passes for a hole. A block device has no st_size.
        if (length := os.lseek(fd, 0, os.SEEK_END)) < size:
            raise DiskError("the disk ended early", why=f"it has {length} of {size} bytes")
        for begin, end in extents(fd, size):
            # An extent may begin or end within a block, which the extent before has brought already.
            for number in range(max(begin // BLOCK, following), -(-end // BLOCK)):
                block = _block(fd, number, size)
                if block != _ZEROS:
                    hasher.update(number.to_bytes(8, "big"))
                    hasher.update(block)
                if number % _STRIDE == 0:
                    progress(number * BLOCK, size)
                following = number + 1
    except OSError as error:
        raise DiskError("the disk cannot be read to its end", why=error.strerror) from error
    hasher.update(size.to_bytes(8, "big"))
    progress(size, size)
    return f"{PREFIX}{hasher.hexdigest()}"


def digest_of(path: Path, *, progress: Progress = quiet) -> str:
    """The payload digest of a disk image file of any format that can be a source.

    What is neither raw nor a fixed VHD is converted into a file without a name below ``$TMPDIR``, else ``/var/tmp``.

    :raises DiskError: it cannot be read, is no disk image, or was changed meanwhile.
    :raises UnavailableError: it takes qemu-img to read it, which is missing.
    """
    with opened(path) as fd:
        before = os.fstat(fd)
        image = identify_open(fd, path)
        if image.plain:
            found = digest(fd, size=image.size, progress=progress)
        else:
            found = _digest_converted(fd, image, progress)
        after = os.fstat(fd)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DiskError(f"{path} was changed while it was read", hint="ask again when nothing writes to it")
    return found


def _digest_converted(fd: int, image: DiskImage, progress: Progress) -> str:
    directory = space.scratch()
    try:
        with partial(directory, image.path.name) as raw:
            qemu.convert(
                qemu_node(image, fd),
                source=fd,
                target=raw.fd,
                target_format="raw",
                directory=directory,
                doing=f"converting {image.path}",
                progress=progress,
            )
            return digest(raw.fd, size=image.size)
    except OSError as error:
        raise space.explained(error, doing=f"converting {image.path}", directory=directory) from error


def _block(fd: int, number: int, size: int) -> bytes:
    """One block, whole: read(2) may give less than is asked for."""
    position, end = number * BLOCK, min((number + 1) * BLOCK, size)
    data = os.pread(fd, end - position, position)
    while len(data) < end - position:
        more = os.pread(fd, end - position - len(data), position + len(data))
        if not more:
            raise DiskError("the disk ended early", why=f"at {position + len(data)} of {size} bytes")
        data += more
    return data.ljust(BLOCK, b"\0")
