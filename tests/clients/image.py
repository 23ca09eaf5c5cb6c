"""The small image that clients build from: one partition with a busybox and little else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .packer import START

APPLETS = ("sh", "cat", "chmod", "cp", "echo", "env", "mkdir", "rm", "sleep", "sync", "test")


def make_userland(root: Path) -> Path:
    """Fill a directory with the root of a small image."""
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return root


def make_platform_image(path: Path, userland: Path) -> Path:
    """Make a disk with one partition, that userland in it."""
    with path.open("wb") as file:
        file.truncate(34 * 1024**2)
    subprocess.run(["sfdisk", "--quiet", path], input=b"label: gpt\nstart=1MiB,size=32MiB\n", check=True)
    place = ["-E", f"offset={START}"]
    subprocess.run(["mkfs.ext4", "-q", "-d", userland, *place, path, "32M"], check=True, stderr=subprocess.DEVNULL)
    return path
