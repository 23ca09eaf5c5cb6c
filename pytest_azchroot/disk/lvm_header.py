"""What a physical volume of LVM2 says of itself: its label, and the newest text about its volume group. Pure.

In one of the first four sectors of 512 bytes is a *label*, in it the header of the physical volume, which says where
the *metadata areas* are. Each begins with a sector of its own that says where in the area, which is a ring, the newest
text is. The text describes the whole *volume group*, and is on every physical volume of it that has an area.

Source: lvm2, ``lib/label/label.h``, ``lib/format_text/layout.h``, ``lib/format_text/format-text.c``. All numbers are
little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_azchroot.disk import lvm_text
from pytest_azchroot.disk.lvm_text import Section, damaged
from pytest_azchroot.disk.partition import Reader
from pytest_azchroot.errors import DiskError

SECTOR = 512
"""What all is counted in, whatever the disk's own sectors are (lvm2: ``SECTOR_SIZE``)."""

_LABEL = struct.Struct("<8sQII8s")  # id, its sector, checksum, where the contents are, type
_AREA = struct.Struct("<QQ")  # offset and size; both 0 end a list
_RING = struct.Struct("<I16sIQQ")  # checksum, magic, version, start, size
_TEXT = struct.Struct("<QQII")  # offset in the ring, size, checksum, flags
_MAGIC = b" LVM2 x[5A%r0N*>"  # FMTT_MAGIC
_IGNORED = 1  # RAW_LOCN_IGNORED
_MOST_AREAS = 16


@dataclass(frozen=True)
class PhysicalVolume:
    """What one partition says of itself."""

    id: str
    size: int
    """Bytes of the partition, not what its header says."""
    text: Section | None
    """The newest description of its group; None if it has none: it is in no group, or others have it."""


def read(reader: Reader) -> PhysicalVolume:
    """What is on a partition that blkid calls ``LVM2_member``.

    :raises DiskError: it is damaged.
    """
    header = _label(reader)
    identity = lvm_text.identity(header[:32])
    areas = _lists(header[40:])
    next(areas)  # where extents are; the text says it too
    texts, failures = [], []
    for offset, size in next(areas):
        try:
            text = _text(reader, offset, size)
        except DiskError as error:
            failures.append(error)
        else:
            texts += [text] if text is not None else []
    if failures and not texts:
        raise failures[0]
    newest = max(texts, key=lambda text: lvm_text.number(lvm_text.group(text)[1], "seqno"), default=None)
    return PhysicalVolume(identity, reader.size, newest)


def _label(reader: Reader) -> bytes:
    """What is behind the label, to the end of its sector."""
    for number in range(4):  # LABEL_SCAN_SECTORS
        sector = reader.read(number * SECTOR, SECTOR)
        if len(sector) < SECTOR or sector[:8] != b"LABELONE":
            continue
        _, where, checksum, contents, kind = _LABEL.unpack_from(sector)
        if kind != b"LVM2 001" or where != number:
            continue
        if crc(sector[20:]) != checksum:
            raise damaged("the checksum of its label is wrong")
        if not _LABEL.size <= contents <= SECTOR - 40:
            raise damaged("its label points out of its sector")
        return sector[contents:]
    raise damaged("it has no label")


def _lists(data: bytes) -> Iterator[list[tuple[int, int]]]:
    """Lists of areas, one behind the other."""
    rows = _AREA.iter_unpack(data[: len(data) // _AREA.size * _AREA.size])
    while True:
        found = []
        for row in rows:
            if row == (0, 0) or row[0] == 0:
                break
            found.append(row)
        yield found[:_MOST_AREAS]


def _text(reader: Reader, start: int, size: int) -> Section | None:
    """The text of one metadata area, None if there is none."""
    header = reader.read(start, SECTOR)
    if len(header) < SECTOR:
        raise damaged("a metadata area is beyond its end")
    checksum, magic, version, own, length = _RING.unpack_from(header)
    if crc(header[4:]) != checksum:
        raise damaged("the checksum of a metadata area is wrong")
    if magic != _MAGIC or version != 1 or own != start or length > max(size, reader.size):
        raise damaged("the header of a metadata area is none that is known")
    offset, count, expected, flags = _TEXT.unpack_from(header, _RING.size)
    if offset == 0 or flags & _IGNORED:
        return None
    if not SECTOR <= offset < length or count > length - SECTOR or count > lvm_text.LONGEST:
        raise damaged("a metadata area says that its text is outside of it")
    # a ring: what does not fit before its end goes on behind the header
    first = min(count, length - offset)
    data = reader.read(start + offset, first) + reader.read(start + SECTOR, count - first)
    if len(data) != count or crc(data) != expected:
        raise damaged("the checksum of its metadata is wrong")
    return lvm_text.parse(data)


def crc(data: bytes) -> int:
    """LVM's checksum: CRC-32 with another start and without the final complement (lvm2: ``lib/misc/crc.c``)."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
