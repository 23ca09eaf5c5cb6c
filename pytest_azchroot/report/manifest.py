"""The manifest: what an image is made of and what was found out about it, as data that outlives the run. Pure.

The classes are the format; its JSON Schema is made of them. A field that is not known is null and never missing, so
that a reader need not ask twice. New fields may come within a version; what is there keeps its meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pytest_azchroot.clouds import Account
from pytest_azchroot.disk.digest import PATTERN
from pytest_azchroot.report import packages as lists
from pytest_azchroot.report.result import ImageResult

DIALECT = "https://json-schema.org/draft/2020-12/schema"
VERSION = 1

Digest = Annotated[str, Field(pattern=f"^{PATTERN.pattern}$")]
Seconds = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Versions(_Record):
    """What built the image."""

    pytest_azchroot: str
    pytest: str
    python: str


class Recipe(_Record):
    """Where the suite comes from."""

    image_yaml_sha256: str | None
    """SHA-256 of the bytes of image.yaml, hexadecimal."""
    commit: str | None
    """The git commit of the image's directory; null where it is in no repository that git trusts."""
    dirty: bool | None
    """Whether the directory differed from that commit, by changed files or by new ones."""


class Source(_Record):
    """What the disk was made from."""

    id: str
    """A path, a resource id, or `scratch`."""
    digest: Digest | None
    """Its payload digest, as `azchroot digest` prints it; null where it was not taken."""
    version: str | None
    """Its version, `latest` resolved; null where it has none."""


class Disk(_Record):
    """The disk as it was closed after the last step and check."""

    size: Bytes
    """Bytes that a machine sees."""
    digest: Digest | None
    """Its payload digest; null where it was not closed, or not taken as nothing could be published any more."""


class Artifact(_Record):
    """Something that was published."""

    kind: str
    """`vhd`, `raw`, `vhdx`, `qcow2`, or what else the cloud makes."""
    id: str
    """A path or a resource id."""
    size: Bytes
    """Bytes of the disk in it."""
    digest: Digest | None
    """The payload digest of the disk in it; `azchroot digest` computes it again."""


class Package(_Record):
    """An installed package."""

    name: str
    version: str
    """As its manager writes it, with epoch and release."""
    architecture: str
    manager: str
    """`dpkg`, `apk` or `rpm`."""


class Change(_Record):
    """A package of which another version is installed."""

    name: str
    architecture: str
    manager: str
    before: str
    after: str


class Changes(_Record):
    """What became of the source's packages."""

    added: list[Package]
    removed: list[Package]
    changed: list[Change]


class Packages(_Record):
    """The packages of the image as it was closed."""

    managers: list[str]
    """Those that keep a list in the image; empty where none was found."""
    notes: list[str]
    """What is missing in the list, or odd about it."""
    installed: list[Package]
    difference: Changes | None
    """From the source, as it was before the first step; null where there was no source."""


class Test(_Record):
    """A test of the image."""

    id: str
    """pytest's node id."""
    step: bool
    """Whether it was marked `provision`, so that it may have changed the image."""
    outcome: Literal["passed", "failed", "skipped", "xfailed", "xpassed", "not run"]
    duration: Seconds
    """Seconds, setup and teardown included."""
    reason: str
    """Why it was skipped, or expected to fail."""
    writes: list[str]
    """What a check wrote outside of the volatile directories; empty also where such writes are discarded."""


class Verdict(_Record):
    """What the gate said."""

    answer: Literal["publish", "skip", "fail"]
    reasons: list[str]
    """Why the image was not published; empty where it was."""
    notes: list[str]
    """What does not keep an image from being published but should be known: skipped and xfailed tests."""


class Requests(_Record):
    """What the image asked of its cloud."""

    count: int
    seconds: Seconds
    """Until they were answered, all together; some ran side by side."""
    waited: Seconds
    """Seconds in which the build did nothing but wait for an operation to end."""


class Manifest(_Record):
    """What an image is made of and what was found out about it."""

    manifest_version: Literal[1]
    image: str
    """The name of its directory."""
    cloud: str
    published: bool
    verified: bool | None
    """Whether an image that was there already passed all checks (`--azchroot-verify`); null where one was built."""
    verdict: Verdict
    started: Time | None
    """When its disk was made (RFC 3339, UTC); null where none was made."""
    ended: Time | None
    """When everything of it was released."""
    versions: Versions
    recipe: Recipe
    variables: dict[str, str]
    """The variables of image.yaml; sensitive values are `***`."""
    source: Source | None
    """Null where no disk was made."""
    disk: Disk | None
    """Null where none was made."""
    artifacts: list[Artifact]
    kept: str | None
    """The path or resource id of the disk that was kept for people to look at; null where none was."""
    architecture: str | None
    """What its programs are for, as Debian calls it: `amd64`, `arm64`; null where it has none."""
    emulator: str | None
    """What ran them, if the build machine could not itself: the path of a user-mode emulator."""
    packages: Packages | None
    """Null where nobody looked: the image was not closed, or could not be published any more."""
    tests: list[Test]
    """In the order in which they ran."""
    stages: dict[str, Seconds]
    """Where the time went."""
    requests: Requests | None
    """Null where the cloud is this machine."""
    problems: list[str]
    """What went wrong after the verdict, while releasing the disk."""


_OURS = frozenset({"manifest_version", "answer", "outcome", "started", "ended", "manager", "managers"})
"""Fields whose values are of our own few words: a secret that is one of them is not told by it."""
_HASHES = frozenset({"digest", "commit", "image_yaml_sha256"})
_HASH = re.compile(rf"{PATTERN.pattern}|[0-9a-f]{{40}}|[0-9a-f]{{64}}")


def manifest(result: ImageResult, *, versions: Mapping[str, str], mask: Callable[[str], str] = str) -> dict[str, Any]:
    """The manifest of an image.

    :param versions: of what built it, by the names of :class:`Versions`.
    :param mask: takes secrets out of a text. Every text goes through it that is not one of our own words or a hash.
    """
    data = {
        "manifest_version": VERSION,
        "image": result.name,
        "cloud": result.cloud,
        "published": result.published,
        "verified": result.verified,
        "verdict": {
            "answer": result.verdict.answer.value,
            "reasons": [*result.verdict.reasons],
            "notes": [*result.verdict.notes],
        },
        "started": _time(result.started),
        "ended": _time(result.ended),
        "versions": dict(versions),
        "recipe": {
            "image_yaml_sha256": result.provenance.config_sha256,
            "commit": result.provenance.commit,
            "dirty": result.provenance.dirty,
        },
        "variables": dict(result.variables),
        "source": None if result.source is None else _source(result),
        "disk": None if result.size is None else {"size": result.size, "digest": result.digest},
        "artifacts": [
            {"kind": each.kind, "id": each.id, "size": each.size, "digest": each.digest} for each in result.artifacts
        ],
        "kept": result.kept.id if result.kept else None,
        "architecture": result.architecture,
        "emulator": result.emulator,
        "packages": None if result.packages is None else _packages(result.packages_before, result.packages),
        "tests": [
            {
                "id": test.nodeid,
                "step": test.step,
                "outcome": test.outcome,
                "duration": round(test.duration, 3),
                "reason": test.reason,
                "writes": [*test.writes],
            }
            for test in result.tests
        ],
        "stages": {name: round(spent, 3) for name, spent in result.stages.items()},
        "requests": None if result.account is None else _requests(result.account),
        "problems": [*result.problems],
    }
    return Manifest.model_validate(_masked(data, mask)).model_dump(mode="json")


def _source(result: ImageResult) -> dict[str, Any]:
    return {"id": result.source, "digest": result.source_digest, "version": result.source_version}


def _requests(account: Account) -> dict[str, Any]:
    return {
        "count": account.requests,
        "seconds": round(account.seconds, 3),
        "waited": round(account.waited, 3),
    }


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a manifest, draft 2020-12."""
    schema = Manifest.model_json_schema(mode="serialization")
    return {"$schema": DIALECT, **_untitled(schema), "title": "manifest of pytest-azchroot"}


def _time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _packages(before: lists.Packages | None, after: lists.Packages) -> dict[str, Any]:
    return {
        "managers": [*after.managers],
        "notes": [*after.notes, *(f"before the first step: {note}" for note in (before.notes if before else ()))],
        "installed": _listed(after.packages),
        "difference": None if before is None else _changes(lists.difference(before.packages, after.packages)),
    }


def _listed(packages: Iterable[lists.Package]) -> list[dict[str, str]]:
    return [
        {"name": each.name, "version": each.version, "architecture": each.architecture, "manager": each.manager}
        for each in packages
    ]


def _changes(found: lists.Difference) -> dict[str, Any]:
    return {
        "added": _listed(found.added),
        "removed": _listed(found.removed),
        "changed": [
            {
                "name": new.name,
                "architecture": new.architecture,
                "manager": new.manager,
                "before": old.version,
                "after": new.version,
            }
            for old, new in found.changed
        ],
    }


def _masked(value: Any, mask: Callable[[str], str], name: str = "") -> Any:
    if isinstance(value, dict):
        # In `variables` the keys are the user's, and none of the fields with an exception.
        inner = {key: "variables" if name == "variables" else key for key in value}
        return {key: _masked(each, mask, inner[key]) for key, each in value.items()}
    if isinstance(value, list):
        return [_masked(each, mask, name) for each in value]
    if not isinstance(value, str) or name in _OURS or (name in _HASHES and _HASH.fullmatch(value)):
        return value
    # A name of a file need not be UTF-8, and JSON must be: what cannot be written becomes an escape.
    return mask(value).encode("utf-8", errors="backslashreplace").decode()


def _untitled(value: Any) -> Any:
    """Without the titles that pydantic makes of names, and with descriptions as one paragraph."""
    if isinstance(value, list):
        return [_untitled(each) for each in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _untitled(each) for key, each in value.items() if not (key == "title" and isinstance(each, str))}
    if isinstance(plain.get("description"), str):
        plain["description"] = " ".join(plain["description"].split())
    return plain
