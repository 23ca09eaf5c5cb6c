"""`pytest example_images/debian` ends with the disk that its image.yaml promises."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from . import disk

pytestmark = pytest.mark.root

MIB = 1 << 20
FOOTER = 512


def test_vhd_is_fixed_and_aligned(debian_vhd: Path) -> None:
    information = disk.information(debian_vhd)
    assert information["format"] == "vpc"
    assert information["virtual-size"] == debian_vhd.stat().st_size - FOOTER == 2048 * MIB

    # Virtual Hard Disk Image Format Specification: the footer is the last 512 bytes; at 60, the disk type; 2 is fixed.
    with debian_vhd.open("rb") as file:
        file.seek(-FOOTER, 2)
        footer = file.read()
    assert footer.startswith(b"conectix")
    assert struct.unpack_from(">I", footer, 60) == (2,)


def test_vhd_takes_the_room_of_its_data(debian_vhd: Path) -> None:
    allocated = debian_vhd.stat().st_blocks * 512
    assert allocated < debian_vhd.stat().st_size / 2


def test_root_file_system_was_closed(debian_vhd: Path) -> None:
    root = disk.root_partition(debian_vhd)
    assert disk.state(root) == "clean"
    disk.check(root)


def test_disk_holds_what_the_steps_put_there(debian_vhd: Path, examples: Path) -> None:
    root = disk.root_partition(debian_vhd)
    assert disk.read(root, "/etc/fstab") == "LABEL=debian-root / ext4 errors=remount-ro 0 1\n"
    assert disk.read(root, "/etc/hostname") == "debian\n"
    assert disk.read(root, "/srv/www/index.html") == (examples / "debian/files/index.html").read_text()
    assert "\nPackage: nginx-light\nStatus: install ok installed\n" in disk.read(root, "/var/lib/dpkg/status")


def test_nothing_else_is_left_beside_it(debian_vhd: Path, examples: Path) -> None:
    # A working disk, a partial file, a lock.
    before = {path.name for path in (Path(__file__).parents[2] / "example_images/debian").iterdir()}
    after = {path.name for path in (examples / "debian").iterdir()}
    assert after - before <= {"debian.vhd", "debian.vhd.manifest.json", "__pycache__"}
