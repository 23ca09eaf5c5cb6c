"""What the kernel says of block devices: sizes, which one is which, and where on a virtual machine of Azure it is
attached. Reads sysfs and opens no device.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

DEVICES_VARIABLE = "AZCHROOT_DEVICES"
"""A directory in place of ``/dev``: there an emulator of Azure shows its devices."""

_SECTOR = 512
"""Bytes; sysfs counts so whatever the disk's own sectors are (Linux, Documentation/ABI/stable/sysfs-block)."""
_DATA = ("{f8b3781b-", "{f8b3781c-", "{f8b3781d-")
"""Hyper-V's SCSI controllers with data disks, by the beginning of their vmbus device ids. Azure's machines have the
first one; the operating system's disk and the temporary one are at ``{f8b3781a-`` (generation 2) or ``{00000000-``
(generation 1). Azure/WALinuxAgent, config/66-azure-storage.rules; Azure/azure-vm-utils, udev/80-azure-disk.rules."""
_REMOTE = "MSFT NVMe Accelerator v1.0"
"""The NVMe controller of managed disks. What others have (``Microsoft NVMe Direct Disk``, also ``v2``) is the machine's
own. Azure/azure-vm-utils, doc/disk-identification.md."""
_BEFORE = 2
"""A data disk's namespace id is its LUN and two: there is no namespace 0, and 1 is the operating system's disk. Not so
its name, ``nvme0n3``, which says in what order the kernel met it. Azure/azure-vm-utils#11 and #92."""
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR)


def number_of(path: Path) -> int | None:
    """``st_rdev`` of a block device's node; None where there is none, or something else.

    :raises OSError: it cannot be looked at.
    """
    try:
        state = path.stat()
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    return state.st_rdev if stat.S_ISBLK(state.st_mode) else None


@dataclass(frozen=True)
class Roots:
    """Where devices are looked for."""

    dev: Path = Path("/dev")
    sys: Path = Path("/sys")
    links_only: bool = False
    """Whether only links in :attr:`dev` tell where a disk is attached: where an emulator plays the machine, a real
    machine's own disks are none of its LUNs."""
    number: Callable[[Path], int | None] = number_of
    """How a node is looked at."""

    @classmethod
    def default(cls) -> Roots:
        """``/dev`` and ``/sys``, or the directory that AZCHROOT_DEVICES names."""
        directory = os.environ.get(DEVICES_VARIABLE)
        return cls(dev=Path(directory).absolute(), links_only=True) if directory else cls()


@dataclass(frozen=True)
class Block:
    """A block device, as it was when it was looked at."""

    name: str
    """The kernel's: ``sdc``, ``nvme0n2``."""
    number: int
    """``st_rdev`` of its node."""
    size: int
    """Bytes."""
    identity: str
    """No other device has it until the machine starts again, even if it gets name and number of one that has left."""
    partition: bool
    place: str | None
    """Where it is attached, for people; None where sysfs does not tell."""
    lun: int | None
    """Of Azure's data disks; None if it is none of them, or sysfs does not tell."""


def blocks(roots: Roots, *, without: str | None = None) -> Iterator[Block]:
    """All devices that have a size: an idle loop device is none yet.

    :param without: part of the path of those that do not matter.
    :raises OSError: sysfs cannot be read.
    """
    for entry in sorted((roots.sys / "class/block").iterdir()):
        if without is not None and without in _link(entry):
            continue
        found = read(entry)
        if found is not None and found.size:
            yield found


def hardware(roots: Roots) -> Iterator[Block]:
    """The same without what the kernel makes up itself, such as loop devices, of which there may be many.

    :raises OSError: sysfs cannot be read.
    """
    return blocks(roots, without="/virtual/block/")


def target(link: Path) -> Path | None:
    """What a link leads to in the end; None if it leads nowhere, or is not there.

    :raises OSError: it cannot be followed.
    """
    try:
        return Path(os.path.realpath(link, strict=True))
    except OSError as error:
        if error.errno in (*_GONE, errno.ELOOP):
            return None
        raise


def numbered(number: int, roots: Roots) -> Block | None:
    """The device with a number; None if there is none.

    :raises OSError: sysfs cannot be read.
    """
    return read(roots.sys / f"dev/block/{os.major(number)}:{os.minor(number)}")


def read(entry: Path) -> Block | None:
    """A device by its directory in sysfs, or a link to it; None if it has no node, or leaves just now.

    :raises OSError: the directory cannot be read.
    """
    directory = target(entry)
    if directory is None:
        return None
    number, size = _text(directory / "dev"), _text(directory / "size")
    if number is None or size is None:  # one path of many to an NVMe disk has no node
        return None
    major, _, minor = number.partition(":")
    sequence = _text(directory / "diskseq") or _inode(directory)
    place, lun = _place(directory)
    return Block(
        name=directory.name,
        number=os.makedev(int(major), int(minor)),
        size=int(size) * _SECTOR,
        identity=f"{directory.name} {number} {sequence}",
        partition=(directory / "partition").exists(),
        place=place,
        lun=lun,
    )


def _place(directory: Path) -> tuple[str | None, int | None]:
    """Where a whole disk is attached, and the LUN if it is one of Azure's data disks."""
    namespace = _text(directory / "nsid")
    if namespace is not None:
        model = _text(directory / "device/model") or "unknown"
        lun = int(namespace) - _BEFORE
        is_data = model == _REMOTE and lun >= 0
        return f"namespace {namespace} of the NVMe controller {model!r}", lun if is_data else None
    address = target(directory / "device")
    found = None if address is None else re.fullmatch(r"\d+:\d+:\d+:(\d+)", address.name)
    if address is None or found is None:
        return None, None
    controller = next(filter(None, (_text(parent / "device_id") for parent in address.parents)), "unknown")
    lun = int(found[1])
    return f"LUN {lun} of the SCSI controller {controller}", lun if controller.lower().startswith(_DATA) else None


def _inode(directory: Path) -> str:
    """What tells disks apart before Linux 5.15, which counts them: kernfs gives no inode again soon."""
    try:
        return f"inode {directory.stat().st_ino}"
    except OSError as error:
        if error.errno in _GONE:
            return "gone"
        raise


def _link(path: Path) -> str:
    """What a link says; empty if it has left."""
    try:
        return os.readlink(path)
    except OSError as error:
        if error.errno in _GONE:
            return ""
        raise


def _text(path: Path) -> str | None:
    """An attribute; None if there is none, or its device leaves just now."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
