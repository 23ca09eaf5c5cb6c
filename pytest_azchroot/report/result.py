"""The whole result of one image, as the hook ``pytest_azchroot_finished`` receives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_azchroot.clouds import Account, Artifact, Kept
from pytest_azchroot.gate import Verdict
from pytest_azchroot.report.packages import Packages
from pytest_azchroot.report.provenance import Provenance


@dataclass(frozen=True)
class TestResult:
    """How one test of the image ended."""

    __test__ = False

    nodeid: str
    step: bool
    outcome: str
    """``passed``, ``failed``, ``skipped``, ``xfailed``, ``xpassed`` or ``not run``."""
    duration: float
    """Seconds, setup and teardown included."""
    reason: str = ""
    writes: tuple[str, ...] = ()
    """What a check wrote outside of the volatile directories, and so kept the image from being published."""


@dataclass(frozen=True)
class ImageResult:
    """What became of one image."""

    name: str
    path: Path
    cloud: str
    verdict: Verdict
    published: bool
    artifacts: tuple[Artifact, ...]
    tests: tuple[TestResult, ...]
    stages: Mapping[str, float]
    """Seconds by stage."""
    source: str | None = None
    """What the disk was made from; None where none was made."""
    problems: tuple[str, ...] = ()
    """What went wrong after the verdict, while releasing the disk or writing the manifest."""
    source_digest: str | None = None
    """The payload digest of the source; None where it was not taken."""
    size: int | None = None
    """Bytes of the disk; None where none was made."""
    digest: str | None = None
    """The payload digest of the closed disk; None where it was not closed, or not taken."""
    started: datetime | None = None
    """When its disk was made; None where none was."""
    ended: datetime | None = None
    packages_before: Packages | None = None
    """Those of the source, before the first step; None where there was no source, or nobody looked."""
    packages: Packages | None = None
    """Those of the image as it was closed."""
    provenance: Provenance = field(default_factory=lambda: Provenance(None))
    variables: Mapping[str, str] = field(default_factory=dict)
    """Those of image.yaml; of sensitive ones the value is masked."""
    verified: bool | None = None
    """Whether an image that was there already passed all checks (``--azchroot-verify``); None where one was built."""
    kept: Kept | None = None
    """The disk that was kept for people to look at."""
    architecture: str | None = None
    """Debian's name of what its programs are for: ``amd64``, ``arm64``; None where it has none."""
    emulator: str | None = None
    """What ran them, if this machine could not itself: the path of a user-mode emulator."""
    source_version: str | None = None
    """The version of the source, ``latest`` resolved; None where it has none."""
    account: Account | None = None
    """What it asked of its cloud; None where nobody counts."""
    manifests: tuple[Path, ...] = ()
    """Where its manifest was written."""

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        data = asdict(self)
        data["path"] = str(self.path)
        data["verdict"]["answer"] = self.verdict.answer.value
        data["manifests"] = [str(path) for path in self.manifests]
        for name in ("started", "ended"):
            data[name] = None if data[name] is None else data[name].isoformat()
        return data
