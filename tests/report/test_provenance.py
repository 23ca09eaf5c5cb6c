"""The commit of an image's directory: found where there is one, and never at somebody else's mercy."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.report import provenance as module
from pytest_azchroot.report.provenance import Provenance, provenance

NOBODY = 65534


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "safe.directory=*"]
    done = subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that others can enter, which tmp_path is not."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.fixture
def image(open_path: Path) -> Path:
    """A repository with an image's directory, all committed."""
    directory = open_path / "repository" / "images" / "x"
    directory.mkdir(parents=True)
    (directory / "image.yaml").write_text("cloud: local\n")
    top = directory.parents[1]
    git(top, "init", "-q")
    git(top, "add", ".")
    git(top, "commit", "-q", "-m", "first")
    return directory


def found(directory: Path, *outputs: str) -> Provenance:
    return provenance(directory / "image.yaml", outputs=outputs)


def test_a_clean_directory(image: Path) -> None:
    sha256 = hashlib.sha256(b"cloud: local\n").hexdigest()
    assert found(image) == Provenance(sha256, git(image, "rev-parse", "HEAD"), dirty=False)


def test_without_a_repository(tmp_path: Path) -> None:
    (tmp_path / "image.yaml").write_text("")
    assert found(tmp_path) == Provenance(hashlib.sha256(b"").hexdigest())
    assert found(tmp_path / "nowhere") == Provenance(None)


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert found(tmp_path).commit is None


def test_without_git(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert found(image).commit is None


@pytest.mark.parametrize("name", ["image.yaml", "test_new.py", "files/deep/inside"])
def test_a_file_changed_or_new_is_dirty(image: Path, name: str) -> None:
    (image / name).parent.mkdir(parents=True, exist_ok=True)
    (image / name).write_text("new")
    assert found(image).dirty is True


@pytest.mark.parametrize("name", ["x.vhd", "out/x.raw", "x.vhd.manifest.json", "__pycache__/a.pyc", ".x.vhd.0.partial"])
def test_what_building_makes_is_not_dirty(image: Path, name: str) -> None:
    (image / name).parent.mkdir(parents=True, exist_ok=True)
    (image / name).write_text("made")
    assert found(image, "x.vhd", "out/x.raw", "/var/tmp/x.raw", "../../../elsewhere.raw").dirty is False


def test_what_others_change_is_not_dirty(image: Path) -> None:
    (image.parent / "y").mkdir()
    (image.parent / "y" / "image.yaml").write_text("")
    assert found(image).dirty is False


def test_nothing_is_written(image: Path) -> None:
    """Git refreshes its index now and then, which takes a lock that another git may be waiting for."""
    index = image.parents[1] / ".git" / "index"
    os.utime(image / "image.yaml", (1, 1))
    before = index.stat().st_mtime_ns
    assert found(image).dirty is False
    assert index.stat().st_mtime_ns == before


def test_a_git_that_hangs(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexec sleep 600\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    assert found(image).commit is None


EVIL = '[core]\n\tfsmonitor = touch {0}/fsmonitor; false\n\thooksPath = {0}\n[filter "evil"]\n\tclean = id -u >{0}/filter; cat\n'


@pytest.mark.parametrize("hook", ["fsmonitor", "post-index-change"])
def test_programs_of_the_repository_are_not_run(image: Path, tmp_path: Path, hook: str) -> None:
    room = tmp_path / "room"
    room.mkdir(mode=0o777)
    script = room / "post-index-change"
    script.write_text(f"#!/bin/sh\ntouch {room}/ran\n")
    script.chmod(0o755)
    with (image.parents[1] / ".git" / "config").open("a") as config:
        config.write(EVIL.format(room))
    (image / "image.yaml").touch()
    assert found(image).commit
    assert sorted(path.name for path in room.iterdir()) == ["post-index-change"]


@pytest.mark.root
class TestAsRoot:
    """Root builds in the checkout of a user."""

    @pytest.fixture(autouse=True)
    def room(self, open_path: Path) -> Path:
        room = open_path / "room"
        room.mkdir()
        room.chmod(0o777)
        return room

    def test_it_is_asked_as_its_owner(self, image: Path, room: Path) -> None:
        top = image.parents[1]
        with (top / ".git" / "config").open("a") as config:
            config.write(EVIL.format(room))
        (top / ".gitattributes").write_text("* filter=evil\n")
        (image / "image.yaml").write_text("cloud: other\n")
        for path in [top, *top.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        assert found(image) == Provenance(
            hashlib.sha256(b"cloud: other\n").hexdigest(), git(image, "rev-parse", "HEAD"), dirty=True
        )
        assert (room / "filter").read_text() == f"{NOBODY}\n"

    def test_a_repository_of_somebody_else_is_not_trusted(self, image: Path, room: Path) -> None:
        """Whoever may write above the image's directory could put one there."""
        top = image.parents[1]
        for path in [top, top / ".git", *(top / ".git").rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        assert found(image).commit is None


def test_git_is_there() -> None:
    assert shutil.which("git"), "the tests need git"
