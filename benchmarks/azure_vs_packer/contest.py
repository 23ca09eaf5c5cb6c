"""Both of them, by turns, on a stage; then what is in the images that they have made."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.clients import packer
from tests.clients.packer import DEFINITION, SOURCES, URN, Build, assert_built, image_id, left_of_builds, version_id
from tests.clients.stage import Stage, opened

from . import suite
from .course import course
from .report import PACKER, Run
from .terms import IMAGE, PROFILE, Terms, critical_path


@dataclass(frozen=True)
class Contest:
    """Some rounds on the same terms."""

    terms: Terms
    rounds: int
    published: Sequence[str]
    tools: Sequence[str]

    def run(self, directory: Path, image: Path, *, say: Callable[[str], None]) -> list[Run]:
        """All rounds, by turns, on one emulator.

        :param image: the platform image.
        :param say: told of each run when it has ended.
        """
        made: list[tuple[Run, Build]] = []
        with opened(directory, name="bench", images={URN: image}, **_options(self.terms)) as stage:
            _prepare(stage)
            for number in range(self.rounds):
                for published in self.published:
                    for tool in self.tools:
                        run, build = _run(stage, tool, published, len(made))
                        made.append((run, build))
                        say(f"{self.terms.name}, round {number + 1}: {tool}, {published}: {run.seconds:.2f} s")
        runs = [replace(run, failure=_wrong(run, build)) for run, build in made]
        left = left_of_builds(directory)
        if left:
            runs[-1] = replace(runs[-1], failure=f"{runs[-1].failure} these builds have left {', '.join(left)}".strip())
        return runs


def _options(terms: Terms) -> dict[str, Any]:
    """Of the emulator, for both alike."""
    found: dict[str, Any] = {"seconds": dict(PROFILE.seconds), "request": PROFILE.request}
    return found if terms.retry_after is None else {**found, "retry_after": terms.retry_after}


def _prepare(stage: Stage) -> None:
    """A gallery, and a definition in it."""
    identifier = {"publisher": "azchroot", "offer": "debian", "sku": "12"}
    definition = {"osType": "Linux", "osState": "Generalized", "hyperVGeneration": "V1", "identifier": identifier}
    for id_, properties in ((DEFINITION.rpartition("/images/")[0], {}), (DEFINITION, definition)):
        stage.ask("PUT", id_, {"location": "westus2", "properties": properties})


def _run(stage: Stage, tool: str, published: str, number: int) -> tuple[Run, Build]:
    name, before = f"{tool}-{published}-{number}", len(stage.calls())
    processor, began = _processor(), time.time()
    if tool == PACKER:
        made = packer.build(stage, name, {**SOURCES["platform"], **packer.target(published, number)})
    else:
        made = suite.build(stage, name, published, number)
    ended, processor = time.time(), _processor() - processor
    zero, calls = _zero(stage), stage.calls()[before:]
    parts = course(calls, critical_path(PROFILE, published), began=began - zero, ended=ended - zero)
    artifact = (image_id if published == IMAGE else version_id)(number)
    return Run(
        tool,
        published,
        artifact,
        made.ended.seconds,
        processor,
        calls=Counter(str(call["name"]) for call in calls),
        course=parts,
        stages={} if tool == PACKER else suite.stages(made),
    ), made


def _processor() -> float:
    """Seconds that all programs had which have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _zero(stage: Stage) -> float:
    """When the log's own time began: its last line was written when its call ended."""
    last = stage.calls()[-1]
    written = (stage.directory / "azure/calls.jsonl").stat().st_mtime
    return written - float(last["at"]) - float(last["ms"]) / 1000


def _wrong(run: Run, made: Build) -> str:
    """What is wrong with an image, going by its bytes; nothing if it is as it should be."""
    try:
        assert_built(made, run.artifact)
    except (AssertionError, KeyError) as error:
        return f"{run.artifact} is not as it should be ({type(error).__name__})\n{made.log}"
    return ""
