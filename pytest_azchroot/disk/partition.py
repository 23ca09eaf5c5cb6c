"""What a partition table says, and how its bytes are read. Sizes and offsets are bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["gpt", "dos"]
"""As blkid and sfdisk call them; ``dos`` is the table in a master boot record."""


class Reader(Protocol):
    """A disk to read a table from."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer at the end of the disk."""


@dataclass(frozen=True)
class BytesReader:
    """A disk in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer at the end."""
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class FileReader:
    """The first ``size`` bytes of an open file or block device: a fixed VHD has a footer behind its disk."""

    descriptor: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer at the end.

        :raises OSError: as the system says.
        """
        return os.pread(self.descriptor, max(0, min(length, self.size - offset)), offset)


@dataclass(frozen=True)
class PartReader:
    """A part of an open file or block device, as a disk of its own."""

    descriptor: int
    start: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer at the end.

        :raises OSError: as the system says.
        """
        return os.pread(self.descriptor, max(0, min(length, self.size - offset)), self.start + offset)


@dataclass(frozen=True)
class Partition:
    """One entry of a table."""

    number: int
    """As the kernel numbers it: for GPT the place in the table; for MBR 1 to 4, logical ones from 5."""
    start: int
    size: int
    type: str
    """A GUID in lower case for GPT, ``0x83`` for MBR: blkid's words."""
    type_name: str | None = None
    """What the type is called, if it is one of the usual."""
    name: str | None = None
    """GPT only."""
    uuid: str | None = None
    """What ``PARTUUID=`` means."""
    bootable: bool = False
    """MBR: active. GPT: the attribute for legacy boot loaders."""
    attributes: tuple[str, ...] = ()
    """GPT only: the ones with names, by :data:`pytest_azchroot.disk.gpt.ATTRIBUTES`."""

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.size


@dataclass(frozen=True)
class Table:
    """A partition table as Linux would use it."""

    kind: Kind
    sector_size: int
    partitions: tuple[Partition, ...]
    id: str | None = None
    """The disk's GUID for GPT, ``0x1234abcd`` for MBR."""
    problems: tuple[str, ...] = ()
    """What is wrong with it, a sentence each without a full stop."""


def misplaced(partitions: tuple[Partition, ...], *, size: int) -> list[str]:
    """Partitions that leave the disk or meet another, a sentence each. Leave extended ones out: they do by design.

    :param size: of the disk.
    """
    problems = [f"partition {each.number} reaches beyond the end of the disk" for each in partitions if each.end > size]
    furthest: Partition | None = None
    for each in sorted(partitions, key=lambda partition: partition.start):
        if furthest is not None and each.start < furthest.end:
            problems.append(f"partitions {furthest.number} and {each.number} overlap")
        if furthest is None or each.end > furthest.end:
            furthest = each
    return problems
