"""An unfinished file has no name; a finished one gets its name at once, or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.disk.partial import partial, remove_stale, rename_noreplace

HOLDER = """
import os, sys, time
from pathlib import Path
from pytest_azchroot.disk.partial import partial
with partial(Path(sys.argv[1]), "disk.vhd", unnamed=sys.argv[2] == "unnamed") as file:
    os.write(file.fd, b"half")
    print(file.path, flush=True)
    time.sleep(1000)
"""

both = pytest.mark.parametrize("unnamed", [True, False], ids=["unnamed", "named"])


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def holder(directory: Path, kind: str) -> Iterator[Path]:
    """Another process that holds an unfinished ``disk.vhd``, which can be opened there; killed on exit."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(directory), kind], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with process.stdout:
            yield Path(process.stdout.readline().decode().strip())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_an_unfinished_file_has_no_name(tmp_path: Path) -> None:
    with partial(tmp_path, "a") as file:
        os.write(file.fd, b"x")
        assert names(tmp_path) == []


def test_others_can_open_it(tmp_path: Path) -> None:
    with partial(tmp_path, "a") as file:
        os.write(file.fd, b"x")
        assert subprocess.run(["cat", file.path], check=True, capture_output=True).stdout == b"x"


@both
def test_published_it_has_its_name_alone(tmp_path: Path, unnamed: bool) -> None:
    with partial(tmp_path, "a", unnamed=unnamed) as file:
        os.write(file.fd, b"x")
        file.publish("a")
        assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"x"
    assert names(tmp_path) == ["a"]


@both
def test_its_mode_is_that_of_any_new_file(tmp_path: Path, unnamed: bool) -> None:
    (tmp_path / "other").touch()
    with partial(tmp_path, "a", unnamed=unnamed) as file:
        file.publish("a")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_that_cannot_be_closed_comes_second(tmp_path: Path) -> None:
    def work() -> None:
        with partial(tmp_path, "a") as file:
            os.close(file.fd)
            raise ValueError("first")

    with pytest.raises(ValueError, match="first") as caught:
        work()
    assert "Bad file descriptor" in getattr(caught.value, "__notes__", [""])[0]


@both
def test_unpublished_nothing_is_left(tmp_path: Path, unnamed: bool) -> None:
    with pytest.raises(KeyboardInterrupt), partial(tmp_path, "a", unnamed=unnamed):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


@both
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_an_existing_name_is_not_replaced(tmp_path: Path, unnamed: bool, kind: str) -> None:
    if kind == "file":
        (tmp_path / "a").write_bytes(b"old")
    else:
        (tmp_path / "a").symlink_to("nowhere")
    with partial(tmp_path, "a", unnamed=unnamed) as file, pytest.raises(FileExistsError):
        file.publish("a")
    assert names(tmp_path) == ["a"]
    assert kind != "file" or (tmp_path / "a").read_bytes() == b"old"


@both
def test_overwrite_replaces(tmp_path: Path, unnamed: bool) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with partial(tmp_path, "a", unnamed=unnamed) as file:
        os.write(file.fd, b"new")
        file.publish("a", overwrite=True)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@both
def test_a_failed_overwrite_leaves_nothing(tmp_path: Path, unnamed: bool) -> None:
    (tmp_path / "a").mkdir()
    with partial(tmp_path, "a", unnamed=unnamed) as file, pytest.raises(IsADirectoryError):
        file.publish("a", overwrite=True)
    assert names(tmp_path) == ["a"]


@both
def test_a_withdrawn_file_can_be_published_again(tmp_path: Path, unnamed: bool) -> None:
    with partial(tmp_path, "a", unnamed=unnamed) as file:
        file.publish("a")
        file.withdraw("a")
        assert "a" not in names(tmp_path)
        file.publish("a")
    assert names(tmp_path) == ["a"]


@both
def test_a_withdrawn_file_vanishes_on_exit(tmp_path: Path, unnamed: bool) -> None:
    with partial(tmp_path, "a", unnamed=unnamed) as file:
        file.publish("a")
        file.withdraw("a")
    assert names(tmp_path) == []


def test_another_file_is_not_withdrawn(tmp_path: Path) -> None:
    with partial(tmp_path, "a") as file:
        (tmp_path / "a").touch()
        file.withdraw("a")
    assert names(tmp_path) == ["a"]


def test_kill_9_leaves_nothing_of_an_unnamed_file(tmp_path: Path) -> None:
    with holder(tmp_path, "unnamed") as path:
        assert path.read_bytes() == b"half"
    assert names(tmp_path) == []


def test_what_kill_9_leaves_of_a_named_file_is_removed_by_the_next(tmp_path: Path) -> None:
    with holder(tmp_path, "named"):
        pass
    (left,) = names(tmp_path)
    assert left.startswith(".disk.vhd.")
    assert left.endswith(".partial")
    with partial(tmp_path, "disk.vhd"):
        assert names(tmp_path) == []


def test_a_living_builds_file_is_not_removed(tmp_path: Path) -> None:
    with holder(tmp_path, "named"):
        assert remove_stale(tmp_path, "disk.vhd") == []
        assert len(names(tmp_path)) == 1


@pytest.mark.parametrize("name", [".b.0123456789abcdef.partial", ".a.b.partial", "a.0123456789abcdef.partial"])
def test_files_of_others_are_not_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert remove_stale(tmp_path, "a") == []
    assert names(tmp_path) == [name]


def test_a_file_removed_before_it_was_locked_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open
    raced: list[str] = []

    def open_and_lose(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        fd = opened(path, flags, *arguments, **options)
        if flags & os.O_CREAT and not raced:
            raced.append(path)
            (tmp_path / path).unlink()
        return fd

    monkeypatch.setattr(os, "open", open_and_lose)
    with partial(tmp_path, "a", unnamed=False) as file:
        file.publish("a")
    assert raced
    assert names(tmp_path) == ["a"]


# No file system that this can be tried on lacks O_TMPFILE.
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR])
def test_without_o_tmpfile_the_file_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    opened = os.open

    def open_without(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return opened(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", open_without)
    with partial(tmp_path, "a"):
        assert len(names(tmp_path)) == 1
    assert names(tmp_path) == []


# Nor one that lacks hard links.
def test_without_hard_links_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    with partial(tmp_path, "a", unnamed=False) as file:
        file.publish("a")
    with partial(tmp_path, "a", unnamed=False) as file, pytest.raises(FileExistsError):
        file.publish("a")
    assert names(tmp_path) == ["a"]


def test_a_rename_without_replacing(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "new").write_text("new")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            rename_noreplace("old", "new", directory_fd=fd)
        rename_noreplace("old", "newer", directory_fd=fd)
    finally:
        os.close(fd)
    assert names(tmp_path) == ["new", "newer"]


def test_a_directory_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), partial(tmp_path / "none", "a"):
        pass
