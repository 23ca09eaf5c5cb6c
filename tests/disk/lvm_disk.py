"""A disk whose root is on LVM, without the tools of LVM, without devices: /boot on a partition, root and /var on
volumes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from . import tables
from .lvm_writer import EXTENT, MIB, Group, Volume, write

BOOT, PHYSICAL = 1 * MIB, 17 * MIB
SIZE = 120 * MIB
SCRIPT = f"label: gpt\n1: start={BOOT // 512}, size=16M\n2: start={PHYSICAL // 512}, size=100M, type=lvm\n"
FSTAB = "/dev/mapper/my--vg-root / ext4\nLABEL=BOOT /boot ext4\n/dev/my-vg/var /var ext4\n"
VOLUMES = {"var": Volume([(0, 0, 20)]), "root": Volume([(0, 30, 40)])}
"""``root`` is not the first one, and not at the beginning."""


def place(volume: Volume) -> int:
    """Where the first byte of a volume is on the disk."""
    return PHYSICAL + MIB + volume.rows[0][1] * EXTENT


def make(path: Path, tree: Path, *, fstab: str = FSTAB, group: Group | None = None) -> Path:
    """A disk with these files as its root, which is ext4."""
    tables.make(path, SCRIPT, size=SIZE)
    write(path, group or Group("my-vg", VOLUMES, [100 * MIB]), [PHYSICAL])
    for name in ("etc", "boot", "var"):
        (tree / name).mkdir(exist_ok=True, parents=True)
    (tree / "etc" / "fstab").write_text(fstab)
    (tree / "etc" / "os-release").write_text("PRETTY_NAME='Test OS'\n")
    ext4(path, BOOT, 16 * MIB, "-L", "BOOT")
    ext4(path, place(VOLUMES["var"]), 20 * MIB, "-L", "var")
    ext4(path, place(VOLUMES["root"]), 40 * MIB, "-L", "root", "-d", tree)
    return path


def ext4(disk: Path, start: int, size: int, *options: str | Path) -> None:
    """A file system on a part of a disk."""
    command: list[str | Path] = ["mkfs.ext4", "-q", "-F", "-E", f"offset={start}", *options, disk, f"{size >> 10}k"]
    subprocess.run(command, check=True, capture_output=True)


def xfs(disk: Path, start: int, size: int, directory: Path) -> None:
    """XFS on a part of a disk; it cannot be made in place."""
    image = directory / "part.xfs"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.xfs", "-q", image], check=True, capture_output=True)
    command = ["dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={start // MIB}", "conv=notrunc,sparse", "status=none"]
    subprocess.run(command, check=True)
    image.unlink()


def read(disk: Path, start: int, path: str) -> str:
    """A file of the file system that begins there, by debugfs: no kernel, no mount."""
    command = ["debugfs", "-R", f"cat {path}", f"{disk}?offset={start}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def copied(template: Path, path: Path) -> Path:
    """A copy of a disk."""
    shutil.copyfile(template, path)
    return path
