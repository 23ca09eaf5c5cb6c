"""The partition table of a disk, whichever kind it has. Pure: it reads through a :class:`Reader`."""

from __future__ import annotations

from dataclasses import replace

from pytest_azchroot.disk import gpt, mbr
from pytest_azchroot.disk.partition import Reader, Table

_LEAST = 512
_HYBRID = "the MBR is a hybrid: it names partitions itself, which Linux ignores"
_IGNORED = "there is a GPT, which Linux ignores: no MBR says that it is there"


def read(reader: Reader, *, sector_size: int | None = None) -> Table | None:
    """What Linux would use: a GPT where the MBR says that there is one, else the MBR itself.

    :param sector_size: bytes, where the disk itself says so (a block device); else found by trying.
    :return: None for a disk without a table.
    """
    if reader.size < _LEAST:
        return None
    rows = mbr.entries(reader.read(0, _LEAST)) or ()
    protective = any(row.type == gpt.PROTECTIVE for row in rows)
    found = gpt.parse(reader, sector_size=sector_size)
    if protective:
        others = [row for row in rows if row.type not in {0, gpt.PROTECTIVE}]
        if found is None:
            size = sector_size or gpt.SECTOR_SIZES[0]
            return Table("gpt", size, (), problems=("the MBR says that there is a GPT, but there is none",))
        return _noting(found, _HYBRID) if others else found
    plain = mbr.parse(reader, sector_size=sector_size or gpt.SECTOR_SIZES[0])
    if plain is not None and any(row.size for row in rows):
        return plain if found is None else _noting(plain, _IGNORED)
    if found is not None and found.partitions:
        return _noting(replace(found, partitions=()), _IGNORED)
    return plain


def _noting(table: Table, problem: str) -> Table:
    return replace(table, problems=(*table.problems, problem))
