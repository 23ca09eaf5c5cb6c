"""Master boot records and the chains of logical partitions behind them. Pure: bytes in, values out.

There is no specification; the rules are those of Linux (block/partitions/msdos.c, libblkid's dos.c), because the
numbers must be those of the kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_azchroot.disk.partition import Partition, Reader, Table, misplaced

EXTENDED = frozenset({0x05, 0x0F, 0x85})
FIRST_LOGICAL = 5

TYPES = {
    0x05: "Extended",
    0x07: "HPFS/NTFS/exFAT",
    0x0B: "W95 FAT32",
    0x0C: "W95 FAT32 (LBA)",
    0x0F: "W95 Ext'd (LBA)",
    0x82: "Linux swap / Solaris",
    0x83: "Linux",
    0x85: "Linux extended",
    0x8E: "Linux LVM",
    0xEE: "GPT",
    0xEF: "EFI (FAT-12/16/32)",
    0xFD: "Linux raid autodetect",
}
"""Types that disk images have, by the names that sfdisk gives them."""

_SIGNATURE = b"\x55\xaa"
_SIGNATURE_AT = 510
_ID_AT = 440
_ENTRIES_AT = 446
_ENTRY = struct.Struct("<B3xB3xII")  # active, type, first sector, sectors; the addresses by cylinder are ignored
_ACTIVE = 0x80
_MOST_LOGICAL = 256
"""Nobody has as many: a chain that goes on is a lie."""

_FAT_NAMES = ((54, b"FAT"), (82, b"FAT32"), (3, b"NTFS"), (3, b"EXFAT"))
"""Boot sectors of file systems carry the same signature, and code where a table would be."""


@dataclass(frozen=True)
class Entry:
    """One row of a boot record, in sectors."""

    active: bool
    type: int
    start: int
    size: int

    @property
    def extended(self) -> bool:
        """Whether it holds logical partitions."""
        return self.type in EXTENDED


def entries(record: bytes) -> tuple[Entry, ...] | None:
    """The four rows of a boot record, empty ones too; None if it is no boot record with a table."""
    if record[_SIGNATURE_AT : _SIGNATURE_AT + 2] != _SIGNATURE:
        return None
    if any(record[place : place + len(name)].upper() == name for place, name in _FAT_NAMES):
        return None
    rows = list(_ENTRY.iter_unpack(record[_ENTRIES_AT:_SIGNATURE_AT]))
    if any(active not in {0, _ACTIVE} for active, *_ in rows):
        return None
    return tuple(Entry(active == _ACTIVE, kind, start, size) for active, kind, start, size in rows)


def parse(reader: Reader, *, sector_size: int = 512) -> Table | None:
    """The table in the disk's first sector, with its logical partitions.

    :param sector_size: bytes in which the table counts. It does not say so itself.
    :return: None if there is none.
    """
    record = reader.read(0, 512)
    rows = entries(record)
    if rows is None:
        return None
    identity = int.from_bytes(record[_ID_AT : _ID_AT + 4], "little")
    chain = _Chain(reader, sector_size, identity)
    primary = [
        chain.partition(number, entry, start=entry.start)
        for number, entry in enumerate(rows, start=1)
        if entry.size and entry.type
    ]
    extended = [entry for entry in rows if entry.extended and entry.size]
    logical = list(chain.logical(extended[0])) if extended else []
    if len(extended) > 1:
        chain.problems.append("there are several extended partitions; the first is used")
    shown = tuple(each for each in (*primary, *logical) if int(each.type, 16) not in EXTENDED)
    return Table(
        "dos",
        sector_size,
        (*primary, *logical),
        id=f"0x{identity:08x}",
        problems=(*chain.problems, *misplaced(shown, size=reader.size), *_strays(primary, logical)),
    )


def _strays(primary: list[Partition], logical: list[Partition]) -> Iterator[str]:
    """Logical partitions outside of their extended one."""
    outer = next((each for each in primary if int(each.type, 16) in EXTENDED), None)
    for each in logical:
        if outer is not None and not outer.start <= each.start < each.end <= outer.end:
            yield f"logical partition {each.number} leaves its extended partition {outer.number}"


class _Chain:
    """Follows extended boot records, each of which names a partition and the next record."""

    def __init__(self, reader: Reader, sector_size: int, identity: int) -> None:
        self._reader = reader
        self._sector = sector_size
        self._identity = identity
        self.problems: list[str] = []

    def partition(self, number: int, entry: Entry, *, start: int) -> Partition:
        """An entry as a value. Source of the UUID: libblkid, ``blkid_partition_gen_uuid``."""
        return Partition(
            number=number,
            start=start * self._sector,
            size=entry.size * self._sector,
            type=f"0x{entry.type:x}",
            type_name=TYPES.get(entry.type),
            uuid=f"{self._identity:08x}-{number:02x}" if self._identity else None,
            bootable=entry.active,
        )

    def logical(self, outer: Entry) -> Iterator[Partition]:
        """The partitions in an extended one. A chain that lies is followed up to its lie."""
        number, record, seen = FIRST_LOGICAL, outer.start, set[int]()
        for _ in range(_MOST_LOGICAL):
            seen.add(record)
            rows = entries(self._reader.read(record * self._sector, 512))
            if rows is None:
                if len(seen) > 1 or any(self._reader.read(record * self._sector, 512)):
                    self.problems.append(f"the chain of logical partitions breaks at sector {record}")
                return
            for entry in self._data(rows, record, outer):
                yield self.partition(number, entry, start=record + entry.start)
                number += 1
            link = next((row for row in rows if row.extended and row.size), None)
            if link is None:
                return
            record = outer.start + link.start
            if not self._goes_on(record, outer, seen):
                return

    def _goes_on(self, record: int, outer: Entry, seen: set[int]) -> bool:
        lie = None
        if record in seen:
            lie = "runs in a circle"
        elif not outer.start <= record < outer.start + outer.size:
            lie = "leaves its extended partition"
        elif len(seen) >= _MOST_LOGICAL:
            lie = f"has more than {_MOST_LOGICAL} links"
        if lie:
            self.problems.append(f"the chain of logical partitions {lie}, at sector {record}")
        return lie is None

    def _data(self, rows: tuple[Entry, ...], record: int, outer: Entry) -> Iterator[Entry]:
        for place, row in enumerate(rows):
            if row.extended or not row.size:
                continue
            start = record + row.start
            # the third and fourth row ought to be empty; Linux takes them only where they could be true
            if place < 2 or (outer.start <= start and start + row.size <= outer.start + outer.size):
                yield row
