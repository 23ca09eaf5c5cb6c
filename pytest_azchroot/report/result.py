"""The whole result of one image, as the hook ``pytest_azchroot_finished`` receives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_azchroot.clouds import Artifact
from pytest_azchroot.gate import Verdict


@dataclass(frozen=True)
class TestResult:
    """How one test of the image ended."""

    nodeid: str
    step: bool
    outcome: str
    """``passed``, ``failed``, ``skipped``, ``xfailed``, ``xpassed`` or ``not run``."""
    duration: float
    """Seconds, setup and teardown included."""
    reason: str = ""


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
    """What went wrong after the verdict, while releasing the disk."""

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        data = asdict(self)
        data["path"] = str(self.path)
        data["verdict"]["answer"] = self.verdict.answer.value
        return data
