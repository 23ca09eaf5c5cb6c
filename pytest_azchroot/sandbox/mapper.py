"""Logical volumes as devices of device-mapper, which the kernel removes when the last who has one open is gone.

A device of device-mapper is the kernel's own: it stays when its maker dies, unless it has been marked for *deferred
removal*, which the kernel does only for a device that is open, and which lasts. To be opened it must be there: so it is
made under a name of ours, gets its table, is opened and marked, and only then renamed and started. Whoever is killed
before the mark, a matter of four system calls, leaves a device that maps nothing yet and whose name begins with
``azchroot-``.

Source: Linux, ``drivers/md/dm-ioctl.c`` (``dev_remove``, ``table_load``, ``dev_rename``, ``do_resume``) and
``drivers/md/dm.c`` (``dm_blk_open``, ``dm_blk_close``, ``dm_lock_for_deletion``). A device cannot be opened before it
has a table, since Linux 5.15.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_azchroot.disk import loop, lvm_mapper
from pytest_azchroot.disk.lvm import LogicalVolume
from pytest_azchroot.disk.lvm_mapper import Status, Target
from pytest_azchroot.errors import DiskError
from pytest_azchroot.leaving import attached_to

from . import layout, nodes

_CONTROL = "mapper/control"
_PATIENCE = 10.0
_POLL = 0.005


@dataclass(frozen=True)
class Mapped:
    """A volume on device-mapper."""

    name: str
    """The kernel's: ``dm-3``."""
    number: int
    """``st_rdev``."""
    descriptor: int

    def release(self) -> None:
        """Let go of it, strictly: it is gone when this returns.

        :raises DiskError: somebody else has it open.
        """
        os.close(self.descriptor)
        place = Path(f"/sys/dev/block/{os.major(self.number)}:{os.minor(self.number)}")
        deadline = time.monotonic() + _PATIENCE
        while place.exists():
            if time.monotonic() > deadline:
                raise DiskError(f"/dev/{self.name} is still open somewhere", why="device-mapper does not remove it")
            time.sleep(_POLL)


def open_control() -> int | None:
    """``/dev/mapper/control``, None where there is no device-mapper. Opening the build machine's node loads the
    module."""
    try:
        return os.open(f"{layout.HOST_DEV}/{_CONTROL}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        pass  # no node, as in a container, or no module
    rows = [line.split() for line in Path("/proc/misc").read_text(encoding="ascii").splitlines()]
    for minor, name in rows:
        if name == "device-mapper":
            try:
                return nodes.open_number(os.makedev(10, int(minor)), os.O_RDWR, kind=stat.S_IFCHR)
            except PermissionError:  # a container that may not
                return None
    return None


def make(control: int, volume: LogicalVolume, bases: Mapping[int, int], *, read_only: bool) -> Mapped:
    """Make the device of a volume.

    It has LVM's name and UUID, by which tools in the image know what it is, unless a device of the build machine has
    them: a volume group of the same name, or one that the image is a copy of.

    :param bases: the device number of each partition.
    :raises DiskError: the kernel refuses it.
    """
    name = f"{lvm_mapper.PREFIX}{uuid.uuid4().hex}"
    table = lvm_mapper.table(volume, bases)
    flags = lvm_mapper.READ_ONLY if read_only else 0
    try:
        made = _ask(control, lvm_mapper.CREATE, name)
        try:
            _ask(control, lvm_mapper.LOAD, name, flags=flags, targets=table)
            descriptor = nodes.open_number(made.number, os.O_RDONLY)
        except BaseException as error:
            with attached_to(error):
                _ask(control, lvm_mapper.REMOVE, name, announced=True)
            raise
        try:
            _ask(control, lvm_mapper.REMOVE, name, flags=lvm_mapper.DEFERRED_REMOVE, announced=True)
            name = _rename(control, name, lvm_mapper.name_of(volume)) or name
            natural = lvm_mapper.uuid_of(volume)
            for identity in (natural, f"{lvm_mapper.UUID_PREFIX}{uuid.uuid4().hex}-{natural}"):
                if _rename(control, name, identity, flags=lvm_mapper.UUID):
                    break
            _ask(control, lvm_mapper.RESUME, name, announced=True)
        except BaseException as error:
            with attached_to(error):
                os.close(descriptor)
            raise
    except OSError as error:
        what = f"the logical volume {volume.path} cannot be made a device"
        refused = DiskError(what, why=f"device-mapper: {error.strerror}")
        refused.later += [each.removeprefix("then: ") for each in getattr(error, "__notes__", ())]
        raise refused from error
    return Mapped(loop.kernel_name(made.number), made.number, descriptor)


def _rename(control: int, name: str, wanted: str, *, flags: int = 0) -> str | None:
    """:return: the new name; None if another device has it."""
    try:
        _ask(control, lvm_mapper.RENAME, name, flags=flags, renamed=wanted, announced=True)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return None
    return wanted


def _ask(
    control: int,
    operation: int,
    name: str,
    *,
    flags: int = 0,
    targets: Sequence[Target] = (),
    renamed: str | None = None,
    announced: bool = False,
) -> Status:
    number, data = lvm_mapper.request(
        operation, name, flags=flags, targets=targets, renamed=renamed, announced=announced
    )
    fcntl.ioctl(control, number, data)
    return lvm_mapper.answer(bytes(data))
