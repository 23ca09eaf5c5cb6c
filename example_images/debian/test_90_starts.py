"""Checks: would a machine made of this image come up, wherever its disk is attached?"""

from __future__ import annotations

import re

import pytest


@pytest.fixture
def kernel(host):
    """The version of the one kernel."""
    (modules,) = host.file("/lib/modules").listdir()
    return modules


@pytest.fixture
def menu(host):
    """The loader's menu."""
    return host.file("/boot/grub/grub.cfg").content_string


def test_fstab_names_this_disk_by_label(host):
    # /dev/sda and /dev/loop0p2 are names that this disk has here, today.
    lines = [line.split() for line in host.file("/etc/fstab").content_string.splitlines() if line[:1] not in ("", "#")]
    assert [(fields[0], fields[1]) for fields in lines] == [("LABEL=debian-root", "/")]
    assert host.check_output("blkid --output value --match-tag LABEL $(findmnt -no SOURCE /)") == "debian-root"


def test_loader_finds_this_root(host, menu):
    # update-grub falls back to the build machine's device name, and exits 0, when it does not see the disk's UUID.
    uuid = host.check_output("blkid --output value --match-tag UUID $(findmnt -no SOURCE /)")
    assert set(re.findall(r"^\s*linux\s.*?\broot=(\S+)", menu, re.MULTILINE)) == {f"UUID={uuid}"}
    assert set(re.findall(r"^\s*search .*--fs-uuid.* (\S+)$", menu, re.MULTILINE)) == {uuid}


def test_console_is_the_serial_port(menu):
    # Azure's serial console and boot diagnostics show nothing else. The last console= gets /dev/console.
    entries = re.findall(r"^\s*linux\s.*", menu, re.MULTILINE)
    assert entries
    for entry in entries:
        assert re.findall(r"console=(\S+)", entry)[-1] == "ttyS0,115200"


def test_loader_starts_kernel_and_initramfs_of_one_version(host, menu, kernel):
    # One kernel: a second one would fill /boot, and the menu's first may be the wrong one.
    assert set(re.findall(r"^\s*linux\s+(\S+)", menu, re.MULTILINE)) == {f"/boot/vmlinuz-{kernel}"}
    assert set(re.findall(r"^\s*initrd\s+(\S+)", menu, re.MULTILINE)) == {f"/boot/initrd.img-{kernel}"}
    assert host.file(f"/boot/vmlinuz-{kernel}").size > 0
    assert host.file(f"/boot/initrd.img-{kernel}").size > 0


@pytest.mark.parametrize(
    "driver",
    ["hv_vmbus", "hv_storvsc", "hv_netvsc", "nvme", "virtio_blk", "ext4"],
)
def test_first_disk_needs_no_driver_from_that_disk(host, kernel, driver):
    # Hyper-V and Azure, Azure's NVMe sizes, QEMU; and the file system itself.
    built_in = host.file(f"/lib/modules/{kernel}/modules.builtin").content_string
    initramfs = host.check_output(f"lsinitramfs /boot/initrd.img-{kernel}")
    assert f"/{driver}.ko" in built_in + initramfs


def test_system_has_an_init(host):
    assert host.file("/sbin/init").linked_to == "/usr/lib/systemd/systemd"


def test_network_comes_up(host):
    assert host.service("systemd-networkd").is_enabled
    assert host.service("systemd-resolved").is_enabled
