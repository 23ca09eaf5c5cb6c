"""What was closed is what ships: every artifact holds the payload whose digest was taken at the close."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from pytest_azchroot.disk.digest import digest_of
from pytest_azchroot.sandbox import Sandbox

from .conftest import CHECKS, STEPS, Workshop

pytestmark = pytest.mark.root

TELL = """
import dataclasses, json

def pytest_azchroot_finished(image, result):
    told = {
        "disk": dataclasses.asdict(image.disk) if image.disk else None,
        "artifacts": [dataclasses.asdict(each) for each in image.artifacts],
        "stages": dict(result.stages),
    }
    (image.path / "told.json").write_text(json.dumps(told))
"""
FORMATS = ("raw", "vhd", "vhdx", "qcow2")


def told(workshop: Workshop, *args: str, yaml: str = "", **files: str) -> dict[str, Any]:
    """Build an image; what it tells of itself at the end."""
    directory = workshop.image(yaml=yaml, **files)
    (directory / "conftest.py").write_text(TELL)
    workshop.run(*args)
    found: dict[str, Any] = json.loads((directory / "told.json").read_text())
    return found


@pytest.mark.parametrize("first", FORMATS)
def test_every_artifact_has_the_digest_of_the_close(workshop: Workshop, first: str) -> None:
    """Whichever comes first: the working disk itself becomes an artifact, or all are copies."""
    formats = sorted(FORMATS, key=lambda each: each != first) if first in ("raw", "vhd") else [first]
    outputs = ", ".join(f"x.{each}" for each in formats)
    found = told(workshop, yaml=f"clouds: {{local: {{output: [{outputs}]}}}}")
    taken = found["disk"]["digest"]
    assert [(each["kind"], each["digest"]) for each in found["artifacts"]] == [(each, taken) for each in formats]
    directory = workshop.pytester.path / "images" / "x"
    assert {digest_of(directory / f"x.{each}") for each in formats} == {taken}
    assert "digest" in found["stages"]


def test_the_source_has_its_own(workshop: Workshop) -> None:
    found = told(workshop, yaml="os_disk_size_gb: 1")
    assert found["disk"]["source_digest"] == digest_of(workshop.source) != found["disk"]["digest"]


def test_an_image_that_no_step_changes_has_the_digest_of_its_source(workshop: Workshop) -> None:
    """Mounted read-only, the copy is bit for bit the source."""
    found = told(workshop, yaml="mount_options: [ro, noload]", test_90="def test_a(host): host.run('true')")
    assert found["disk"]["digest"] == found["disk"]["source_digest"]


def test_a_disk_from_scratch_has_no_source(workshop: Workshop) -> None:
    directory = workshop.image(test_90="def test_a(disk): pass")
    (directory / "image.yaml").write_text(
        "cloud: local\nfrom_scratch: true\nos_disk_size_gb: 1\noutput: x.raw\npre_mount_commands: ['true']\n"
    )
    (directory / "conftest.py").write_text(TELL)
    workshop.run()
    disk = json.loads((directory / "told.json").read_text())["disk"]
    assert (disk["source_digest"], disk["digest"]) == (None, digest_of(directory / "x.raw"))


@pytest.mark.parametrize(
    ("args", "files"),
    [
        (("-k", "test_check"), {"test_10": STEPS, "test_90": CHECKS.replace("assert", "pass #")}),
        (("--azchroot-no-publish",), {"test_10": STEPS, "test_90": CHECKS}),
    ],
)
def test_nothing_is_spent_where_nothing_can_be_published(
    workshop: Workshop, args: tuple[str, ...], files: dict[str, str]
) -> None:
    found = told(workshop, *args, **files)
    assert (found["disk"]["source_digest"], found["disk"]["digest"]) == (None, None)
    assert "digest" not in found["stages"]


def test_a_disk_that_cannot_be_read_is_not_published(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = workshop.image()
    (directory / "conftest.py").write_text(
        "def pytest_azchroot_mounted(image): (image.path / 'disk').write_text(image.disk.id)"
    )
    close = Sandbox.close

    def cut(sandbox: Sandbox) -> None:
        close(sandbox)
        os.truncate((directory / "disk").read_text(), 4096)

    monkeypatch.setattr(Sandbox, "close", cut)
    result = workshop.run()
    assert not workshop.published()
    result.stdout.fnmatch_lines(["*the disk ended early*", "*not published*"])


def test_junit_names_the_artifact_and_its_digest(workshop: Workshop) -> None:
    directory = workshop.image()
    workshop.run("--junitxml=out.xml")
    text = (workshop.pytester.path / "out.xml").read_text()
    assert f'<property name="image.raw" value="{directory}/x.raw"/>' in text.replace(" />", "/>")
    assert '<property name="image.raw.digest" value="azd1:' in text
