"""Attached disks as block devices, and the links to them that udev makes on a virtual machine of Azure.

A disk is a loop device, held open here and marked AUTOCLEAR: when the emulator is killed the kernel frees it with its
last user, and the next emulator attaches it again. Names and links lead to it as on a SCSI machine
(``disk/azure/scsi1/lun0`` → ``../../../azsdc``; Azure/WALinuxAgent, 66-azure-storage.rules) or on an NVMe one
(``disk/azure/data/by-lun/0`` → ``../../../../aznvme0n2``; Azure/azure-vm-utils, 80-azure-disk.rules).

When a partition table is written, partitions and links follow, as udev and the kernel see to it there; and as udev,
nobody here looks while somebody has locked the device (systemd, "Locking Block Device Access").
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_azchroot.disk import blkpg, loop, table
from pytest_azchroot.disk.loop import BlockDevice
from pytest_azchroot.disk.partition import FileReader
from pytest_azchroot.errors import AzchrootError, DiskError

from .settings import Family

log = logging.getLogger(__name__)

_LOOP_SET_CAPACITY = 0x4C07  # include/uapi/linux/loop.h: take the file's new length
_RELEASE = 0.2
"""Seconds for the kernel to let go of a device that nobody else uses."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WATCH = 0.05
"""Seconds between two looks at the partition tables."""
_TABLE = 34 * 512
"""Bytes of a disk that hold an MBR, or a GPT with its 128 entries."""
_BEFORE = 2
"""Azure's machines have two disks before the data disks: sda and sdb, or the namespace 1 (they count from 1)."""


class DeviceBusyError(AzchrootError):
    """Somebody on this machine has the device open."""


@dataclass
class _Attached:
    device: BlockDevice
    links: dict[Path, str]
    """In the order in which they are made."""
    seen: object = None
    """What partition table and partitions were when the links were made."""


class Devices:
    """The data disks of the machine that this machine plays, by LUN."""

    def __init__(self, directory: Path, *, family: Family, prefix: str) -> None:
        self._directory = directory
        self._family = family
        self._prefix = prefix
        self._lock = threading.Lock()
        self._attached: dict[int, _Attached] = {}
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    def node(self, lun: int) -> str | None:
        """The kernel's node of a disk, None where there is none."""
        with self._lock:
            found = self._attached.get(lun)
            return None if found is None else found.device.path

    def link(self, lun: int) -> Path:
        """Where a client looks for a LUN."""
        below = f"disk/azure/scsi1/lun{lun}" if self._family == "scsi" else f"disk/azure/data/by-lun/{lun}"
        return self._directory / below

    def attach(self, lun: int, file: Path) -> None:
        """Make a file a device. One that is there already for this LUN stays.

        :raises AzchrootError: no loop device can be had, or a link would replace one that is not ours.
        """
        with self._lock:
            if lun in self._attached:
                return
            device = _left_over(file)
            if device is None:
                device = loop.open_disk(file, opener=_open)
                # The lock is ours only while the device is made: who attached the disk will want it.
                fcntl.flock(device.descriptor, fcntl.LOCK_UN)
            try:
                _tell_partitions(device)
                links = self._links(lun, device)
                _make_links(links, prefix=self._prefix)
            except BaseException:
                _release(device)
                raise
            self._attached[lun] = _Attached(device, links, _look(device))
            self._start_watching()

    def detach(self, lun: int) -> None:
        """Take the device away; one that is not there is gone already.

        :raises DeviceBusyError: it is in use; it stays.
        """
        with self._lock:
            found = self._attached.get(lun)
            if found is None:
                return
            if _is_claimed(found.device):
                raise DeviceBusyError(f"{found.device.path} is in use", why="it is mounted, or part of another device")
            still = _release(found.device)
            if still is not None:
                found.device = still
                raise DeviceBusyError(f"{still.path} is in use", why="a process has it open")
            del self._attached[lun]
            _remove_links(found.links)

    def abandon(self, lun: int) -> None:
        """Take names and links away, and leave the device to whoever has it open: the kernel frees it with them."""
        with self._lock:
            found = self._attached.pop(lun, None)
            if found is not None:
                _remove_links(found.links)
                os.close(found.device.descriptor)

    def resize(self, lun: int) -> None:
        """Tell the kernel that the file has grown."""
        with self._lock:
            found = self._attached.get(lun)
            if found is not None:
                fcntl.ioctl(found.device.descriptor, _LOOP_SET_CAPACITY)

    def flush(self, lun: int) -> None:
        """Let the file have what was written to the device. What a mounted file system still holds is not that."""
        with self._lock:  # all the time: what is being unbound answers EIO, and has been flushed before
            found = self._attached.get(lun)
            if found is not None:
                os.fsync(found.device.descriptor)

    def close(self) -> None:
        """Take all devices away; what is in use goes with its last user."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        for lun in list(self._attached):
            try:
                self.detach(lun)
            except DeviceBusyError as error:
                log.warning("LUN %d: %s", lun, error)
                self.abandon(lun)

    def _start_watching(self) -> None:
        if self._watcher is None:
            self._closing.clear()
            self._watcher = threading.Thread(target=self._watch, name="partitions", daemon=True)
            self._watcher.start()

    def _watch(self) -> None:
        while not self._closing.wait(_WATCH):
            with self._lock:
                for lun, found in self._attached.items():
                    try:
                        self._follow(lun, found)
                    except (OSError, AzchrootError) as error:
                        log.warning("the partitions of LUN %d: %s", lun, error)

    def _follow(self, lun: int, found: _Attached) -> None:
        """Make partitions and links what the table says, if that has changed."""
        if _look(found.device) == found.seen:
            return
        try:
            fcntl.flock(found.device.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody writes it: look again later
        try:
            _tell_partitions(found.device)
            found.seen = _look(found.device)
        finally:
            fcntl.flock(found.device.descriptor, fcntl.LOCK_UN)
        links = self._links(lun, found.device)
        _remove_links({path: target for path, target in found.links.items() if path not in links})
        found.links = links
        _make_links(links, prefix=self._prefix)

    def _links(self, lun: int, device: BlockDevice) -> dict[Path, str]:
        """Path → target, all below :attr:`_directory`; the one that clients wait for comes last."""
        name = self._prefix + device_name(self._family, lun)
        between = "p" if name[-1].isdigit() else ""
        link = self.link(lun)
        up = "/".join([".."] * len(link.parent.relative_to(self._directory).parts))
        found: dict[Path, str] = {}
        numbers = sorted(blkpg.known_to_kernel(Path(f"/sys/class/block/{device.name}")))
        for number in numbers:
            part = f"{name}{between}{number}"
            found[self._directory / part] = self._target(f"{device.name}p{number}")
            found[link.with_name(f"{link.name}-part{number}")] = f"{up}/{part}"
        return {self._directory / name: self._target(device.name), **found, link: f"{up}/{name}"}

    def _target(self, node: str) -> str:
        return node if self._directory == Path("/dev") else f"/dev/{node}"


def device_name(family: Family, lun: int) -> str:
    """The kernel's name of a data disk on a machine where disks were found in the order of their LUNs."""
    number = lun + _BEFORE
    if family == "nvme":
        return f"nvme0n{number}"
    first, last = divmod(number, len(_LETTERS))
    return "sd" + (_LETTERS[first - 1] if first else "") + _LETTERS[last]


def _open(name: str, number: int, flags: int) -> int:
    return os.open(f"/dev/{name}", flags | os.O_CLOEXEC)


def _left_over(file: Path) -> BlockDevice | None:
    """The device that a killed emulator had made of this file, if somebody has kept it open, a mount for instance. A
    second one beside it would be a second disk with the same blocks."""
    for entry in sorted(Path("/sys/block").glob("loop*/loop")):
        name = entry.parts[3]
        if loop.bound_to(name) != str(file.resolve()):
            continue
        descriptor = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pread(descriptor, 1, 0)  # EIO where it is being unbound just now
        except OSError:
            os.close(descriptor)
            continue
        state = file.stat()
        number = os.fstat(descriptor).st_rdev
        return BlockDevice(name, number, descriptor, file, (state.st_dev, state.st_ino))
    return None


def _look(device: BlockDevice) -> object:
    partitions = blkpg.known_to_kernel(Path(f"/sys/class/block/{device.name}"))
    return os.pread(device.descriptor, _TABLE, 0), partitions


def _tell_partitions(device: BlockDevice) -> None:
    """A disk whose table cannot be read is a disk without partitions, as it is on a real machine."""
    size = os.lseek(device.descriptor, 0, os.SEEK_END)
    has_table = table.read(FileReader(device.descriptor, size)) is not None
    sysfs = Path(f"/sys/class/block/{device.name}")
    try:
        blkpg.update(device.path, device.descriptor, known=blkpg.known_to_kernel(sysfs), has_table=has_table)
    except DiskError as error:
        log.warning("%s has no partitions: %s", device.path, error)


def _is_claimed(device: BlockDevice) -> bool:
    """Whether the disk or a partition of it is mounted, or part of another device: open(2), O_EXCL."""
    try:
        os.close(os.open(device.path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise
    return False


def _release(device: BlockDevice) -> BlockDevice | None:
    """Unbind the device; the device, open again, where somebody else has it open."""
    # Whoever wrote to it and closed it was not its last user, so nothing is written back yet; and a device that is
    # being unbound writes nothing any more.
    os.fsync(device.descriptor)
    try:
        loop.release(device, opener=_open, patience=_RELEASE)
    except DiskError:
        try:
            descriptor = _open(device.name, device.number, os.O_RDWR)
        except OSError as error:
            if error.errno != errno.ENXIO:  # loop(4): its last user has let it go just now
                raise
            return None
        if device.backing is not None and loop.bound_to(device.name) == str(device.backing.resolve()):
            return BlockDevice(device.name, device.number, descriptor, device.backing, device.identity)
        os.close(descriptor)
    return None


def _make_links(links: Mapping[Path, str], *, prefix: str) -> None:
    made: dict[Path, str] = {}
    try:
        for path, target in links.items():
            _refuse_foreign(path, prefix=prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.new")
            beside.unlink(missing_ok=True)
            beside.symlink_to(target)
            beside.rename(path)  # what a killed emulator left is replaced
            made[path] = target
    except BaseException:
        _remove_links(made)
        raise


def _refuse_foreign(path: Path, *, prefix: str) -> None:
    """A link of the machine's own udev, or a real disk, is not ours to replace."""
    try:
        target = os.readlink(path)
    except FileNotFoundError:
        return
    except OSError:
        target = ""
    if not (os.path.basename(target).startswith(prefix) or os.path.basename(target).startswith("loop")):
        raise AzchrootError(f"{path} is there already", hint="name another directory or prefix for devices")


def _remove_links(links: Mapping[Path, str]) -> None:
    for path, target in reversed(list(links.items())):
        with suppress(OSError):
            if os.readlink(path) == target:
                path.unlink()
