"""Steps: a kernel, and a loader that finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.provision

FILES = Path(__file__).parent / "files"


def test_console_on_serial_port(chroot):
    # Before the kernel comes, whose installation writes the loader's menu.
    chroot.put(FILES / "console.cfg", "/etc/default/grub.d/console.cfg", mode=0o644)


def test_install_kernel(install):
    # zstd in the same go: without it the initramfs would be packed by gzip, which takes longer to make and to boot.
    install("linux-image-cloud-amd64", "zstd", "grub-pc")


def test_install_boot_loader(chroot):
    chroot.run(["grub-install", "--target=i386-pc", chroot.device])
    chroot.run("update-grub")
