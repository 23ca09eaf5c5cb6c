"""The logical volumes of the image's disk as block devices. Runs in the holder.

Where the kernel has device-mapper, they are devices of it. Where not, a volume that is in one piece on the disk is a
loop device over that part of it, which needs no device-mapper and vanishes with its last user as well; others are
refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pytest_azchroot.disk import loop, lvm, lvm_mapper
from pytest_azchroot.disk.lvm import LogicalVolume
from pytest_azchroot.disk.partition import FileReader
from pytest_azchroot.errors import DiskError

from . import mapper

_MOST = 64
_TOO_MANY = f"is one of more than {_MOST} of the disk"
_NO_MAPPER = "is in more than one piece, and this kernel has no device-mapper"


@dataclass(frozen=True)
class Base:
    """A partition, or the whole disk, that is a physical volume."""

    name: str
    """The kernel's."""
    number: int
    """``st_rdev``."""
    start: int
    """Bytes from the beginning of the disk."""
    size: int


class Device(Protocol):
    """A volume that is a block device."""

    @property
    def name(self) -> str:
        """The kernel's."""

    @property
    def number(self) -> int:
        """``st_rdev``."""

    def release(self) -> None:
        """Let go of it, strictly."""


@dataclass(frozen=True)
class Looped:
    """A part of the disk as a loop device."""

    device: loop.BlockDevice
    opener: loop.Opener

    @property
    def name(self) -> str:
        """The kernel's: ``loop4``."""
        return self.device.name

    @property
    def number(self) -> int:
        """``st_rdev``."""
        return self.device.number

    def release(self) -> None:
        """Let go of it: it is unbound when this returns.

        :raises DiskError: somebody else has it open.
        """
        loop.release(self.device, opener=self.opener)


class Volumes:
    """The volumes of a disk, as long as they are block devices."""

    def __init__(
        self, disk: Path, bases: Mapping[int, Base], *, read_only: bool, opener: loop.Opener, control: str
    ) -> None:
        """Find them, and make each that can be one a block device.

        :param disk: what leads to the disk.
        :param bases: the partitions that are physical volumes.
        :param control: where ``/dev/loop-control`` is.
        :raises DiskError: LVM of the build machine has one of them already, or the kernel refuses one.
        """
        _require_unheld(bases)
        self.devices: dict[str, Device] = {}
        """By the path of the volume."""
        self._held: list[int] = []
        self._maker = _Maker(disk, bases, read_only=read_only, opener=opener, control=control)
        with ExitStack() as undo:
            undo.callback(self.release)
            # while they are open the kernel refuses to change or remove these partitions
            for base in bases.values():
                self._held.append(opener(base.name, base.number, os.O_RDONLY))
            opened = zip(bases.items(), self._held, strict=True)
            found = lvm.survey({number: FileReader(descriptor, base.size) for (number, base), descriptor in opened})
            self.problems = found.problems
            """Of partitions, as the end of "it …"."""
            self.all = [self._made(volume) for volume in found.volumes]
            """With why those that are no devices cannot be."""
            undo.pop_all()

    def _made(self, volume: LogicalVolume) -> LogicalVolume:
        if volume.problem is not None:
            return volume
        if len(self.devices) >= _MOST:  # how many there are is the image's choice, and each is a device
            return replace(volume, pieces=(), problem=_TOO_MANY)
        device = self._maker.make(volume)
        if device is None:
            return replace(volume, pieces=(), problem=_NO_MAPPER)
        self.devices[volume.path] = device
        return volume

    def names(self) -> dict[str, str]:
        """Path of each volume that is a device → its name below /dev, by which LVM knows it wherever the image runs."""
        there = (volume for volume in self.all if volume.path in self.devices)
        return {volume.path: f"mapper/{lvm_mapper.name_of(volume)}" for volume in there}

    def nodes(self) -> dict[str, int]:
        """Names below /dev and device numbers."""
        return {name: self.devices[path].number for path, name in self.names().items()}

    @property
    def claimed(self) -> frozenset[int]:
        """Partitions that these devices themselves claim, with the whole disk. Loop devices claim nothing."""
        mapped = any(isinstance(device, mapper.Mapped) for device in self.devices.values())
        return frozenset({0, *self._maker.bases}) if mapped else frozenset()

    def foreign_holders(self) -> list[str]:
        """Devices of the build machine that are made of these partitions."""
        ours = {device.name for device in self.devices.values()}
        return [f"/dev/{name}" for base in self._maker.bases.values() for name in _holders(base) if name not in ours]

    def release(self) -> None:
        """Let go of all of them, strictly.

        :raises DiskError: somebody else has one open.
        """
        while self.devices:
            _, device = self.devices.popitem()
            device.release()
        while self._held:
            os.close(self._held.pop())
        self._maker.close()


class _Maker:
    """Makes devices, by the best means that there are."""

    def __init__(
        self, disk: Path, bases: Mapping[int, Base], *, read_only: bool, opener: loop.Opener, control: str
    ) -> None:
        self.bases = bases
        self._disk = disk
        self._read_only = read_only
        self._opener = opener
        self._control = control
        self._mapper = mapper.open_control()

    def make(self, volume: LogicalVolume) -> Device | None:
        """:return: None if device-mapper is needed and not there."""
        if self._mapper is not None:
            numbers = {partition: base.number for partition, base in self.bases.items()}
            return mapper.make(self._mapper, volume, numbers, read_only=self._read_only)
        if len(volume.pieces) > 1 or len(volume.pieces[0].stripes) > 1:
            return None
        (stripe,) = volume.pieces[0].stripes
        bound = loop.open_part(
            self._disk,
            start=self.bases[stripe.partition].start + stripe.offset,
            size=volume.size,
            opener=self._opener,
            control=self._control,
            read_only=self._read_only,
        )
        return Looped(bound, self._opener)

    def close(self) -> None:
        """Let go of device-mapper."""
        if self._mapper is not None:
            os.close(self._mapper)
            self._mapper = None


def _require_unheld(bases: Mapping[int, Base]) -> None:
    """LVM of the build machine may activate whatever is attached to it."""
    for base in bases.values():
        if holders := _holders(base):
            names = ", ".join(f"/dev/{name} ({_mapper_name(name)})" for name in holders)
            hint = (
                "deactivate it (vgchange -an), and let LVM activate only what is the build machine's: "
                "`auto_activation_volume_list` or a devices file, lvm.conf(5)"
            )
            why = f"the build machine has made devices of it: {names}"
            raise DiskError(f"the physical volume /dev/{base.name} of the image is in use", why=why, hint=hint)


def _holders(base: Base) -> list[str]:
    try:
        return sorted(os.listdir(f"/sys/class/block/{base.name}/holders"))
    except FileNotFoundError:
        return []


def _mapper_name(name: str) -> str:
    try:
        return Path(f"/sys/class/block/{name}/dm/name").read_text(encoding="ascii").strip()
    except OSError:
        return "not of device-mapper"
