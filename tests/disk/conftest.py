"""Real file systems to copy within and across."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

MIB = 1024**2

Mount = Callable[..., Path]
"""Makes and mounts a file system: its kind and size in bytes; returns where it is mounted."""

_MKFS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-m", "0"],
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    "btrfs": ["mkfs.btrfs", "-q"],
}


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """File systems that are unmounted again when the test has ended."""
    with ExitStack() as stack:
        yield lambda kind, size: _mounted(stack, tmp_path / kind, kind, size)


def _mounted(stack: ExitStack, path: Path, kind: str, size: int) -> Path:
    path.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    else:
        image = path.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run([*_MKFS[kind], image], check=True, capture_output=True)
        command = ["mount", "-o", "loop", str(image), str(path)]
    subprocess.run(command, check=True)
    stack.callback(lambda: subprocess.run(["umount", path], check=True))
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk of 24 MiB: data, hole, data, hole up to the end."""
    return sparse_disk(tmp_path / "disk.raw")


def sparse_disk(path: Path, *, size: int = 24 * MIB) -> Path:
    """Write a disk with some bytes here and there, the last of them not at a block's end."""
    with path.open("wb") as file:
        for position in (0, 5 * MIB, 16 * MIB):
            file.seek(position)
            file.write(bytes(range(256)) * 4096)
        file.write(b"odd")
        file.truncate(size)
    return path


def wait_for_end(pid: int) -> None:
    """Until the process is gone or a zombie."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 30)[0], f"process {pid} lives on"
    finally:
        os.close(fd)
