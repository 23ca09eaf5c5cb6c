"""Where manifests are written, whole or not at all, and that they undo nothing."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_azchroot.clouds import Artifact
from pytest_azchroot.report.records import record, superseding
from pytest_azchroot.report.result import ImageResult

from .test_manifest import EVERYTHING, NOTHING


@pytest.fixture
def published(tmp_path: Path) -> ImageResult:
    """An image of which two files and something in a cloud were published."""
    artifacts = []
    for kind in ("vhd", "qcow2"):
        path = tmp_path / f"x.{kind}"
        path.write_text("disk")
        artifacts.append(Artifact(kind, str(path), 4))
    artifacts.append(Artifact("managed-image", "/subscriptions/0/images/x", 4))
    return replace(EVERYTHING, artifacts=tuple(artifacts), problems=())


def test_one_beside_each_file(published: ImageResult, tmp_path: Path) -> None:
    result = record(published, output=None, mask=str)
    assert result.manifests == (tmp_path / "x.vhd.manifest.json", tmp_path / "x.qcow2.manifest.json")
    assert [json.loads(path.read_text())["image"] for path in result.manifests] == ["x", "x"]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".qcow2", ".vhd"]


def test_one_where_the_user_wants_it(tmp_path: Path) -> None:
    result = record(NOTHING, output=tmp_path / "deep" / "out", mask=str)
    assert result.manifests == (tmp_path / "deep" / "out" / "x" / "manifest.json",)
    assert json.loads(result.manifests[0].read_text())["published"] is False


def test_nowhere_if_nothing_was_published_and_nobody_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert record(NOTHING, output=None, mask=str) == NOTHING
    assert list(tmp_path.iterdir()) == []


def test_it_replaces_what_is_there(published: ImageResult, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / "x.vhd.manifest.json").symlink_to(elsewhere)
    record(published, output=None, mask=str)
    assert elsewhere.read_text() == "mine"
    assert json.loads((tmp_path / "x.vhd.manifest.json").read_text())["image"] == "x"


def test_what_cannot_be_written_is_a_problem_and_the_others_are_written(published: ImageResult, tmp_path: Path) -> None:
    (tmp_path / "x.vhd.manifest.json").mkdir()
    result = record(published, output=tmp_path / "x.vhd", mask=str)
    assert result.manifests == (tmp_path / "x.qcow2.manifest.json",)
    assert result.problems == (
        f"the manifest {tmp_path}/x.vhd.manifest.json was not written: Is a directory",
        f"the manifest {tmp_path}/x.vhd/x/manifest.json was not written: Not a directory",
    )


def test_a_stranger_s_artifact_is_a_problem(published: ImageResult) -> None:
    odd = replace(published, artifacts=(*published.artifacts, Artifact("vhd", "x", -1, "md5:0")))
    result = record(odd, output=None, mask=str)
    assert result.manifests == ()
    assert len(result.problems) == 1
    assert result.problems[0].startswith("no manifest was written: ")


def test_what_is_written_is_masked(published: ImageResult) -> None:
    result = record(published, output=None, mask=lambda text: text.replace("example.org", "***"))
    assert json.loads(result.manifests[0].read_text())["variables"] == {"site": "***"}


def test_the_manifest_of_a_file_that_was_replaced_is_removed(published: ImageResult, tmp_path: Path) -> None:
    """Also where the other file could not be, and what replaced it raised."""
    result = record(published, output=None, mask=str)
    replaced, kept = tmp_path / "x.vhd", tmp_path / "x.qcow2"
    (tmp_path / "new").write_text("disk")

    def half_done() -> None:
        with superseding([replaced, kept, tmp_path / "none.raw"]):
            (tmp_path / "new").rename(replaced)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_done()
    assert [path.exists() for path in result.manifests] == [False, True]


def test_a_manifest_without_its_file_is_removed_when_the_file_comes(tmp_path: Path) -> None:
    (tmp_path / "x.raw.manifest.json").write_text("{}")
    with superseding([tmp_path / "x.raw"]):
        (tmp_path / "x.raw").write_text("disk")
    assert not (tmp_path / "x.raw.manifest.json").exists()


def test_its_mode_is_that_of_any_file(published: ImageResult) -> None:
    before = os.umask(0o027)
    try:
        result = record(published, output=None, mask=str)
    finally:
        os.umask(before)
    assert result.manifests[0].stat().st_mode & 0o777 == 0o640
