"""Logical volumes of a disk, from what LVM2 writes on it. Pure.

Read here and not by LVM's tools, because these want the volumes to be active on the build machine: then they are the
kernel's until somebody deactivates them, whoever was killed; a volume group of the build machine may have the same
name; and what the build machine's own configuration hides from LVM, a devices file above all, is not found.

The description of a volume group names its physical volumes, and for each logical volume *segments*, which say on which
extents of which of them it is (lvm2: ``lib/format_text/import_vsn1.c``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_azchroot.disk import lvm_header, lvm_text
from pytest_azchroot.disk.lvm_header import SECTOR, PhysicalVolume
from pytest_azchroot.disk.lvm_text import Section, damaged
from pytest_azchroot.disk.partition import Reader
from pytest_azchroot.errors import DiskError

KINDS = {
    "thin": "a thin volume",
    "thin-pool": "a pool of thin volumes",
    "snapshot": "a snapshot",
    "mirror": "a mirror",
    "cache": "cached",
    "cache-pool": "a pool of a cache",
    "writecache": "cached (writecache)",
    "vdo": "a volume of VDO",
    "vdo-pool": "a pool of VDO",
    "integrity": "a volume with integrity",
}
"""Types of segments (lvmraid(7), lvmthin(7), …) for a reader; those of RAID are many."""


@dataclass(frozen=True)
class Stripe:
    """Bytes in a row on one physical volume."""

    partition: int
    """Which partition the physical volume is; 0 is the whole disk."""
    offset: int
    """From its start."""


@dataclass(frozen=True)
class Piece:
    """A part of a logical volume, on one stripe in a row or on several by turns."""

    start: int
    """In the volume."""
    size: int
    stripes: tuple[Stripe, ...]
    chunk: int = 0
    """How many bytes are on one stripe before it is the next one's turn; 0 for a single stripe."""


@dataclass(frozen=True)
class LogicalVolume:
    """A volume that somebody may want to mount."""

    group: str
    name: str
    id: str
    """32 characters, without the hyphens."""
    group_id: str
    partitions: tuple[int, ...]
    """Those that its group is on."""
    pieces: tuple[Piece, ...]
    problem: str | None = None
    """Why it cannot be used here, as the end of "it …"; then it has no pieces."""

    @property
    def path(self) -> str:
        """``rootvg/rootlv``, as LVM's tools take it."""
        return f"{self.group}/{self.name}"

    @property
    def first(self) -> int:
        """The partition on which it begins, else the first of its group."""
        begins = (stripe.partition for piece in self.pieces for stripe in piece.stripes)
        return next(begins, next(iter(self.partitions), 0))

    @property
    def size(self) -> int:
        """Bytes; 0 if they are not known."""
        return sum(piece.size for piece in self.pieces)


@dataclass(frozen=True)
class VolumeGroup:
    """What is one namespace of logical volumes."""

    name: str
    id: str
    extent_size: int
    """Bytes."""
    partitions: tuple[int, ...]
    """Its physical volumes on this disk."""
    volumes: tuple[LogicalVolume, ...]
    """The visible ones, in the order in which LVM has them."""


@dataclass(frozen=True)
class Survey:
    """What LVM has on a disk."""

    groups: tuple[VolumeGroup, ...]
    problems: Mapping[int, str]
    """Why nothing is known of what is on a partition, as the end of "it …"."""

    @property
    def volumes(self) -> tuple[LogicalVolume, ...]:
        """Those of all groups."""
        return tuple(volume for group in self.groups for volume in group.volumes)


def survey(readers: Mapping[int, Reader]) -> Survey:
    """What is on the partitions that blkid calls ``LVM2_member``. Damage is no error yet: nobody may need them."""
    found: dict[int, PhysicalVolume] = {}
    problems: dict[int, str] = {}
    for partition, reader in readers.items():
        try:
            found[partition] = lvm_header.read(reader)
        except DiskError as error:
            problems[partition] = _unread(error)
    try:
        return Survey(groups(found), problems)
    except DiskError as error:
        return Survey((), {**problems, **dict.fromkeys(found, _unread(error))})


def _unread(error: DiskError) -> str:
    return f"is a physical volume of LVM that cannot be read: {error.why}"


def groups(found: Mapping[int, PhysicalVolume]) -> tuple[VolumeGroup, ...]:
    """The volume groups of a disk.

    :param found: its physical volumes by partition.
    :raises DiskError: a description makes no sense, or two groups have one name.
    """
    by_id: dict[str, int] = {}
    for partition, volume in found.items():
        if volume.id in by_id:
            why = f"partitions {by_id[volume.id]} and {partition} are the same physical volume"
            raise DiskError("the logical volumes of the disk are not clear", why=why)
        by_id[volume.id] = partition
    newest: dict[str, tuple[int, str, Section]] = {}
    for volume in found.values():
        if volume.text is not None:
            name, text = lvm_text.group(volume.text)
            row = (lvm_text.number(text, "seqno"), name, text)
            known = newest.setdefault(lvm_text.identity(lvm_text.word(text, "id")), row)
            if row[0] > known[0]:
                newest[lvm_text.identity(lvm_text.word(text, "id"))] = row
    names = [name for _, name, _ in newest.values()]
    for name in names:
        if names.count(name) > 1:
            why = f"it has two volume groups of the name {name}"
            raise DiskError("the logical volumes of the disk are not clear", why=why)
    sizes = {partition: volume.size for partition, volume in found.items()}
    return _apart([_Group(name, text, by_id, sizes).read() for _, name, text in newest.values()])


def _apart(groups: Sequence[VolumeGroup]) -> tuple[VolumeGroup, ...]:
    """What of a disk two volumes have, neither may be mounted with: each would change under the other's file system."""
    rows = sorted(
        (stripe.partition, stripe.offset, stripe.offset + piece.size // len(piece.stripes), volume.path)
        for group in groups
        for volume in group.volumes
        for piece in volume.pieces
        for stripe in piece.stripes
    )
    shared: dict[str, str] = {}
    furthest = (0, 0, "")
    for partition, start, end, path in rows:
        if partition == furthest[0] and start < furthest[1]:
            shared[path], shared[furthest[2]] = furthest[2], path
        furthest = max(furthest, (partition, end, path))

    def checked(volume: LogicalVolume) -> LogicalVolume:
        other = shared.get(volume.path)
        return volume if other is None else replace(volume, pieces=(), problem=f"has extents that {other} has too")

    return tuple(replace(group, volumes=tuple(map(checked, group.volumes))) for group in groups)


class _Group:
    """Reads the description of one volume group."""

    def __init__(self, name: str, text: Section, by_id: Mapping[str, int], sizes: Mapping[int, int]) -> None:
        self._name = name
        self._text = text
        self._extent = lvm_text.number(text, "extent_size", least=1) * SECTOR
        rows = lvm_text.sections(text, "physical_volumes")
        self._physical = {each: by_id.get(lvm_text.identity(lvm_text.word(row, "id"))) for each, row in rows.items()}
        self._starts = {each: lvm_text.number(row, "pe_start") * SECTOR for each, row in rows.items()}
        self._counts = {each: lvm_text.number(row, "pe_count") for each, row in rows.items()}
        self._id = lvm_text.identity(lvm_text.word(text, "id"))
        self._partitions = tuple(sorted(number for number in self._physical.values() if number is not None))
        self._rows = rows
        self._sizes = sizes

    def read(self) -> VolumeGroup:
        volumes = lvm_text.sections(self._text, "logical_volumes")
        problem = self._problem()
        parts = dict(_parts(volumes))
        return VolumeGroup(
            name=self._name,
            id=self._id,
            extent_size=self._extent,
            partitions=self._partitions,
            volumes=tuple(
                self._volume(name, row, problem, parts.get(name))
                for name, row in volumes.items()
                if "VISIBLE" in lvm_text.words(row, "status")
            ),
        )

    def _problem(self) -> str | None:
        if missing := [self._described(each) for each, number in self._physical.items() if number is None]:
            return f"is of the volume group {self._name}, which is not all on this disk: {'; '.join(missing)}"
        if "EXPORTED" in lvm_text.words(self._text, "status"):
            return f"is of the volume group {self._name}, which is exported (vgimport(8))"
        return None

    def _described(self, physical: str) -> str:
        row = self._rows[physical]
        device = row.get("device")
        was = f", which was {device}" if isinstance(device, str) and device.isprintable() else ""
        return f"{physical} is missing (UUID {lvm_text.word(row, 'id')}{was})"

    def _volume(self, name: str, row: Section, problem: str | None, used: str | None) -> LogicalVolume:
        lvm_text.valid_name(name)
        pieces: list[Piece] = []
        start = 0
        for segment in _segments(row):
            problem = problem or self._why_not(row, segment)
            if problem is not None:
                break
            pieces.append(self._piece(name, segment, start))
            start = pieces[-1].start + pieces[-1].size
        problem = problem or used
        known = tuple(pieces) if problem is None else ()
        return LogicalVolume(
            group=self._name,
            name=name,
            id=lvm_text.identity(lvm_text.word(row, "id")),
            group_id=self._id,
            partitions=self._partitions,
            pieces=_joined(known),
            problem=problem,
        )

    def _why_not(self, row: Section, segment: Section) -> str | None:
        kind = lvm_text.word(segment, "type").split("+")[0]  # behind it are flags of the segment
        if kind not in {"striped", "linear"}:
            known = KINDS.get(kind) or ("RAID" if kind.startswith("raid") else "of a type that is not known")
            return f"is {known} of LVM (type {kind}), and only linear and striped ones can be mounted"
        if status := {"PVMOVE", "LOCKED", "CONVERTING"} & {*lvm_text.words(row, "status")}:
            return f"is being moved or converted (status {', '.join(sorted(status))})"
        if "WRITE" not in lvm_text.words(row, "status"):
            return "is set to be read only (lvchange(8))"
        return None

    def _piece(self, name: str, segment: Section, start: int) -> Piece:
        first, count = lvm_text.number(segment, "start_extent"), lvm_text.number(segment, "extent_count", least=1)
        width = lvm_text.number(segment, "stripe_count", least=1)
        places = segment.get("stripes")
        if first * self._extent != start or not isinstance(places, list) or len(places) != 2 * width or count % width:
            raise damaged(f"the segments of {self._name}/{name} do not fit together")
        stripes = [
            self._stripe(name, where, extent, count // width)
            for where, extent in zip(places[::2], places[1::2], strict=True)
        ]
        chunk = lvm_text.number(segment, "stripe_size", least=1) * SECTOR if width > 1 else 0
        if chunk and (chunk & (chunk - 1) or (count // width) * self._extent % chunk):
            raise damaged(f"the stripes of {self._name}/{name} are of an impossible size")
        return Piece(start, count * self._extent, tuple(stripes), chunk)

    def _stripe(self, name: str, physical: int | str, first: int | str, count: int) -> Stripe:
        partition = self._physical.get(str(physical))
        if partition is None or not isinstance(first, int) or first < 0:
            raise damaged(f"{self._name}/{name} is on {physical!r}, which is no physical volume")
        offset = self._starts[str(physical)] + first * self._extent
        end = offset + count * self._extent
        if first + count > self._counts[str(physical)] or end > self._sizes[partition]:
            raise damaged(f"{self._name}/{name} leaves its partition {partition}")
        return Stripe(partition, offset)


def _joined(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Neighbours that go on where the one before ends, as after an extension, are one."""
    found: list[Piece] = []
    for piece in pieces:
        before = found[-1] if found else None
        if before is not None and len(before.stripes) == len(piece.stripes) == 1:
            (one,), (two,) = before.stripes, piece.stripes
            if one.partition == two.partition and one.offset + before.size == two.offset:
                found[-1] = Piece(before.start, before.size + piece.size, before.stripes)
                continue
        found.append(piece)
    return tuple(found)


def _parts(volumes: Mapping[str, Section]) -> Iterator[tuple[str, str]]:
    """Volumes that others are made of, and why they cannot be used for themselves. A snapshot's origin is visible and
    looks like any other volume, but what is written to it has to go through the snapshot."""
    for name, row in volumes.items():
        for segment in _segments(row):
            kind = lvm_text.word(segment, "type")
            if kind.split("+")[0] in {"striped", "linear"}:
                continue
            for value in segment.values():
                for word in value if isinstance(value, list) else [value]:
                    if isinstance(word, str) and word in volumes and word != name:
                        known = KINDS.get(kind, kind)
                        yield word, f"is in use by {known} of LVM ({name}, type {kind})"


def _segments(row: Section) -> list[Section]:
    count = lvm_text.number(row, "segment_count", least=1)
    if count > len(row):
        raise damaged("a logical volume has fewer segments than it says")
    return [lvm_text.section(row, f"segment{number}") for number in range(1, count + 1)]
