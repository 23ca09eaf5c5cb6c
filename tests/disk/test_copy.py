"""Copies: the bytes, the holes, the sharing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_azchroot.disk import copy as copying
from pytest_azchroot.disk.space import allocated
from pytest_azchroot.errors import DiskError

from .conftest import MIB, Mount, sparse_disk


def copied(source: Path, target: Path, *, length: int | None = None) -> bool:
    with source.open("rb") as old, target.open("w+b") as new:
        length = source.stat().st_size if length is None else length
        return copying.copy(old.fileno(), new.fileno(), length=length)


def taken(path: Path) -> int:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return allocated(file.fileno())


def shares_extents(path: Path) -> bool:
    subprocess.run(["sync", "-f", path], check=True)
    return "shared" in subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True).stdout


def test_a_copy_has_the_same_bytes(disk: Path, tmp_path: Path) -> None:
    assert copied(disk, tmp_path / "copy") is False
    assert (tmp_path / "copy").read_bytes() == disk.read_bytes()


def test_a_copy_is_as_sparse(disk: Path, tmp_path: Path) -> None:
    copied(disk, tmp_path / "copy")
    assert taken(tmp_path / "copy") <= taken(disk)


def test_holes_are_found_where_the_source_reports_none(disk: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.write_bytes(disk.read_bytes())
    copied(full, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == disk.read_bytes()
    assert taken(full) >= 24 * MIB
    assert taken(tmp_path / "copy") < 5 * MIB


def test_only_the_beginning_is_copied(disk: Path, tmp_path: Path) -> None:
    length = 16 * MIB + 1000
    copied(disk, tmp_path / "copy", length=length)
    assert (tmp_path / "copy").read_bytes() == disk.read_bytes()[:length]


def test_a_hole_at_the_end_keeps_its_length(tmp_path: Path) -> None:
    hole = tmp_path / "hole"
    with hole.open("wb") as file:
        file.truncate(MIB)
    copied(hole, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == MIB
    assert taken(tmp_path / "copy") == 0


def test_a_source_that_is_too_short_is_an_error(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="ended early"):
        copied(disk, tmp_path / "copy", length=25 * MIB)


def test_progress_only_grows_and_ends_at_the_end(disk: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    with disk.open("rb") as old, (tmp_path / "copy").open("wb") as new:
        copying.copy(old.fileno(), new.fileno(), length=24 * MIB, progress=lambda *at: heard.append(at))
    assert len(heard) > 2
    assert heard == sorted(heard)
    assert heard[-1] == (24 * MIB, 24 * MIB)


def test_extents_say_where_data_is(disk: Path) -> None:
    with disk.open("rb") as file:
        found = list(copying.extents(file.fileno(), 24 * MIB))
    assert found == [(0, MIB), (5 * MIB, 6 * MIB), (16 * MIB, 17 * MIB + 4096)]


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_reflink_shares_and_drops_what_is_beyond(mount: Mount, kind: str) -> None:
    directory = mount(kind, 400 * MIB)
    source = sparse_disk(directory / "source", size=24 * MIB + 512)
    assert copied(source, directory / "copy", length=24 * MIB) is True
    assert (directory / "copy").read_bytes() == source.read_bytes()[: 24 * MIB]
    assert shares_extents(directory / "copy")


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs", "tmpfs", "ext4"])
def test_across_file_systems_the_bytes_are_the_same(disk: Path, mount: Mount, kind: str) -> None:
    directory = mount(kind, 400 * MIB)
    assert copied(disk, directory / "copy") is False
    assert copied(directory / "copy", disk.with_name("back")) is False
    assert disk.with_name("back").read_bytes() == disk.read_bytes()
    assert taken(directory / "copy") < 5 * MIB


@pytest.mark.root
def test_can_clone_tells_without_leaving_anything(disk: Path, mount: Mount) -> None:
    directory = mount("xfs", 400 * MIB)
    inside = sparse_disk(directory / "inside")
    with disk.open("rb") as foreign, inside.open("rb") as own:
        assert copying.can_clone(own.fileno(), directory)
        assert not copying.can_clone(foreign.fileno(), directory)
        assert not copying.can_clone(foreign.fileno(), disk.parent)
    assert list(directory.iterdir()) == [inside]
