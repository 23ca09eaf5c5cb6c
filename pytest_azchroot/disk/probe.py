"""What blkid(8) finds on a block device."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_azchroot.disk.lvm import LogicalVolume
from pytest_azchroot.disk.partition import Partition
from pytest_azchroot.errors import DiskError, UnavailableError

_NOTHING_FOUND = 2  # blkid(8): "if the specified token was not found or no devices could be identified"

Place = int | str
"""What of a disk holds a file system: the number of a partition, 0 for the whole disk, or the path of a logical
volume, ``rootvg/rootlv``."""


@dataclass(frozen=True)
class FileSystem:
    """One partition, the whole disk, or a logical volume. Values that blkid does not report are None."""

    number: int
    """Partition number; 0 is the whole disk. Of a logical volume: the partition on which it begins."""
    node: str
    size: int
    """Bytes."""
    type: str | None = None
    """``ext4``, ``xfs``, ``btrfs``, ``vfat``, ``swap``, ``LVM2_member``, …"""
    uuid: str | None = None
    label: str | None = None
    partuuid: str | None = None
    partlabel: str | None = None
    parttype: str | None = None
    """Type of the partition: a GUID in lower case for GPT, ``0x83`` for MBR."""
    pttype: str | None = None
    """Partition table found *on* the node: ``gpt``, ``dos``."""
    volume: str | None = None
    """Of a logical volume its path, ``rootvg/rootlv``."""
    problem: str | None = None
    """Why what is there cannot be used, as the end of "it …"; then nothing else may be known."""

    @property
    def place(self) -> Place:
        """Which one it is."""
        return self.number if self.volume is None else self.volume


def probe(node: str, *, number: int, size: int) -> FileSystem:
    """Read the superblocks of a node; no cache, no udev.

    :raises UnavailableError: blkid is not installed.
    :raises DiskError: the node cannot be read, or holds contradictory signatures.
    """
    facts = _facts(node)
    return FileSystem(
        number=number,
        node=node,
        size=size,
        type=facts.get("TYPE"),
        uuid=facts.get("UUID"),
        label=facts.get("LABEL"),
        partuuid=facts.get("PART_ENTRY_UUID"),
        partlabel=facts.get("PART_ENTRY_NAME"),
        parttype=facts.get("PART_ENTRY_TYPE"),
        pttype=facts.get("PTTYPE"),
    )


def probe_file(descriptor: int, *, size: int, partition: Partition | None = None) -> FileSystem:
    """Read the superblocks of an open disk image, or of a partition in it: no device, no privilege.

    :param size: bytes of the disk.
    :raises UnavailableError: blkid is not installed.
    :raises DiskError: it cannot be read, or holds contradictory signatures.
    """
    start, length = (0, size) if partition is None else (partition.start, min(partition.end, size) - partition.start)
    facts = _facts_of_part(descriptor, start, length)
    return FileSystem(
        number=0 if partition is None else partition.number,
        node="",
        size=max(0, length),
        type=facts.get("TYPE"),
        uuid=facts.get("UUID"),
        label=facts.get("LABEL"),
        partuuid=None if partition is None else partition.uuid,
        partlabel=None if partition is None else partition.name,
        parttype=None if partition is None else partition.type,
        pttype=facts.get("PTTYPE"),
    )


def probe_volume(descriptor: int, volume: LogicalVolume, starts: Mapping[int, int]) -> FileSystem:
    """Read the superblocks of a logical volume in an open disk image. Of one in several pieces only the beginning is
    read, where superblocks are.

    :param starts: where the partitions begin that are physical volumes, in bytes.
    :raises UnavailableError: blkid is not installed.
    :raises DiskError: it cannot be read, or holds contradictory signatures.
    """
    found = FileSystem(volume.first, "", volume.size, volume=volume.path, problem=volume.problem)
    if not volume.pieces:
        return found
    first = volume.pieces[0]
    stripe = first.stripes[0]
    facts = _facts_of_part(descriptor, starts[stripe.partition] + stripe.offset, first.chunk or first.size)
    return replace(found, type=facts.get("TYPE"), uuid=facts.get("UUID"), label=facts.get("LABEL"))


def _facts_of_part(descriptor: int, start: int, length: int) -> dict[str, str]:
    if length <= 0:
        return {}
    options = ("--offset", str(start), "--size", str(length))
    return _facts(f"/proc/self/fd/{descriptor}", *options, pass_fds=(descriptor,))


def _facts(node: str, *options: str, pass_fds: Sequence[int] = ()) -> dict[str, str]:
    try:
        done = subprocess.run(
            ["blkid", "--probe", "--output", "export", *options, node],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
        )
    except (FileNotFoundError, PermissionError):  # missing, or there and not executable
        raise UnavailableError("blkid is not installed", hint="apt-get install util-linux") from None
    if done.returncode not in {0, _NOTHING_FOUND}:
        why = done.stderr.decode(errors="replace").strip() or f"blkid exited with {done.returncode}"
        raise DiskError(f"{node} cannot be probed", why=why)
    return parse_export(done.stdout.decode(errors="surrogateescape"))


def parse_export(text: str) -> dict[str, str]:
    """``blkid -o export``: a ``KEY=value`` a line; a backslash keeps the next character (blkid(8), -o export)."""
    rows = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: _unescaped(value) for key, value in rows}


def _unescaped(value: str) -> str:
    result, letters = [], iter(value)
    for letter in letters:
        result.append(next(letters, "") if letter == "\\" else letter)
    return "".join(result)
