"""What is in a disk image, and how a build would mount it: ``azchroot inspect``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pytest_azchroot.disk import discovery, image, lvm, qemu, space, table
from pytest_azchroot.disk.image import DiskImage
from pytest_azchroot.disk.lvm import VolumeGroup
from pytest_azchroot.disk.mountplan import Mount, MountPlan, named, said
from pytest_azchroot.disk.partition import FileReader, Partition, PartReader, Table
from pytest_azchroot.disk.probe import FileSystem, probe_file, probe_volume
from pytest_azchroot.disk.space import human
from pytest_azchroot.errors import AzchrootError, DiskError, UnavailableError
from pytest_azchroot.printable import printable
from pytest_azchroot.sandbox import Sandbox, discover


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    image: DiskImage
    table: Table | None
    filesystems: tuple[FileSystem, ...]
    """Of the disk (number 0), of each partition, and of each logical volume."""
    groups: tuple[VolumeGroup, ...]
    """Volume groups of LVM."""
    plan: MountPlan | None
    refusal: AzchrootError | None
    """Why there is no plan."""

    @property
    def failed(self) -> bool:
        """Whether a build could not mount it. Without root that is not known."""
        return self.plan is None and not isinstance(self.refusal, UnavailableError)


def inspect(path: Path, *, partition: int | None = None, lvm_root_device: str | None = None) -> Inspection:
    """Look at a disk image file. Nothing is written to it; only the plan needs root, to look into file systems.

    A format other than raw and fixed VHD is unpacked first, into a file without a name below ``$TMPDIR``, else
    ``/var/tmp``.

    :param partition: the root, if it is to be another than the one that is found.
    :param lvm_root_device: the same, if it is a logical volume.
    :raises DiskError: it is no image, or cannot be read.
    :raises UnavailableError: a tool is missing.
    """
    with image.opened(path) as fd:
        found = image.identify_open(fd, path)
        with raw(found, fd) as disk:
            tables = table.read(FileReader(disk, found.size))
            partitions = () if tables is None else tables.partitions
            probed = tuple(probe_file(disk, size=found.size, partition=each) for each in (None, *partitions))
            filesystems, groups = _with_volumes(disk, probed, partitions)
            try:
                plan = _plan(disk, filesystems, partition, lvm_root_device)
            except AzchrootError as error:
                return Inspection(found, tables, filesystems, groups, None, error)
            return Inspection(found, tables, filesystems, groups, plan, None)


@contextmanager
def raw(found: DiskImage, fd: int) -> Iterator[int]:
    """The image as a raw disk, open for reading."""
    if found.plain:
        yield fd
        return
    directory = space.scratch()
    with tempfile.TemporaryFile(dir=directory) as file:
        qemu.convert(
            image.qemu_node(found, fd),
            source=fd,
            target=file.fileno(),
            target_format="raw",
            directory=directory,
            doing=f"unpacking {found.path}",
        )
        yield file.fileno()


def _with_volumes(
    disk: int, probed: Sequence[FileSystem], partitions: Sequence[Partition]
) -> tuple[tuple[FileSystem, ...], tuple[VolumeGroup, ...]]:
    """The file systems of logical volumes too, and their groups: read from the image, no device is made."""
    starts = {0: 0, **{each.number: each.start for each in partitions}}
    members = [each for each in probed if each.type == "LVM2_member"]
    survey = lvm.survey({each.number: PartReader(disk, starts[each.number], each.size) for each in members})
    known = [replace(each, problem=survey.problems.get(each.number)) for each in probed]
    return (*known, *(probe_volume(disk, volume, starts) for volume in survey.volumes)), survey.groups


def _plan(
    disk: int, filesystems: Sequence[FileSystem], partition: int | None, lvm_root_device: str | None
) -> MountPlan:
    # what needs no look is said without root
    discovery.candidates(filesystems, partition=partition, lvm_root_device=lvm_root_device)
    if os.geteuid() != 0:
        hint = "run it as root; it mounts them read-only, in a namespace of its own"
        raise UnavailableError("how it would be mounted takes a look into its file systems", hint=hint)
    with Sandbox.start(Path(f"/proc/{os.getpid()}/fd/{disk}"), hostname="inspect", read_only=True) as sandbox:
        found = discover.plan(sandbox, partition=partition, lvm_root_device=lvm_root_device)
    if found.root.type is None:  # only one that was named can be that
        what = f"{named(found.root.place)} cannot be mounted as the root"
        raise DiskError(what, why="it holds no file system that is known", hint="choose another one")
    return found


# ---- for readers


def as_text(found: Inspection) -> str:
    """For a terminal."""
    sizes = f"{human(found.image.size)}, {human(found.image.allocated)} on disk"
    lines = [f"{found.image.path}: {found.image.format}, {sizes}"]
    if found.table is None:
        lines.append("no partition table")
    else:
        lines.append(f"partition table: {found.table.kind}, {found.table.sector_size}-byte sectors, {found.table.id}")
    lines += ["", *_aligned([_HEAD, *_rows(found)]), *_volume_lines(found)]
    lines += [f"problem: {said(each)} {each.problem}" for each in found.filesystems if each.problem and not each.volume]
    lines += [f"problem: {each}" for each in (found.table.problems if found.table else ())]
    if found.plan is not None:
        lines += ["", *_plan_lines(found.plan)]
    return "\n".join(map(printable, lines))  # names, types and mount points are the image's


def _volume_lines(found: Inspection) -> list[str]:
    """Each volume group, and what is on its volumes."""
    lines = []
    for group in found.groups:
        on = ", ".join(named(number) for number in group.partitions)
        lines += ["", f"volume group {group.name} on {on}, extents of {human(group.extent_size)}"]
        rows = [_volume_row(each) for each in found.filesystems if (each.volume or "").startswith(f"{group.name}/")]
        lines += [f"  {line}" for line in _aligned([_VOLUME_HEAD, *rows])] if rows else ["  no logical volumes"]
    return lines


def _volume_row(found: FileSystem) -> tuple[str, ...]:
    name = (found.volume or "").partition("/")[2]
    if found.problem:
        return (name, "-", f"it {found.problem}", "", "")
    return (name, human(found.size), found.type or "-", found.label or "-", found.uuid or "-")


_VOLUME_HEAD = ("volume", "size", "file system", "label", "uuid")
_HEAD = ("number", "start", "size", "type", "file system", "label", "uuid")


def _rows(found: Inspection) -> list[tuple[str, ...]]:
    whole, *rest = [each for each in found.filesystems if each.volume is None]
    parts = {each.number: each for each in (found.table.partitions if found.table else ())}
    rows: list[tuple[str, ...]] = []
    for each in [*([whole] if whole.type or not rest else []), *rest]:
        part = parts.get(each.number)
        kind = "whole disk" if part is None else part.type_name or part.type
        start = human(part.start) if part else human(0)
        label = each.label or (f"({each.partlabel})" if each.partlabel else "-")
        rows.append((str(each.number), start, human(each.size), kind, each.type or "-", label, each.uuid or "-"))
    return rows


def _plan_lines(plan: MountPlan) -> list[str]:
    title = f"root: {named(plan.root.place)}"
    lines = [f"{title}, found by {plan.by}" + (f" ({plan.system})" if plan.system else "")]
    rows = [(str(each.place), each.path, _how(each)) for each in plan.mounts]
    lines += [f"  mount {line}" for line in _aligned(rows)]
    lines += [f"  not mounted: {each.source} on {each.path}: {each.why}" for each in plan.skipped]
    lines += [f"  not mounted: {each}: not in /etc/fstab" for each in plan.unused]
    return lines


def _how(mount: Mount) -> str:
    return " ".join(filter(None, (mount.type, ",".join(mount.options))))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def as_data(found: Inspection) -> dict[str, Any]:
    """For programs."""
    refusal = found.refusal
    filesystems = [
        {name: value for name, value in asdict(each).items() if name != "node"} for each in found.filesystems
    ]
    return {
        "path": str(found.image.path),
        "format": found.image.format,
        "size": found.image.size,
        "allocated": found.image.allocated,
        "table": None if found.table is None else asdict(found.table),
        "filesystems": filesystems,
        "volume_groups": [asdict(each) for each in found.groups],
        "plan": None if found.plan is None else asdict(found.plan),
        "refusal": None if refusal is None else {"what": refusal.what, "why": refusal.why, "hint": refusal.hint},
    }
