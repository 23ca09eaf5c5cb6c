"""Which file system a path is on, and what is said when it is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pytest_azchroot.disk import space

from .conftest import MIB, Mount


@pytest.mark.root
def test_the_mount_point_is_found_from_below(mount: Mount) -> None:
    other = mount("tmpfs", MIB)
    (other / "a" / "b").mkdir(parents=True)
    assert space.mount_point(other / "a" / "b" / "not there") == other
    assert space.mount_point(other.parent) != other


@pytest.mark.root
def test_free_is_what_can_still_be_written(mount: Mount) -> None:
    other = mount("tmpfs", MIB)
    (other / "half").write_bytes(bytes(MIB // 2))
    assert space.free(other) == MIB // 2


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3 * 1024**3 // 2, "1.5 GiB"), (5 * 1024**4, "5.0 TiB")],
)
def test_sizes_are_for_readers(size: int, words: str) -> None:
    assert space.human(size) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "is full (1.0 MiB were needed, "),
        (errno.EDQUOT, "is full"),
        (errno.EFBIG, "does not hold files this large"),
        (errno.EIO, "copying failed: Input/output error"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, number: int, words: str) -> None:
    error = OSError(number, os.strerror(number))
    assert words in str(space.explained(error, doing="copying", directory=tmp_path, needed=MIB))
