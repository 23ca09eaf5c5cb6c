"""The VHD format: its 512-byte footer, and what Azure asks of one.

A fixed VHD is the raw disk followed by the footer, so a raw disk becomes one by an append, in place.
Source: "Virtual Hard Disk Image Format Specification", version 1.0, Microsoft, 2006 (below: "the specification").
Everything here is pure except :func:`append_footer` and :func:`remove_footer`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import NamedTuple
from uuid import UUID, uuid4

from pytest_azchroot.errors import DiskError

SECTOR = 512
FOOTER_SIZE = 512
COOKIE = b"conectix"
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
"""Disk types; 0, 1, 5 and 6 are reserved or deprecated."""

MIB = 1024**2
GIB = 1024**3

AZURE_ALIGNMENT = MIB
"""learn.microsoft.com, "Prepare Linux for imaging": the virtual size must be aligned to 1 MiB."""
AZURE_MINIMUM = 20 * MIB
"""Azure's REST reference, Disks, ``creationData.uploadSizeBytes``: from 20972032 (20 MiB + 512 bytes of footer)."""
AZURE_OS_MAXIMUM = 1023 * GIB
"""learn.microsoft.com, "Prepare Linux for imaging": the largest VHD of an OS disk is 1,023 GB (units of 1024**3)."""

CREATOR = b"win "
"""What Hyper-V writes. Readers that choose the size by creator (qemu's block/vpc.c) take the footer's size for it."""
GEOMETRY_CREATORS = frozenset({b"vpc ", b"vs  ", b"qemu"})
"""Virtual PC, Virtual Server, and qemu without ``force_size``: with them the disk is as large as its geometry says."""

_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)
_FEATURES_RESERVED = 2  # "must always be set to 1"; it is bit 1
_FORMAT_VERSION = 0x00010000
_NO_OFFSET = 0xFFFFFFFFFFFFFFFF
_CREATOR_VERSION = 0x000A0000
_CREATOR_OS = b"Wi2k"
_CHECKSUM = slice(64, 68)
_LAYOUT = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")


class Geometry(NamedTuple):
    """Cylinders, heads, and sectors a track."""

    cylinders: int
    heads: int
    sectors: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.cylinders * self.heads * self.sectors * SECTOR


MAX_GEOMETRY = Geometry(65535, 16, 255)
"""What larger disks have too: then the geometry says nothing of the size."""


@dataclass(frozen=True)
class Footer:
    """A VHD's footer, as far as anybody uses it. Sizes in bytes."""

    size: int
    original_size: int
    geometry: Geometry
    disk_type: int
    unique_id: UUID
    timestamp: datetime
    creator: bytes = CREATOR
    creator_version: int = _CREATOR_VERSION
    creator_os: bytes = _CREATOR_OS
    data_offset: int = _NO_OFFSET
    features: int = _FEATURES_RESERVED
    saved_state: bool = False

    @property
    def ambiguous(self) -> bool:
        """Whether programs disagree on the size: the creator means the geometry, which differs from the size field."""
        return self.creator in GEOMETRY_CREATORS and self.geometry != MAX_GEOMETRY and self.geometry.size != self.size


def geometry(size: int) -> Geometry:
    """The geometry of a disk of ``size`` bytes. Source: the specification's appendix "CHS Calculation"."""
    sectors = min(size // SECTOR, MAX_GEOMETRY.size // SECTOR)
    if sectors >= 65535 * 16 * 63:
        per_track, heads = 255, 16
        tracks = sectors // per_track
    else:
        per_track = 17
        tracks = sectors // per_track
        heads = max(4, (tracks + 1023) // 1024)
        if tracks >= heads * 1024 or heads > 16:
            per_track, heads = 31, 16
            tracks = sectors // per_track
        if tracks >= heads * 1024:
            per_track, heads = 63, 16
            tracks = sectors // per_track
    return Geometry(tracks // heads, heads, per_track)


def fixed_footer(size: int, *, unique_id: UUID, timestamp: datetime) -> Footer:
    """The footer of a new fixed disk of ``size`` bytes.

    :raises ValueError: the size is no positive multiple of a sector.
    """
    if size <= 0 or size % SECTOR:
        raise ValueError(f"{size} bytes are no whole number of sectors")
    return Footer(
        size=size,
        original_size=size,
        geometry=geometry(size),
        disk_type=FIXED,
        unique_id=unique_id,
        timestamp=timestamp,
    )


def checksum(footer: bytes) -> int:
    """One's complement of the sum of all bytes but the checksum's own. Source: the specification."""
    return ~(sum(footer) - sum(footer[_CHECKSUM])) & 0xFFFFFFFF


def pack(footer: Footer) -> bytes:
    """The footer's 512 bytes."""
    seconds = int((footer.timestamp - _EPOCH).total_seconds())
    packed = bytearray(
        _LAYOUT.pack(
            COOKIE,
            footer.features,
            _FORMAT_VERSION,
            footer.data_offset,
            max(0, seconds) & 0xFFFFFFFF,
            footer.creator,
            footer.creator_version,
            footer.creator_os,
            footer.original_size,
            footer.size,
            *footer.geometry,
            footer.disk_type,
            0,
            footer.unique_id.bytes,
            footer.saved_state,
        )
    )
    packed[_CHECKSUM] = checksum(bytes(packed)).to_bytes(4, "big")
    return bytes(packed)


def is_footer(data: bytes) -> bool:
    """Whether these bytes claim to be a footer. Dynamic disks also have a copy of it at their beginning."""
    return data.startswith(COOKIE)


def parse(data: bytes) -> Footer:
    """Read a footer.

    :raises DiskError: it is none, is damaged, or is of an unknown version.
    """
    if len(data) != FOOTER_SIZE or not is_footer(data):
        raise DiskError("there is no VHD footer", why=f"it would begin with {COOKIE.decode()!r}")
    (_, features, version, data_offset, seconds, creator, creator_version, creator_os, original_size, size, *rest) = (
        _LAYOUT.unpack(data)
    )
    cylinders, heads, sectors, disk_type, stored, unique_id, saved_state = rest
    if stored != checksum(data):
        raise DiskError("the VHD footer is damaged", why="its checksum does not match")
    if version >> 16 != _FORMAT_VERSION >> 16:
        raise DiskError(
            f"the VHD footer has format version {version >> 16}.{version & 0xFFFF}", why="only 1.0 is known"
        )
    return Footer(
        size=size,
        original_size=original_size,
        geometry=Geometry(cylinders, heads, sectors),
        disk_type=disk_type,
        unique_id=UUID(bytes=unique_id),
        timestamp=_EPOCH + timedelta(seconds=seconds),
        creator=creator,
        creator_version=creator_version,
        creator_os=creator_os,
        data_offset=data_offset,
        features=features,
        saved_state=bool(saved_state),
    )


def check_azure(footer: Footer, file_length: int) -> list[str]:
    """Why Azure would not take this VHD as an OS disk, a sentence each; empty if it would.

    :param file_length: bytes of the whole file, footer included.
    """
    problems = []
    if footer.disk_type != FIXED:
        problems.append(f"it is not a fixed VHD: its disk type is {footer.disk_type}, not {FIXED}")
    elif file_length != footer.size + FOOTER_SIZE:
        problems.append(f"the file has {file_length} bytes, not {footer.size} of the disk and {FOOTER_SIZE} of footer")
    if footer.creator in GEOMETRY_CREATORS:
        problems.append(f"its creator {footer.creator.decode()!r} makes readers take the size from the geometry")
    return problems + check_azure_size(footer.size)


def check_azure_size(size: int) -> list[str]:
    """Why Azure would not take an OS disk of ``size`` bytes, a sentence each; empty if it would."""
    problems = []
    if size % AZURE_ALIGNMENT:
        problems.append(f"the disk has {size} bytes, which is {size % AZURE_ALIGNMENT} over a whole MiB")
    if size < AZURE_MINIMUM:
        problems.append(f"the disk has {size} bytes; the smallest that Azure takes is {AZURE_MINIMUM // MIB} MiB")
    if size > AZURE_OS_MAXIMUM:
        problems.append(f"the disk has {size} bytes; the largest OS disk is {AZURE_OS_MAXIMUM // GIB} GiB")
    return problems


def append_footer(fd: int, *, size: int) -> Footer:
    """Turn the raw disk of ``size`` bytes open at ``fd`` into a fixed VHD, in place. Idempotent.

    The size must be right for Azure before the disk is partitioned, not now: a GPT has a copy of itself at the end.
    """
    footer = fixed_footer(size, unique_id=uuid4(), timestamp=datetime.now(timezone.utc))
    os.pwrite(fd, pack(footer), size)
    return footer


def remove_footer(fd: int, *, size: int) -> None:
    """Turn the fixed VHD open at ``fd`` into the raw disk of ``size`` bytes again."""
    os.ftruncate(fd, size)
