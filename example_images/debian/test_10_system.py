"""Steps: what any machine needs, whatever it will do."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.provision

FILES = Path(__file__).parent / "files"


def test_mount_root_by_label(chroot):
    chroot.write_text("/etc/fstab", "LABEL=debian-root / ext4 errors=remount-ro 0 1\n")


def test_set_locale(chroot):
    chroot.write_text("/etc/default/locale", "LANG=C.UTF-8\n")


def test_know_its_own_name(chroot, image):
    # In place of the build machine's, which mmdebstrap copies.
    name = image.variables["hostname"]
    chroot.write_text("/etc/hostname", f"{name}\n")
    chroot.write_text("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n")


def test_network_by_dhcp(chroot):
    chroot.put(FILES / "dhcp.network", "/etc/systemd/network/80-dhcp.network", mode=0o644)
    chroot.run("systemctl enable systemd-networkd systemd-resolved")
