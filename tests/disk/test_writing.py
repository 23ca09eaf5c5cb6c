"""Every way to write to a disk leaves a mark."""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_azchroot.disk.writing import mark

MIB = 1 << 20


def _by_a_mapping(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), MIB) as mapping:
        mapping[4096:4100] = b"here"
        mapping.flush()


def _by_another_name(path: Path) -> None:
    os.link(path, path.with_suffix(".link"))
    path.with_suffix(".link").open("r+b").write(b"x")


def _by_a_hole(path: Path) -> None:
    subprocess.run(["fallocate", "--punch-hole", "--offset", "0", "--length", "64KiB", path], check=True)


WAYS: dict[str, Callable[[Path], object]] = {
    "write": lambda path: path.open("r+b").write(b"x"),
    "append": lambda path: path.open("ab").write(b"x"),
    "truncate": lambda path: os.truncate(path, 5),
    "mapping": _by_a_mapping,
    "another name": _by_another_name,
    "hole": _by_a_hole,
}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"\1" * MIB)
    os.utime(path, ns=(1, 1))
    return path


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_was_written_to(disk: Path, way: str) -> None:
    before = mark(disk)
    WAYS[way](disk)
    assert mark(disk) != before


def test_a_file_that_was_read_or_renamed(disk: Path) -> None:
    before = mark(disk)
    disk.read_bytes()
    disk.chmod(0o600)
    assert mark(disk.rename(disk.with_suffix(".new"))) == before


@pytest.fixture
def device(disk: Path) -> Iterator[Path]:
    done = subprocess.run(["losetup", "--find", "--show", disk], check=True, capture_output=True, text=True)
    path = Path(done.stdout.strip())
    yield path
    subprocess.run(["losetup", "--detach", path], check=True)


@pytest.mark.root
def test_a_device(device: Path) -> None:
    before = mark(device)
    subprocess.run(["dd", f"if={device}", "of=/dev/null", "bs=64k", "iflag=direct"], check=True, capture_output=True)
    assert mark(device) == before
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={device}", "bs=4096", "count=1", "conv=fsync"], check=True, capture_output=True
    )
    assert mark(device) != before


@pytest.mark.root
def test_a_device_of_which_something_was_discarded(device: Path) -> None:
    before = mark(device)
    subprocess.run(["blkdiscard", device], check=True)
    assert mark(device) != before
