"""Images of several file systems go the whole way: what steps write lands on the right one, checks see it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_azchroot.disk import table
from pytest_azchroot.disk.partition import BytesReader, Partition

from .conftest import Workshop

pytestmark = pytest.mark.root

MIB = 1 << 20

STEPS = """
    import pytest

    @pytest.mark.provision
    def test_step(chroot):
        chroot.write_text("/etc/motd", "hello\\n")
        chroot.write_text("/boot/vmlinuz", "kernel\\n")
        chroot.write_text("/var/log/made", "log\\n")
"""

CHECKS = """
    def test_each_is_a_mount(host):
        points = host.check_output("cat /proc/mounts").split()[1::6]
        assert {"/", "/boot", "/var"} <= set(points)

    def test_written(host):
        assert host.file("/boot/vmlinuz").content_string == "kernel\\n"
        assert host.file("/var/log/made").content_string == "log\\n"
"""


def populate(disk: Path, partition: Partition, *options: str | Path) -> None:
    """ext4 within a partition, without a loop device."""
    command: list[str | Path] = ["mkfs.ext4", "-q", "-E", f"offset={partition.start}", *options, disk]
    subprocess.run([*command, f"{partition.size >> 10}k"], check=True, capture_output=True)


def parts(disk: Path) -> tuple[Partition, ...]:
    found = table.read(BytesReader(disk.read_bytes()))
    assert found is not None
    return found.partitions


def files_of(disk: Path, partition: Partition, path: str) -> str:
    """A file of one partition of a disk, read by debugfs."""
    argument = f"{disk}?offset={partition.start}"
    return subprocess.run(["debugfs", "-R", f"cat {path}", argument], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def separate(workshop: Workshop, tmp_path: Path) -> Workshop:
    """Its source has /boot and /var on partitions of their own, and names them each in another way."""
    root = tmp_path / "tree"
    shutil.copytree(workshop.source.parent / "root", root, symlinks=True)
    disk = tmp_path / "separate.raw"
    with disk.open("wb") as file:
        file.truncate(80 * MIB)
    script = 'label: gpt\n1: start=40M, size=+\n14: start=1M, size=12M, name="var"\n15: start=13M, size=12M\n'
    subprocess.run(["sfdisk", "--quiet", disk], input=script, text=True, check=True)
    by_number = {each.number: each for each in parts(disk)}
    text = f"PARTUUID={by_number[1].uuid} / ext4\nLABEL=BOOT /boot ext4 defaults 0 2\nPARTLABEL=var /var ext4\n"
    (root / "etc" / "fstab").write_text(text)
    (root / "boot").mkdir()
    populate(disk, by_number[1], "-d", root)
    populate(disk, by_number[14])
    populate(disk, by_number[15], "-L", "BOOT")
    workshop.source = disk
    return workshop


def test_what_steps_write_lands_on_its_partition(separate: Workshop) -> None:
    separate.image(test_10=STEPS, test_90=CHECKS)
    result = separate.run()
    result.assert_outcomes(passed=4)
    disk = separate.pytester.path / "images" / "x" / "x.raw"
    root, var, boot = parts(disk)
    assert files_of(disk, root, "/etc/motd") == "hello\n"
    assert files_of(disk, boot, "/vmlinuz") == "kernel\n"
    assert files_of(disk, var, "/log/made") == "log\n"
    assert files_of(disk, root, "/boot/vmlinuz") == ""


def test_a_device_that_is_not_on_the_disk_is_said_before_the_first_step(separate: Workshop, tmp_path: Path) -> None:
    extra = tmp_path / "fstab"
    extra.write_text("UUID=11111111-2222-3333-4444-555555555555 /data ext4\n")
    offset = next(each.start for each in parts(separate.source) if each.number == 1)
    script = f"rm /etc/fstab\nwrite {extra} /etc/fstab\n"
    subprocess.run(
        ["debugfs", "-w", "-f", "-", f"{separate.source}?offset={offset}"],
        input=script,
        text=True,
        check=True,
        capture_output=True,
    )
    separate.image(test_10=STEPS, test_90=CHECKS)
    result = separate.run()
    result.stdout.fnmatch_lines(
        ["*line 1 of the image's /etc/fstab mounts UUID=1111* on /data, which is not on this disk*"]
    )
    assert not separate.published()


def test_subvolumes(workshop: Workshop) -> None:
    yaml = """
        from_scratch: true
        os_disk_size_gb: 1
        pre_mount_commands:
          - |
            mkfs.btrfs -q {{ device }}
            mount {{ device }} /mnt
            btrfs -q subvolume create /mnt/@
            btrfs -q subvolume create /mnt/@home
            mkdir /mnt/@/etc
            echo "UUID=$(blkid -p -s UUID -o value {{ device }}) / btrfs subvol=@" > /mnt/@/etc/fstab
            echo "UUID=$(blkid -p -s UUID -o value {{ device }}) /home btrfs subvol=@home" >> /mnt/@/etc/fstab
            cp -a SOURCE/. /mnt/@
            umount /mnt
    """
    userland = workshop.source.parent / "root"
    step = """
        import pytest

        @pytest.mark.provision
        def test_step(chroot):
            chroot.write_text("/home/file", "home\\n")
    """
    check = """
        def test_check(host):
            assert host.file("/home/file").content_string == "home\\n"
            assert host.check_output("ls /") .split() .count("@home") == 0
    """
    directory = workshop.image(yaml=yaml.replace("SOURCE", str(userland)), test_10=step, test_90=check)
    config = directory / "image.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if not line.startswith("source:")))
    workshop.run().assert_outcomes(passed=3)
    disk = directory / "x.raw"
    done = subprocess.run(["btrfs", "restore", "--list-roots", disk], check=True, capture_output=True, text=True)
    assert done.stdout.count("tree key") >= 2
