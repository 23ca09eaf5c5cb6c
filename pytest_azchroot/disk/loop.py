"""Loop devices: a disk image file as a block device that vanishes with its last user.

AUTOCLEAR and PARTSCAN are set by the same ioctl that binds the file, so there is no moment at which a killed
process leaves the device bound. PARTSCAN is what makes the kernel drop the partitions when the device is
released; without it their nodes stay for ever (measured).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from pytest_azchroot.disk import table
from pytest_azchroot.disk.partition import FileReader
from pytest_azchroot.errors import DiskError, UnavailableError

CONTROL = "/dev/loop-control"

# include/uapi/linux/loop.h
_LOOP_CLR_FD = 0x4C01
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_READ_ONLY = 1
_LO_AUTOCLEAR = 4
_LO_PARTSCAN = 8
_CONFIG_SIZE = 304  # struct loop_config: fd, block size, struct loop_info64, 8 reserved words
_STATUS_SIZE = 232  # struct loop_info64
_OFFSET_AT = 8 + 24
_FLAGS_AT = 8 + 52

_RELEASE_POLL = 0.005


@dataclass(frozen=True)
class BlockDevice:
    """An open block device."""

    name: str
    """The kernel's name: ``loop3``, ``sdc``."""
    number: int
    """``st_rdev``."""
    descriptor: int
    """Open for reading and, unless read-only, writing. It carries the lock that keeps udev away."""
    backing: Path | None
    """The image file of a loop device; None for a disk."""
    identity: tuple[int, int] | None = None
    """Device and inode of that file: its name may be another's by now, or nobody's."""

    @property
    def path(self) -> str:
        """The node, by the kernel's name."""
        return f"/dev/{self.name}"


Opener = Callable[[str, int, int], int]
"""Open a block device: the kernel's name, its number, open(2) flags → descriptor."""


def open_control(path: str = CONTROL) -> int:
    """:raises UnavailableError: no loop devices here."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(
            f"{CONTROL} cannot be opened",
            why=error.strerror,
            hint="load the kernel module `loop` (modprobe loop); in a container, pass the device in",
        ) from error


def open_disk(
    path: Path, *, opener: Opener, control: str = CONTROL, read_only: bool = False, wanted: str | None = None
) -> BlockDevice:
    """A disk image file, bound to a free loop device, or a block device as it is, locked against udev.

    Read-only, a block device too is bound to a loop device: root may write to the node of a disk that others have
    opened only for reading, and BLKROSET would outlive us.

    :param control: where ``/dev/loop-control`` is; used only for a loop device.
    :param wanted: the loop device to take if it is free.
    :raises DiskError: the path is neither, cannot be opened, or another program has locked the device.
    :raises UnavailableError: no loop device can be had.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DiskError(f"the disk {path} cannot be opened", why=error.strerror) from error
    is_device = stat.S_ISBLK(status.st_mode)
    if is_device and not read_only:
        name = kernel_name(status.st_rdev)
        device = BlockDevice(name, status.st_rdev, opener(name, status.st_rdev, os.O_RDWR), None)
    elif is_device or stat.S_ISREG(status.st_mode):
        descriptor = open_control(control)
        try:
            device = _bind(path, opener=opener, control=descriptor, read_only=read_only, wanted=wanted)
        finally:
            os.close(descriptor)
    else:
        raise DiskError("the disk is neither a file nor a block device")
    _lock(device)
    return device


def open_part(path: Path, *, start: int, size: int, opener: Opener, control: str, read_only: bool) -> BlockDevice:
    """A part of a disk, bound to a free loop device and locked against udev.

    :param start: bytes from the beginning of the disk; with ``size`` a multiple of its sectors.
    :raises DiskError: the disk cannot be opened.
    :raises UnavailableError: no loop device can be had.
    """
    descriptor = open_control(control)
    try:
        device = _bind(path, opener=opener, control=descriptor, read_only=read_only, part=(start, size))
    finally:
        os.close(descriptor)
    _lock(device)
    return device


def kernel_name(number: int) -> str:
    """The kernel's name of the block device with this number."""
    link = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    return os.path.basename(os.path.realpath(link, strict=True)).replace("!", "/")


def _bind(
    path: Path,
    *,
    opener: Opener,
    control: int,
    read_only: bool,
    wanted: str | None = None,
    part: tuple[int, int] = (0, 0),
) -> BlockDevice:
    access = os.O_RDONLY if read_only else os.O_RDWR
    try:
        backing = os.open(path, access | os.O_CLOEXEC)
    except OSError as error:
        raise DiskError(f"the disk image {path} cannot be opened", why=error.strerror) from error
    try:
        config = bytearray(_CONFIG_SIZE)
        struct.pack_into("=II", config, 0, backing, _sector_size(backing))
        flags = _LO_AUTOCLEAR | _LO_PARTSCAN | (_LO_READ_ONLY if read_only else 0)
        struct.pack_into("=QQ", config, _OFFSET_AT, *part)  # lo_offset, lo_sizelimit
        struct.pack_into("=I", config, _FLAGS_AT, flags)
        while True:
            name, number = _numbered(wanted) if wanted else _free(control)
            wanted = None  # one try
            descriptor = opener(name, number, access)
            try:
                fcntl.ioctl(descriptor, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(descriptor)
                if error.errno == errno.EBUSY:  # somebody else took it since we asked: ask again
                    continue
                if error.errno in {errno.ENOTTY, errno.EINVAL}:
                    hint = "Linux 5.12 or newer is needed"
                    raise UnavailableError(
                        f"{path} cannot be bound to {name}", why=error.strerror, hint=hint
                    ) from error
                raise DiskError(f"{path} cannot be bound to {name}", why=error.strerror) from error
            status = os.fstat(backing)
            return BlockDevice(name, number, descriptor, path, (status.st_dev, status.st_ino))
    finally:
        os.close(backing)


def _sector_size(backing: int) -> int:
    """What the device's sectors must be for its GPT to be found, by every tool: it counts in them. 0 is the default."""
    status = os.fstat(backing)
    if not stat.S_ISREG(status.st_mode):
        return 0
    found = table.read(FileReader(backing, status.st_size))
    return found.sector_size if found is not None and found.kind == "gpt" else 0


def _free(control: int) -> tuple[str, int]:
    try:
        index = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    except OSError as error:
        raise UnavailableError("no loop device is free", why=error.strerror) from error
    return _numbered(f"loop{index}")


def _numbered(name: str) -> tuple[str, int]:
    major, minor = Path(f"/sys/block/{name}/dev").read_text(encoding="ascii").split(":")
    return name, os.makedev(int(major), int(minor))


def _lock(device: BlockDevice, *, patience: float = 10.0) -> None:
    """Take the lock that udev respects (systemd's BLOCK_DEVICE_LOCKING), else it re-reads the table under mkfs and
    takes nodes away. udev itself holds it shared for moments, hence the patience in seconds.

    flock(2) is a lock on the inode of the *node*: it meets udev only on a node of the machine's own /dev.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(device.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(device.descriptor)
                hint = f"see who has it: lslocks, fuser {device.path}"
                raise DiskError(f"{device.path} is locked by another program", hint=hint) from None
            time.sleep(0.02)


def release(device: BlockDevice, *, opener: Opener, patience: float = 10.0) -> None:
    """Let go of the device; for a loop device until it is really unbound (ENXIO).

    On a device that somebody has open LOOP_CLR_FD only marks it, so its success says nothing (loop(4)).

    :param patience: seconds.
    :raises DiskError: somebody else still has the device open.
    """
    descriptor = device.descriptor
    try:
        deadline = time.monotonic() + patience
        # once it is free, another program may have it: what is not bound to our file is not ours to unbind
        while device.identity is not None and _identity(descriptor) == device.identity:
            _unbind(descriptor)
            if time.monotonic() > deadline:
                raise DiskError(f"{device.path} is still open somewhere", why="it does not unbind")
            os.close(descriptor)
            descriptor = -1
            time.sleep(_RELEASE_POLL)
            descriptor = opener(device.name, device.number, os.O_RDONLY)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _unbind(descriptor: int) -> None:
    try:
        fcntl.ioctl(descriptor, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Device and inode of the file that an open loop device is bound to, None if it is free."""
    status = bytearray(_STATUS_SIZE)
    try:
        fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, status)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    device, inode = struct.unpack_from("=QQ", status)  # lo_device, lo_inode
    return device, inode


def bound_to(name: str) -> str | None:
    """The file that a loop device is bound to, None if it is free or there is no such device."""
    try:
        shown = Path(f"/sys/block/{name}/loop/backing_file").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return shown.removesuffix("\n").removesuffix(" (deleted)")


def over_files_on(devices: Collection[int]) -> list[str]:
    """Loop devices whose files are on these devices (``st_dev``): ``/dev/loop4 (/swapfile)``."""
    found = []
    for entry in sorted(Path("/sys/block").glob("loop*/loop")):
        name = entry.parts[3]
        try:
            descriptor = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # no node here, or released just now
            continue
        try:
            identity = _identity(descriptor)
        finally:
            os.close(descriptor)
        if identity is not None and identity[0] in devices:
            found.append(f"/dev/{name} ({bound_to(name)})")
    return found


def wait_until_free(name: str, backing: str, *, patience: float = 15.0) -> bool:
    """Wait until a loop device is no longer bound to this file: after its processes have died the kernel still has
    dirty pages to write.

    :param patience: seconds.
    :return: whether it is free.
    """
    deadline = time.monotonic() + patience
    while bound_to(name) == backing:
        if time.monotonic() > deadline:
            return False
        time.sleep(_RELEASE_POLL)
    return True
