"""GUID partition tables. Pure: bytes in, values out.

Source: UEFI Specification 2.10, chapter 5, "GUID Partition Table (GPT) Disk Layout". What counts as valid is what
Linux takes for it (block/partitions/efi.c, libblkid's gpt.c), because the numbers must be those of the kernel.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from uuid import UUID

from pytest_azchroot.disk.partition import Partition, Reader, Table, misplaced

SECTOR_SIZES = (512, 4096)
PROTECTIVE = 0xEE
"""The type of an MBR's entry that says that there is a GPT (5.2.3)."""

TYPES = {
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI System",
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b": "PowerPC PReP boot",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": "Linux extended boot",
    "0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux filesystem",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root (x86-64)",
    "b921b045-1df0-41c3-af44-4c6f280d3fae": "Linux root (ARM-64)",
    "44479540-f297-41b2-9af7-d131d5f0458a": "Linux root (x86)",
    "8484680c-9521-48c6-9c11-b0720656f69e": "Linux /usr (x86-64)",
    "b0e01050-ee5f-4390-949a-9101b17104e9": "Linux /usr (ARM-64)",
    "933ac7e1-2eb4-4f13-b844-0e14e2aef915": "Linux home",
    "3b8f8425-20e0-4f3b-907f-1a25a76f98e8": "Linux server data",
    "4d21b016-b534-45c2-a9fb-5c16e091fd2d": "Linux variable data",
    "7ec6f557-3bc5-4aca-b293-16ef5df639d1": "Linux temporary data",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
    "e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
    "a19d880f-05fc-4d3b-a006-743f0f84911e": "Linux RAID",
    "8da63339-0007-60c0-c436-083ac8230908": "Linux reserved",
    "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "Microsoft basic data",
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved",
    "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "Windows recovery environment",
}
"""Types that disk images have, by the names that sfdisk gives them."""

LEGACY_BOOT, NO_AUTO = "legacy-boot", "no-auto"
ATTRIBUTES = {
    0: "required",
    1: "no-block-io",
    2: LEGACY_BOOT,
    59: "grow-file-system",
    60: "read-only",
    63: NO_AUTO,
}
"""Bit → name. 0 to 2: 5.3.3; the others: UAPI group, Discoverable Partitions Specification."""

_SIGNATURE = b"EFI PART"
# signature, revision, header size, CRC, reserved, own place, other header's place, first and last usable, disk GUID,
# place of the entries, their number, size of one, their CRC (5.3.2)
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")  # type, own GUID, first and last sector, attributes, name (5.3.3)
_NOT_THERE = "it is not there"
_MOST_ENTRIES = 4 << 20
"""Bytes of entries that are read: 32768 of them, which nobody has."""


@dataclass(frozen=True)
class _Half:
    """One of the two copies of a table."""

    sector_size: int
    disk: UUID
    place: int
    other: int
    last_usable: int
    entries: bytes


class _DamagedError(Exception):
    """A copy that cannot be used, and why."""


def parse(reader: Reader, *, sector_size: int | None = None) -> Table | None:
    """The GPT of a disk whose MBR says that it has one: the first copy, else the one at the end.

    :param sector_size: bytes, if it is known; else :data:`SECTOR_SIZES` are tried.
    :return: None if there is no copy of which even the signature is left.
    """
    sizes = SECTOR_SIZES if sector_size is None else (sector_size,)
    reasons = []
    for size in sizes:
        try:
            primary = _half(reader, place=1, sector_size=size)
        except _DamagedError as error:
            reasons.append((size, str(error)))
        else:
            return _table(primary, reader, _backup_problems(primary, reader))
    return _from_the_end(reader, sizes, reasons)


def _from_the_end(reader: Reader, sizes: tuple[int, ...], reasons: list[tuple[int, str]]) -> Table | None:
    for size in sizes:
        try:
            backup = _half(reader, place=reader.size // size - 1, sector_size=size)
        except _DamagedError as error:
            reasons.append((size, str(error)))
        else:
            why = next(reason for other, reason in reasons if other == size)
            return _table(backup, reader, [f"the first copy of the GPT is damaged ({why}); the one at the end is used"])
    present = [(size, why) for size, why in reasons if why != _NOT_THERE]
    if not present:
        return None
    size, why = present[0]
    return Table("gpt", size, (), problems=(f"both copies of the GPT are damaged ({why})",))


def _half(reader: Reader, *, place: int, sector_size: int) -> _Half:
    """Read one copy and its entries.

    :param place: of its header, in sectors.
    :raises _DamagedError: it cannot be used.
    """
    header = reader.read(place * sector_size, sector_size)
    if len(header) < sector_size or not header.startswith(_SIGNATURE):
        raise _DamagedError(_NOT_THERE)
    (_, _, length, stored, _, own, other, first, last, disk, start, count, size, entries_crc) = _HEADER.unpack_from(
        header
    )
    if not _HEADER.size <= length <= sector_size:
        raise _DamagedError(f"its header claims {length} bytes")
    if zlib.crc32(header[:16] + bytes(4) + header[20:length]) != stored:
        raise _DamagedError("the checksum of its header does not match")
    if own != place:
        raise _DamagedError(f"its header is of sector {own}")
    if size != _ENTRY.size or not 0 < count * size <= _MOST_ENTRIES:
        raise _DamagedError(f"it claims {count} entries of {size} bytes")
    if not first <= last < reader.size // sector_size:
        raise _DamagedError(f"it is for a disk that ends behind sector {last}")
    entries = reader.read(start * sector_size, count * size)
    if len(entries) < count * size or zlib.crc32(entries) != entries_crc:
        raise _DamagedError("the checksum of its entries does not match")
    return _Half(sector_size, UUID(bytes_le=disk), own, other, last, entries)


def _backup_problems(primary: _Half, reader: Reader) -> list[str]:
    problems = []
    if (primary.other + 1) * primary.sector_size != reader.size // primary.sector_size * primary.sector_size:
        problems.append("the second copy of the GPT is not at the end of the disk: the disk has another size now")
    try:
        backup = _half(reader, place=primary.other, sector_size=primary.sector_size)
    except _DamagedError as error:
        return [*problems, f"the second copy of the GPT is damaged ({error})"]
    if (backup.disk, backup.entries) != (primary.disk, primary.entries):
        problems.append("the two copies of the GPT differ; the first is used")
    return problems


def _table(half: _Half, reader: Reader, problems: list[str]) -> Table:
    partitions = tuple(_partitions(half))
    return Table(
        "gpt",
        half.sector_size,
        partitions,
        id=str(half.disk),
        problems=(*problems, *misplaced(partitions, size=reader.size)),
    )


def _partitions(half: _Half) -> list[Partition]:
    found = []
    for number, row in enumerate(_ENTRY.iter_unpack(half.entries), start=1):
        kind, own, first, last, bits, name = row
        if not any(kind) or last < first:
            continue
        guid = str(UUID(bytes_le=kind))
        attributes = tuple(word for bit, word in ATTRIBUTES.items() if bits >> bit & 1)
        found.append(
            Partition(
                number=number,
                start=first * half.sector_size,
                size=(last - first + 1) * half.sector_size,
                type=guid,
                type_name=TYPES.get(guid),
                name=name.decode("utf-16-le", errors="replace").partition("\0")[0] or None,
                uuid=str(UUID(bytes_le=own)),
                bootable=LEGACY_BOOT in attributes,
                attributes=attributes,
            )
        )
    return found
