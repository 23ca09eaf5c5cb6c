"""fstab(5) and os-release(5), as data."""

from __future__ import annotations

import pytest

from pytest_azchroot.disk import fstab
from pytest_azchroot.disk.fstab import Source


def only(text: str) -> fstab.Line:
    (line,) = fstab.parse(text)
    return line


def test_fields_and_defaults() -> None:
    assert only("UUID=1 / ext4 noatime,discard 0 1") == fstab.Line("UUID=1", "/", "ext4", ("noatime", "discard"), 1)
    assert only("/dev/sda1 /boot") == fstab.Line("/dev/sda1", "/boot", "auto", ("defaults",), 1)
    assert only("/dev/sda1 /boot xfs") == fstab.Line("/dev/sda1", "/boot", "xfs", ("defaults",), 1)


def test_comments_empty_lines_and_half_lines_are_none() -> None:
    text = "# UUID=1 / ext4\n\n   \n  # x y\nUUID=2\nUUID=3\t/var  xfs\n"
    assert only(text) == fstab.Line("UUID=3", "/var", "xfs", ("defaults",), 6)


def test_octal_escapes_are_bytes() -> None:
    line = only(r"LABEL=my\040disk /mnt/a\040b\011c\134d\303\244 ext4")
    assert (line.source, line.path) == ("LABEL=my disk", "/mnt/a b\tc\\dä")


def test_paths_are_tidied() -> None:
    assert [line.path for line in fstab.parse("a //boot//efi/ vfat\nb / ext4\n")] == ["/boot/efi", "/"]


def test_options_have_values() -> None:
    line = only("a /b btrfs subvol=@,nofail,subvol=@home,x-systemd.device-timeout=5")
    assert (line.value("subvol"), line.value("nosuch")) == ("@home", None)
    assert line.has("nofail") and line.has("x-systemd.device-timeout") and not line.has("sub")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("UUID=ab-12", Source("uuid", "ab-12")),
        ('LABEL="root"', Source("label", "root")),
        ("LABEL='root'", Source("label", "root")),
        ('LABEL="', Source("label", '"')),
        ("PARTUUID=ab", Source("partuuid", "ab")),
        ("PARTLABEL=EFI System", Source("partlabel", "EFI System")),
        ("/dev/disk/by-uuid/ab", Source("uuid", "ab")),
        (r"/dev/disk/by-partlabel/EFI\x20System\xc3\xa4", Source("partlabel", "EFI Systemä")),
        ("/dev/sda1", Source("device", "sda", 1)),
        ("/dev/sdaa12", Source("device", "sdaa", 12)),
        ("/dev/vda", Source("device", "vda", 0)),
        ("/dev/nvme0n1p15", Source("device", "nvme0n1", 15)),
        ("/dev/nvme0n1", Source("device", "nvme0n1", 0)),
        ("/dev/mmcblk0p2", Source("device", "mmcblk0", 2)),
        ("/dev/mapper/vg-root", Source("volume", "vg/root")),
        ("/dev/mapper/my--vg-root--lv", Source("volume", "my-vg/root-lv")),
        ("/dev/disk/by-id/dm-name-vg-root", Source("volume", "vg/root")),
        ("/dev/my-vg/root-lv", Source("volume", "my-vg/root-lv")),
        ("/dev/mapper/cryptroot", Source("other", "/dev/mapper/cryptroot")),
        ("/dev/mapper/a-b-c", Source("other", "/dev/mapper/a-b-c")),
        ("/dev/md/root", Source("other", "/dev/md/root")),
        ("/dev/vg/lv/x", Source("other", "/dev/vg/lv/x")),
        ("/dev/sr0", Source("other", "/dev/sr0")),
        ("ID=x", Source("other", "ID=x")),
        ("tmpfs", Source("other", "tmpfs")),
    ],
)
def test_sources(text: str, expected: Source) -> None:
    assert fstab.source(text) == expected


@pytest.mark.parametrize(
    "text", ["UUID=1 none swap sw", "UUID=1 swap auto sw", "/swapfile /x swap", "/dev/sda1 - ext4"]
)
def test_what_is_no_mount(text: str) -> None:
    assert only(text).is_swap


@pytest.mark.parametrize(
    "text",
    [
        "host:/srv /srv nfs",
        "//host/share /x cifs",
        "host:/ /y auto",
        "u@h:/ /z fuse.sshfs",
        "/dev/sdc1 /d ext4 _netdev",
    ],
)
def test_what_is_elsewhere(text: str) -> None:
    assert only(text).is_network


@pytest.mark.parametrize("text", ["UUID=1 / ext4", "/dev/disk/by-path/pci-0000:00:1f.2-part1 /x ext4"])
def test_what_is_not_elsewhere(text: str) -> None:
    assert not only(text).is_network


def test_binds_and_file_systems_without_a_disk() -> None:
    assert only("/srv /home none bind").is_bind
    assert only("tmpfs /tmp tmpfs size=1g").has_no_disk
    assert not only("UUID=1 /tmp ext4").has_no_disk


def test_os_release() -> None:
    text = "# x\nID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\nEMPTY=\nBAD='x\n  VERSION_ID='12'\nnonsense\n"
    assert fstab.os_release(text) == {
        "ID": "debian",
        "PRETTY_NAME": "Debian GNU/Linux 12",
        "EMPTY": "",
        "VERSION_ID": "12",
    }
