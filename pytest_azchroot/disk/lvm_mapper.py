"""How a logical volume is told to device-mapper: its names, its table, and the requests to the kernel. Pure.

Sources: the kernel's ``include/uapi/linux/dm-ioctl.h`` and ``Documentation/admin-guide/device-mapper``; for what
grub-probe, dracut and lsblk know LVM by, lvm2's ``dm_build_dm_name`` and ``build_dm_uuid``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_azchroot.disk.lvm import LogicalVolume
from pytest_azchroot.disk.lvm_header import SECTOR

PREFIX = "azchroot-"
"""How names of ours begin that no LVM has made: what a build leaves that is killed in the moment before its device
is the kernel's to remove is found by it."""
UUID_PREFIX = "AZCHROOT-"

READ_ONLY = 1 << 0
SUSPEND = 1 << 1
UUID = 1 << 14
DEFERRED_REMOVE = 1 << 17

CREATE, REMOVE, RENAME, RESUME, STATUS, LOAD = 3, 4, 5, 6, 7, 9
_VERSION = (4, 0, 0)
_HEADER = struct.Struct("=3I3Ii3IQ128s129s7x")
_TARGET = struct.Struct("=QQiI16s")
_COMMAND = 0xC000FD00 | _HEADER.size << 16  # _IOWR(0xfd, …, struct dm_ioctl)
_ROOM = 4096

# libdevmapper.h: DM_UDEV_DISABLE_*; the upper half of what the kernel passes to udev as DM_COOKIE
_NO_UDEV = (0x01 | 0x02 | 0x04 | 0x08 | 0x20) << 16
"""The build machine's udev makes no link to a volume of an image: ``by-uuid`` could else lead there."""


@dataclass(frozen=True)
class Target:
    """One row of a table, in sectors of 512 bytes."""

    start: int
    size: int
    kind: str
    parameters: str


@dataclass(frozen=True)
class Status:
    """What the kernel answers."""

    number: int
    """``st_rdev`` of the device."""
    open_count: int
    flags: int


def name_of(volume: LogicalVolume) -> str:
    """What LVM calls the device: ``/dev/mapper/my--vg-root`` is the volume ``root`` of ``my-vg``."""
    return "-".join(part.replace("-", "--") for part in (volume.group, volume.name))


def split(name: str) -> tuple[str, str] | None:
    """Group and volume of such a name, None if it is none."""
    parts = name.replace("--", "\0").split("-")
    if len(parts) != 2 or not all(parts):
        return None
    group, volume = (part.replace("\0", "-") for part in parts)
    return group, volume


def uuid_of(volume: LogicalVolume) -> str:
    """What LVM gives the device as its UUID."""
    return f"LVM-{volume.group_id}{volume.id}"


def table(volume: LogicalVolume, devices: Mapping[int, int]) -> tuple[Target, ...]:
    """The table of a volume.

    :param devices: the device number of each partition that it is on.
    """
    rows = []
    for piece in volume.pieces:
        places = []
        for stripe in piece.stripes:
            number = devices[stripe.partition]
            places.append(f"{os.major(number)}:{os.minor(number)} {stripe.offset // SECTOR}")
        striped = len(places) > 1
        words = [f"{len(places)} {piece.chunk // SECTOR}", *places] if striped else places
        kind = "striped" if striped else "linear"
        rows.append(Target(piece.start // SECTOR, piece.size // SECTOR, kind, " ".join(words)))
    return tuple(rows)


def request(
    operation: int,
    name: str,
    *,
    flags: int = 0,
    targets: Sequence[Target] = (),
    renamed: str | None = None,
    announced: bool = False,
) -> tuple[int, bytearray]:
    """The number of an ioctl on ``/dev/mapper/control`` and what goes with it.

    :param renamed: the new name, or with the flag ``UUID`` the UUID.
    :param announced: whether the kernel tells udev of it; then udev is told to leave the device alone.
    """
    data = b"".join(map(_packed, targets))
    if renamed is not None:
        data = renamed.encode("ascii") + b"\0"
    size = _HEADER.size + max(len(data), _ROOM)
    event = _NO_UDEV if announced else 0
    values = (*_VERSION, size, _HEADER.size, len(targets), 0, flags, event, 0, 0, name.encode("ascii"), b"")
    return _COMMAND | operation, bytearray(_HEADER.pack(*values) + data.ljust(max(len(data), _ROOM), b"\0"))


def answer(data: bytes) -> Status:
    """What is in an answer."""
    *_, open_count, flags, _, _, device, _, _ = _HEADER.unpack_from(data)
    # huge_encode_dev, include/linux/kdev_t.h
    return Status(os.makedev(device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFFFF00), open_count, flags)


def _packed(target: Target) -> bytes:
    text = target.parameters.encode("ascii") + b"\0"
    length = (len(text) + 7) // 8 * 8  # the next one begins at a multiple of 8
    row = _TARGET.pack(target.start, target.size, 0, _TARGET.size + length, target.kind.encode("ascii"))
    return row + text.ljust(length, b"\0")
