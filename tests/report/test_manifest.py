"""The manifest as data, its schema, and that no secret is in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pytest_azchroot.clouds import Account, Artifact
from pytest_azchroot.gate import Answer, Verdict
from pytest_azchroot.masking import Masker
from pytest_azchroot.report.manifest import DIALECT, json_schema, manifest
from pytest_azchroot.report.packages import Package, Packages
from pytest_azchroot.report.provenance import Provenance
from pytest_azchroot.report.result import ImageResult, TestResult

ROOT = Path(__file__).parents[2]
DIGEST = "azd1:" + "0123456789abcdef" * 4
VERSIONS = {"pytest_azchroot": "1", "pytest": "9.1", "python": "3.10.0"}

NOTHING = ImageResult(
    name="x",
    path=Path("/images/x"),
    cloud="local",
    verdict=Verdict(Answer.SKIP, ("the run was interrupted",)),
    published=False,
    artifacts=(),
    tests=(TestResult("images/x/test_a.py::test_a", True, "not run", 0.0),),
    stages={},
)
EVERYTHING = ImageResult(
    name="x",
    path=Path("/images/x"),
    cloud="local",
    verdict=Verdict(Answer.PUBLISH, (), ("test_b skipped: not today",)),
    published=True,
    artifacts=(Artifact("vhd", "/images/x/x.vhd", 1 << 30, DIGEST), Artifact("managed-image", "/subscriptions/…", 5)),
    tests=(
        TestResult("images/x/test_a.py::test_a", True, "passed", 0.12345),
        TestResult("images/x/test_b.py::test_b", False, "skipped", 0.0, "not today", ("deleted /etc",)),
    ),
    stages={"create": 0.5004, "digest": 0.1},
    source_version="12.0.1",
    account=Account(31, 0.81234, 9.7),
    source="/sources/base.qcow2",
    source_digest=DIGEST,
    size=1 << 30,
    digest=DIGEST,
    started=datetime(2026, 1, 2, 3, 4, 5, 678000, timezone.utc),
    ended=datetime(2026, 1, 2, 5, 4, 6, tzinfo=timezone(timedelta(hours=2))),
    packages_before=Packages((Package("a", "1", "all", "dpkg"), Package("b", "1", "all", "dpkg")), ("dpkg",)),
    packages=Packages((Package("a", "2", "all", "dpkg"), Package("c", "1", "all", "dpkg")), ("dpkg",), ("odd",)),
    provenance=Provenance("ab" * 32, "cd" * 20, dirty=True),
    variables={"site": "example.org"},
    architecture="amd64",
    problems=("the disk could not be deleted",),
)


def made(result: ImageResult, *secrets: str) -> dict[str, Any]:
    found = manifest(result, versions=VERSIONS, mask=Masker(secrets).mask)
    jsonschema.Draft202012Validator(json_schema(), format_checker=jsonschema.FormatChecker()).validate(found)
    return found


def test_it_tells_everything() -> None:
    assert made(EVERYTHING) == {
        "manifest_version": 1,
        "image": "x",
        "cloud": "local",
        "published": True,
        "verified": None,
        "verdict": {"answer": "publish", "reasons": [], "notes": ["test_b skipped: not today"]},
        "started": "2026-01-02T03:04:05.678Z",
        "ended": "2026-01-02T03:04:06.000Z",
        "versions": VERSIONS,
        "recipe": {"image_yaml_sha256": "ab" * 32, "commit": "cd" * 20, "dirty": True},
        "variables": {"site": "example.org"},
        "source": {"id": "/sources/base.qcow2", "digest": DIGEST, "version": "12.0.1"},
        "disk": {"size": 1 << 30, "digest": DIGEST},
        "artifacts": [
            {"kind": "vhd", "id": "/images/x/x.vhd", "size": 1 << 30, "digest": DIGEST},
            {"kind": "managed-image", "id": "/subscriptions/…", "size": 5, "digest": None},
        ],
        "kept": None,
        "architecture": "amd64",
        "emulator": None,
        "packages": {
            "managers": ["dpkg"],
            "notes": ["odd"],
            "installed": [
                {"name": "a", "version": "2", "architecture": "all", "manager": "dpkg"},
                {"name": "c", "version": "1", "architecture": "all", "manager": "dpkg"},
            ],
            "difference": {
                "added": [{"name": "c", "version": "1", "architecture": "all", "manager": "dpkg"}],
                "removed": [{"name": "b", "version": "1", "architecture": "all", "manager": "dpkg"}],
                "changed": [{"name": "a", "architecture": "all", "manager": "dpkg", "before": "1", "after": "2"}],
            },
        },
        "tests": [
            {
                "id": "images/x/test_a.py::test_a",
                "step": True,
                "outcome": "passed",
                "duration": 0.123,
                "reason": "",
                "writes": [],
            },
            {
                "id": "images/x/test_b.py::test_b",
                "step": False,
                "outcome": "skipped",
                "duration": 0,
                "reason": "not today",
                "writes": ["deleted /etc"],
            },
        ],
        "stages": {"create": 0.5, "digest": 0.1},
        "requests": {"count": 31, "seconds": 0.812, "waited": 9.7},
        "problems": ["the disk could not be deleted"],
    }


def test_what_is_not_known_is_null_and_not_missing() -> None:
    found = made(NOTHING)
    assert found.keys() == made(EVERYTHING).keys()
    assert [name for name, value in found.items() if value is None] == [
        "verified",
        "started",
        "ended",
        "source",
        "disk",
        "kept",
        "architecture",
        "emulator",
        "packages",
        "requests",
    ]


def test_without_a_list_before_there_is_no_difference() -> None:
    assert made(replace(EVERYTHING, packages_before=None))["packages"]["difference"] is None


@pytest.mark.parametrize("answer", Answer)
@pytest.mark.parametrize("outcome", ["passed", "failed", "skipped", "xfailed", "xpassed", "not run"])
def test_the_schema_knows_every_outcome(answer: Answer, outcome: str) -> None:
    made(replace(NOTHING, verdict=Verdict(answer), tests=(TestResult("a", False, outcome, 0.0),)))


def test_the_schema_is_of_its_dialect() -> None:
    schema = json_schema()
    assert schema["$schema"] == DIALECT
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_schema_demands_every_field_and_allows_no_other() -> None:
    schema = json_schema()
    for name, definition in {"Manifest": schema, **schema["$defs"]}.items():
        assert definition["required"] == list(definition["properties"]), name
        assert definition["additionalProperties"] is False, name


def test_the_published_schema_is_up_to_date() -> None:
    published = (ROOT / "docs" / "reference" / "manifest.schema.json").read_text()
    advice = "run: azchroot schema --manifest >docs/reference/manifest.schema.json"
    assert json.loads(published) == json_schema(), advice


def test_the_example_of_the_page_is_one() -> None:
    page = (ROOT / "docs" / "reference" / "manifest.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    jsonschema.validate(json.loads(example), json_schema())


SECRET = "hunter22"
LEAKS = [
    replace(EVERYTHING, name=f"x-{SECRET}"),
    replace(EVERYTHING, verdict=Verdict(Answer.FAIL, (f"vetoed: {SECRET}",), (SECRET,))),
    replace(
        EVERYTHING, tests=(TestResult(f"a[{SECRET}]", False, "skipped", 0.0, f"no {SECRET}", (f"wrote /{SECRET}",)),)
    ),
    replace(EVERYTHING, source=f"/sources/{SECRET}.raw"),
    replace(EVERYTHING, artifacts=(Artifact(SECRET, f"/{SECRET}", 1, DIGEST),)),
    replace(EVERYTHING, variables={"answer": SECRET, "digest": SECRET, "outcome": SECRET}),
    replace(EVERYTHING, problems=(f"repr {SECRET!r}",)),
    replace(EVERYTHING, packages=Packages((Package(SECRET, SECRET, SECRET, "dpkg"),), ("dpkg",), (SECRET,))),
    replace(EVERYTHING, packages_before=Packages((Package(SECRET, SECRET, SECRET, "dpkg"),), ("dpkg",), (SECRET,))),
    replace(EVERYTHING, cloud=SECRET),
]


@pytest.mark.parametrize("result", LEAKS)
def test_no_secret_is_in_it(result: ImageResult) -> None:
    assert SECRET in json.dumps(manifest(result, versions=VERSIONS))
    assert SECRET not in json.dumps(made(result, SECRET))


@pytest.mark.parametrize(
    "secret", ["1073741824", "publish", "pass", "dpkg", "0123456789abcdef", "cdcdcd", "name", "2026"]
)
def test_a_secret_that_is_an_ordinary_word_leaves_it_a_manifest(secret: str) -> None:
    """Sizes, hashes, times and our own words are no secrets; hiding them would tell what the secret is."""
    found = made(EVERYTHING, secret)
    assert found["disk"] == {"size": 1 << 30, "digest": DIGEST}
    assert found["recipe"]["commit"] == "cd" * 20


def test_a_hash_that_is_none_is_masked() -> None:
    """A digest of a stranger's cloud: no secret gets out by calling itself one, even where that costs the manifest."""
    result = replace(EVERYTHING, artifacts=(Artifact("vhd", "/x", 1, SECRET),))
    with pytest.raises(ValueError) as caught:
        manifest(result, versions=VERSIONS, mask=Masker([SECRET]).mask)
    assert SECRET not in str(caught.value)


def test_names_that_are_no_utf8_are_escaped() -> None:
    found = made(replace(EVERYTHING, source="/sources/caf\udce9.raw"))
    assert found["source"]["id"] == "/sources/caf\\udce9.raw"
    json.dumps(found, ensure_ascii=False).encode()
