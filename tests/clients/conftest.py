"""Clients that nobody here wrote, unmodified, against the emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .packer import START

collect_ignore = [] if os.environ.get("AZCHROOT_ALL_CLIENTS") else ["test_packer_slow.py"]
"""What takes minutes, for it waits as long as Packer does."""

APPLETS = ("sh", "cat", "chmod", "cp", "echo", "env", "mkdir", "rm", "sleep", "sync", "test")


@pytest.fixture(scope="session")
def userland(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a busybox and little else: the root of a small image."""
    root = tmp_path_factory.mktemp("userland")
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
        (root / name).mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return root


@pytest.fixture(scope="session")
def platform_image(userland: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with one partition, that userland in it."""
    path = tmp_path_factory.mktemp("platform") / "debian.raw"
    with path.open("wb") as file:
        file.truncate(34 * 1024**2)
    subprocess.run(["sfdisk", "--quiet", path], input=b"label: gpt\nstart=1MiB,size=32MiB\n", check=True)
    place = ["-E", f"offset={START}"]
    subprocess.run(["mkfs.ext4", "-q", "-d", userland, *place, path, "32M"], check=True, stderr=subprocess.DEVNULL)
    return path
