"""Which kind of disk image a file is, by its content and not by its name.

A disk image may come from a stranger. One that refers to other files (a backing file, an external data file, a
parent) would make qemu-img read any file of the build machine into the disk, so it is refused here, before qemu-img
sees it.
"""

from __future__ import annotations

import os
import shlex
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_azchroot.disk import qemu, space, vhd
from pytest_azchroot.errors import DiskError

Format = Literal["raw", "fixed VHD", "dynamic VHD", "VHDX", "qcow2"]

DRIVERS: dict[Format, str] = {"dynamic VHD": "vpc", "VHDX": "vhdx", "qcow2": "qcow2"}
"""The formats that qemu-img reads for us, and its names for them."""

HEAD = 512
"""Bytes from the beginning of a file that tell its kind."""

_QCOW = b"QFI\xfb"
_VHDX = b"vhdxfile"
_FOREIGN: dict[bytes, tuple[str, str]] = {
    b"\x1f\x8b": ("compressed by gzip", "gunzip it"),
    b"\xfd7zXZ\x00": ("compressed by xz", "unxz it"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unzstd it"),
    b"BZh": ("compressed by bzip2", "bunzip2 it"),
    b"PK\x03\x04": ("a zip archive", "unzip it"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it"),
    b"KDMV": ("a VMDK", "qemu-img convert -O raw"),
    b"# Disk DescriptorFile": ("a VMDK", "qemu-img convert -O raw"),
    b"QED\x00": ("a QED image", "qemu-img convert -O raw"),
}
_VDI = b"\x7f\x10\xda\xbe"
_VDI_OFFSET = 0x40

# docs/interop/qcow2.txt: magic, version, backing_file_offset, backing_file_size, cluster_bits, size, crypt_method
_QCOW_HEADER = struct.Struct(">4sIQIIQI")
_QCOW_INCOMPATIBLE = slice(72, 80)
_EXTERNAL_DATA = 1 << 2


@dataclass(frozen=True)
class DiskImage:
    """A disk image file that was looked at."""

    path: Path
    format: Format
    size: int
    """Bytes of the disk in it."""
    allocated: int
    """Bytes that the file takes."""
    identity: tuple[int, int]
    """Device and inode."""

    @property
    def plain(self) -> bool:
        """Whether the file begins with the raw disk, so that nobody need convert it."""
        return self.format not in DRIVERS


def identify(path: Path) -> DiskImage:
    """Look at a disk image file.

    :raises DiskError: it is not there, not a file, damaged, of an unsupported kind, or refers to other files.
    :raises UnavailableError: it takes qemu-img to read it, which is missing.
    """
    with opened(path) as fd:
        return identify_open(fd, path)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a disk image for reading.

    :raises DiskError: it is not there, or may not be read.
    """
    try:
        # O_NONBLOCK: a FIFO in its place must not make us wait; it means nothing for files.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DiskError(f"{path} cannot be opened", why=error.strerror) from error
    try:
        yield fd
    finally:
        os.close(fd)


def identify_open(fd: int, path: Path) -> DiskImage:
    """Look at the disk image open at ``fd``, as :func:`identify`."""
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode):
        hint = "name a disk image file"
        if stat.S_ISBLK(state.st_mode):
            # what is on it shall not choose its format: one of them names other files
            command = ["qemu-img", "convert", "-f", "raw", "-O", "raw", str(path), "disk.raw"]
            hint = f"copy it into a file first: {shlex.join(command)}"
        raise DiskError(f"{path} is not a file", hint=hint)
    head = os.pread(fd, HEAD, 0)
    tail = os.pread(fd, vhd.FOOTER_SIZE, max(0, state.st_size - vhd.FOOTER_SIZE))
    kind = recognize(head, tail, path=path)
    if kind in DRIVERS:
        size = int(qemu.info(_node(kind, fd), fd=fd, name=path)["virtual-size"])
    elif kind == "fixed VHD":
        size = _fixed_size(vhd.parse(tail), state.st_size, path)
    else:
        size = state.st_size
        _refuse_bad_raw(size, path)
    return DiskImage(
        path=path,
        format=kind,
        size=size,
        allocated=space.allocated(fd),
        identity=(state.st_dev, state.st_ino),
    )


def qemu_node(image: DiskImage, fd: int) -> str:
    """How to name the image, open at ``fd``, to qemu-img."""
    return _node(image.format, fd)


def recognize(head: bytes, tail: bytes, *, path: Path) -> Format:
    """The kind of a disk image from its first and last 512 bytes. Pure.

    :raises DiskError: it cannot be used; says why and what to do.
    """
    if head.startswith(_QCOW):
        _refuse_bad_qcow(head, path)
        return "qcow2"
    if head.startswith(_VHDX):
        return "VHDX"
    # The copy at the beginning of a dynamic VHD is looked at first: what follows it does not begin with the disk.
    for block in (head, tail):
        if vhd.is_footer(block):
            return _vhd_kind(block, path)
    for magic, (kind, remedy) in _FOREIGN.items():
        if head.startswith(magic):
            raise DiskError(f"{path} is {kind}", why="that is not supported as a source", hint=remedy)
    if head[_VDI_OFFSET:].startswith(_VDI):
        raise DiskError(f"{path} is a VDI", why="that is not supported as a source", hint="qemu-img convert -O raw")
    if path.suffix.lower() in {".vhd", ".vhdx", ".qcow2"}:
        raise DiskError(
            f"{path} is no {path.suffix[1:]} image",
            why="it has no such header or footer; perhaps it was cut short",
            hint="get it again, or call it .raw if it is a raw disk",
        )
    return "raw"


def _node(kind: Format, fd: int) -> str:
    # VHDs whose two sizes differ were refused, so say which to take: qemu goes by lists of creators.
    options = {"force_size_calc": "current_size"} if kind == "dynamic VHD" else {}
    return qemu.node(DRIVERS[kind], fd, **options)


def _vhd_kind(block: bytes, path: Path) -> Format:
    try:
        footer = vhd.parse(block)
    except DiskError as error:
        raise DiskError(
            f"{path}: {error.what}", why=error.why, hint="get it again, or convert it by qemu-img"
        ) from error
    if footer.disk_type == vhd.DIFFERENCING:
        raise DiskError(
            f"{path} is a differencing VHD",
            why="it holds only what differs from its parent, another file",
            hint="merge it with its parent first (Hyper-V: Merge-VHD)",
        )
    if footer.disk_type not in (vhd.FIXED, vhd.DYNAMIC):
        raise DiskError(f"{path} is a VHD of unknown type {footer.disk_type}", why="fixed and dynamic are known")
    if footer.ambiguous:
        raise DiskError(
            f"{path} is a VHD of unclear size",
            why=f"by its geometry, which its creator {footer.creator.decode()!r} goes by, it has "
            f"{footer.geometry.size} bytes; by its footer {footer.size}",
            hint="decide by converting it: qemu-img convert -f vpc -O raw (by the geometry)",
        )
    return "fixed VHD" if footer.disk_type == vhd.FIXED else "dynamic VHD"


def _fixed_size(footer: vhd.Footer, length: int, path: Path) -> int:
    if footer.size + vhd.FOOTER_SIZE != length:
        raise DiskError(
            f"{path} is damaged",
            why=f"its VHD footer says {footer.size} bytes, but {length - vhd.FOOTER_SIZE} are before the footer",
            hint="get it again",
        )
    return footer.size


def _refuse_bad_raw(size: int, path: Path) -> None:
    if size == 0:
        raise DiskError(f"{path} is empty", hint="was it cut short? A build makes a new disk by `from_scratch: true`")
    if size % vhd.SECTOR:
        raise DiskError(
            f"{path} is no disk image",
            why=f"it is of no known format, and as a raw disk its {size} bytes are no whole number of sectors",
            hint="was it cut short?",
        )


def _refuse_bad_qcow(head: bytes, path: Path) -> None:
    if len(head) < _QCOW_HEADER.size:
        raise DiskError(f"{path} is damaged", why="it ends within its qcow2 header", hint="get it again")
    _, version, backing_offset, backing_length, _, _, encryption = _QCOW_HEADER.unpack_from(head)
    if version not in (2, 3):
        raise DiskError(f"{path} is qcow version {version}", why="2 and 3 are known", hint="qemu-img convert -O qcow2")
    if backing_offset or backing_length:
        raise DiskError(
            f"{path} has a backing file",
            why="reading it would read another file, which the image chooses",
            hint="if you trust it, make it whole: qemu-img convert -O qcow2",
        )
    if version == 3 and int.from_bytes(head[_QCOW_INCOMPATIBLE], "big") & _EXTERNAL_DATA:
        raise DiskError(
            f"{path} has an external data file",
            why="reading it would read another file, which the image chooses",
            hint="if you trust it, make it whole: qemu-img convert -O qcow2",
        )
    if encryption:
        raise DiskError(f"{path} is encrypted", hint="decrypt it by qemu-img convert")
