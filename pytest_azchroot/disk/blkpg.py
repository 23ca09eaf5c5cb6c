"""Partitions of a block device, told to the kernel one by one (BLKPG).

For kernels without partition parsers, which find none by themselves; where they have them, both agree. Not
``partx --update``: it counts the partitions and takes that for the highest number, so of the numbers 1, 14 and 15 of
a usual cloud image it makes only the first (util-linux 2.38); and it removes and adds even what has not changed,
which gives it other device numbers.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_azchroot.errors import DiskError, UnavailableError

SECTOR = 512
"""What start and size are counted in, here and in sysfs, whatever the disk's own sectors are."""

_BLKPG = 0x1269  # include/uapi/linux/blkpg.h
_ADD, _REMOVE, _RESIZE = 1, 2, 3
_EXTENDED = frozenset({"0x5", "0xf", "0x85"})
_EXTENDED_SIZE = 2


@dataclass(frozen=True)
class Extent:
    """Where a partition is, in sectors of 512 bytes."""

    start: int
    size: int


@dataclass(frozen=True)
class Change:
    """One thing to tell the kernel."""

    operation: int
    number: int
    extent: Extent


class _Partition(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_longlong),
        ("length", ctypes.c_longlong),
        ("number", ctypes.c_int),
        ("device", ctypes.c_char * 64),
        ("volume", ctypes.c_char * 64),
    )


class _Request(ctypes.Structure):
    _fields_ = (
        ("operation", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("length", ctypes.c_int),
        ("data", ctypes.c_void_p),
    )


def update(node: str, descriptor: int, *, known: Mapping[int, Extent], has_table: bool) -> None:
    """Make the kernel's partitions of a device those of its partition table. What has not changed is not touched.

    :param descriptor: the open device.
    :param known: the kernel's partitions.
    :param has_table: whether there is a partition table at all; without one the device has no partitions.
    :raises DiskError: a partition that is in use has moved or gone, or the table cannot be read.
    """
    wanted = table(node) if has_table else {}
    for change in changes(known, wanted):
        _apply(node, descriptor, change)


def table(node: str) -> dict[int, Extent]:
    """The partitions of a table, by number, as libblkid reads it.

    :raises UnavailableError: partx is not installed.
    :raises DiskError: the table cannot be read.
    """
    columns = "NR,START,SECTORS,SCHEME,TYPE"
    argv = ["partx", "--noheadings", "--raw", "--output", columns, node]
    try:
        done = subprocess.run(argv, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except (FileNotFoundError, PermissionError):  # missing, or there and not executable
        raise UnavailableError("partx is not installed", hint="apt-get install util-linux") from None
    if done.returncode != 0:
        why = done.stderr.decode(errors="replace").strip()
        raise DiskError(f"the partition table of {node} cannot be read", why=why)
    return parse(done.stdout.decode(errors="replace"))


def parse(text: str) -> dict[int, Extent]:
    """``NR START SECTORS SCHEME TYPE`` a line. An extended partition is two sectors to the kernel, so that nobody
    writes over the logical ones in it."""
    rows = (line.split() for line in text.splitlines() if line.strip())
    found = {}
    for number, start, size, *rest in rows:
        extended = rest[:1] == ["dos"] and rest[1:] and rest[1] in _EXTENDED
        found[int(number)] = Extent(int(start), min(int(size), _EXTENDED_SIZE) if extended else int(size))
    return found


def changes(known: Mapping[int, Extent], wanted: Mapping[int, Extent]) -> list[Change]:
    """What to tell the kernel, in an order in which no two partitions ever overlap."""
    return [*_removals(known, wanted), *_resizes(known, wanted), *_additions(known, wanted)]


def _removals(known: Mapping[int, Extent], wanted: Mapping[int, Extent]) -> Iterator[Change]:
    for number, extent in known.items():
        if number not in wanted or wanted[number].start != extent.start:
            yield Change(_REMOVE, number, extent)


def _resizes(known: Mapping[int, Extent], wanted: Mapping[int, Extent]) -> list[Change]:
    found = [
        (extent.size - known[number].size, Change(_RESIZE, number, extent))
        for number, extent in wanted.items()
        if number in known and known[number].start == extent.start and known[number].size != extent.size
    ]
    return [change for _, change in sorted(found, key=lambda pair: pair[0])]  # what shrinks makes room first


def _additions(known: Mapping[int, Extent], wanted: Mapping[int, Extent]) -> Iterator[Change]:
    for number, extent in wanted.items():
        if number not in known or known[number].start != extent.start:
            yield Change(_ADD, number, extent)


def _apply(node: str, descriptor: int, change: Change) -> None:
    partition = _Partition(change.extent.start * SECTOR, change.extent.size * SECTOR, change.number)
    address = ctypes.addressof(partition)
    request = _Request(change.operation, 0, ctypes.sizeof(partition), address)
    try:
        fcntl.ioctl(descriptor, _BLKPG, bytes(request))
    except OSError as error:
        if error.errno == errno.ENXIO and change.operation == _REMOVE:
            return  # the kernel has dropped it since we looked
        what = f"partition {change.number} of {node} cannot become what the partition table says"
        hint = "unmount it before the table is changed" if error.errno == errno.EBUSY else None
        raise DiskError(what, why=error.strerror, hint=hint) from error


def known_to_kernel(sysfs: Path) -> dict[int, Extent]:
    """The partitions below a device's directory in sysfs."""
    found = {}
    for entry in sysfs.iterdir():
        if (entry / "partition").exists():
            number, start, size = (int((entry / name).read_text("ascii")) for name in ("partition", "start", "size"))
            found[number] = Extent(start, size)
    return found
