"""Devices: links, partitions, and what is left of them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path

import pytest

from pytest_azchroot.emulator.devices import DeviceBusyError, Devices, device_name
from pytest_azchroot.errors import AzchrootError

from .conftest import MIB, loops_below, settled

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An empty disk image file."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    return path


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    """With links below a directory of the test's own."""
    return Devices(tmp_path / "dev", family="scsi", prefix="az")


@pytest.mark.parametrize(
    ("lun", "scsi", "nvme"),
    [(0, "sdc", "nvme0n2"), (23, "sdz", "nvme0n25"), (24, "sdaa", "nvme0n26"), (63, "sdbn", "nvme0n65")],
)
def test_names(lun: int, scsi: str, nvme: str) -> None:
    assert (device_name("scsi", lun), device_name("nvme", lun)) == (scsi, nvme)


def test_partitions_with_gaps_in_their_numbers(devices: Devices, disk: Path) -> None:
    table = b"label: gpt\n1: size=4MiB\n14: size=1MiB\n15: size=1MiB\n"
    subprocess.run(["sfdisk", "--quiet", "--no-tell-kernel", disk], input=table, check=True)
    devices.attach(0, disk)
    links = devices.link(0).parent
    assert sorted(os.listdir(links)) == ["lun0", "lun0-part1", "lun0-part14", "lun0-part15"]
    assert os.readlink(links / "lun0-part14") == "../../../azsdc14"
    assert all((links / name).is_block_device() for name in os.listdir(links))
    devices.close()


def test_a_table_that_is_written_later(devices: Devices, disk: Path, tmp_path: Path) -> None:
    devices.attach(0, disk)
    links = devices.link(0).parent
    assert os.listdir(links) == ["lun0"]
    for table, names in ((b"size=4MiB\nsize=4MiB\n", ["lun0", "lun0-part1", "lun0-part2"]), (b"", ["lun0"])):
        command = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(devices.link(0))]
        subprocess.run(command, input=b"label: gpt\n" + table, check=True, capture_output=True)
        settled(lambda names=names: sorted(os.listdir(links)) == names)  # type: ignore[misc]
    assert sorted(os.listdir(tmp_path / "dev")) == ["azsdc", "disk"]
    devices.close()


def test_nobody_looks_while_the_device_is_locked(devices: Devices, disk: Path) -> None:
    devices.attach(0, disk)
    with devices.link(0).open("r+b") as device:
        fcntl.flock(device, fcntl.LOCK_EX)
        command = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--lock=no", str(devices.link(0))]
        subprocess.run(command, input=b"label: gpt\nsize=4MiB\n", check=True, capture_output=True)
        time.sleep(0.2)
        assert os.listdir(devices.link(0).parent) == ["lun0"]
    settled(lambda: len(os.listdir(devices.link(0).parent)) == 2)
    devices.close()


def test_a_disk_with_a_broken_table_has_no_partitions(devices: Devices, disk: Path) -> None:
    with disk.open("r+b") as file:
        file.seek(510)
        file.write(b"\x55\xaa")
        file.seek(446)
        file.write(b"\x80" + b"\xff" * 15)
    devices.attach(0, disk)
    assert devices.link(0).is_block_device()
    devices.close()


def test_a_mounted_disk_is_busy(devices: Devices, disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    devices.attach(0, disk)
    place = tmp_path / "place"
    place.mkdir()
    subprocess.run(["mount", devices.link(0), place], check=True)
    try:
        with pytest.raises(DeviceBusyError, match="mounted"):
            devices.detach(0)
        assert devices.link(0).is_block_device()
        (place / "file").write_text("still works")
    finally:
        subprocess.run(["umount", place], check=True)
    devices.detach(0)
    assert loops_below(tmp_path) == []


def test_closing_leaves_what_is_in_use_to_its_users(devices: Devices, disk: Path, tmp_path: Path) -> None:
    devices.attach(0, disk)
    with devices.link(0).open("rb"):
        devices.close()
        assert not devices.link(0).is_symlink()
        assert len(loops_below(tmp_path)) == 1
    assert loops_below(tmp_path) == []


def test_descriptors_are_closed(devices: Devices, disk: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        devices.attach(0, disk)
        devices.flush(0)
        devices.detach(0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_was_left_of_a_killed_emulator_is_replaced(devices: Devices, disk: Path) -> None:
    link = devices.link(0)
    link.parent.mkdir(parents=True)
    link.symlink_to("../../../azsdc")
    link.parents[3].joinpath("azsdc").symlink_to("/dev/loop9999")
    devices.attach(0, disk)
    assert link.is_block_device()
    devices.close()


def test_a_link_of_the_machine_s_own_is_not_replaced(devices: Devices, disk: Path, tmp_path: Path) -> None:
    link = devices.link(0)
    link.parent.mkdir(parents=True)
    link.symlink_to("../../../sdc")
    with pytest.raises(AzchrootError, match="there already"):
        devices.attach(0, disk)
    assert os.readlink(link) == "../../../sdc"
    assert loops_below(tmp_path) == []
    assert not (tmp_path / "dev/azsdc").is_symlink()
