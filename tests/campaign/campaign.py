"""The campaign: build after build is killed at a moment of its own, and what it leaves is looked at."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_azchroot.disk.outputs import MANIFEST

from . import remains, stages, subject
from .moments import Call, Moment, numbered

OVERWRITE = "--azchroot-overwrite"
PUBLISHED = tuple(f"images/{subject.NAME}/{name}{suffix}" for name in subject.OUTPUTS for suffix in ("", MANIFEST))
SEALED = f"images/{subject.NAME}/{stages.SEALED}"

_DIED = re.compile(r"the sandbox has died|the sandbox did not end well")
_UNEXPLAINED = re.compile(
    r"INTERNALERROR|Traceback \(most recent|^\S*pytest_azchroot/\S+\.py:\d+:|^\S+/contextlib\.py:\d+: ?(\w+Error)?$",
    re.MULTILINE,
)
_PATIENCE = 200
"""Seconds for the tracer, which has less patience itself."""
_MISSES = 3
"""More than kills, of one cell. pytest, Python and the kernel's scheduler may do a thing once more or less in another run."""


@dataclass(frozen=True)
class Cell:
    """What is killed, in which stage, of which kind of build."""

    victim: str
    stage: str
    mode: str = ""
    """``named``: on a file system without O_TMPFILE. ``replacing``: an earlier build has published already."""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.victim, self.stage, self.mode)))

    @property
    def may_leave_partials(self) -> bool:
        """Whether unfinished files may be left, for the next build to remove: where there are none without a name, and
        where what has been finished replaces something, as manifests always do."""
        return self.victim == "caller" and (self.mode != "" or self.stage == "finish")


@dataclass(frozen=True)
class Attack:
    """Kills of one cell."""

    cell: Cell
    moments: Sequence[Moment]
    """To be tried in this order, until it has been killed often enough."""
    kills: int


@dataclass(frozen=True)
class Outcome:
    """What became of a build that was to be killed."""

    moment: Moment
    killed: bool | None
    """None for a build that was not to be."""
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A build under the tracer, ended."""

    report: Mapping[str, Any]
    """As :class:`tests.campaign.tracer.Report`."""
    output: str


def build(directory: Path, *, moment: Moment | None, mode: str, options: Iterable[str] = ()) -> Built:
    """Build the image, and kill at a moment if there is one.

    :raises subprocess.CalledProcessError: the tracer itself has failed.
    :raises subprocess.TimeoutExpired: it did not end, and has been killed, and so has what it traced.
    """
    environment = subject.environment(directory) | ({stages.NAMED: "1"} if mode == "named" else {})
    argv = [sys.executable, "-m", f"{__package__}.tracer", str(moment or "-"), str(directory)]
    with tempfile.TemporaryFile("w+") as file:  # a pipe would be open as long as anybody has it
        subprocess.run(
            [*argv, *subject.command(*options)],
            cwd=subject.REPOSITORY,
            env=environment,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
        )
        file.seek(0)
        output, _, report = file.read().rstrip().rpartition("\n")
    return Built(json.loads(report), output)


def traced(directory: Path, source: Path, *, mode: str) -> list[Call]:
    """The system calls of a build that nobody kills, which has to end well and clean."""
    subject.set_up(directory, source)
    before = remains.files(directory)
    if mode == "replacing":
        build(directory, moment=None, mode=mode)
    built = build(directory, moment=None, mode=mode, options=_options(mode))
    problems = [*_left(directory, built, before, partials=False)]
    problems += [*remains.misstated(_image(directory), _digests(directory)), *_unpublished(directory, built)]
    assert not problems, "\n".join([*problems, built.output])
    shutil.rmtree(directory)
    return numbered(built.report["rows"])


def strike(attacks: Sequence[Attack], *, directory: Path, source: Path) -> dict[Cell, list[Outcome]]:
    """Kill builds of one directory, one after the other, and let the last one end.

    :param attacks: of one mode; of several cells only where none may leave unfinished files.
    """
    subject.set_up(directory, source)
    before = remains.files(directory)
    digests: set[str] = set()
    last = attacks[-1].cell
    if last.mode == "replacing":
        build(directory, moment=None, mode=last.mode)
        digests = _digests(directory)
    outcomes = {attack.cell: _struck_often(attack, directory, before, digests) for attack in attacks}
    moment = Moment(last.victim, Call(last.stage, "", "the build after these", 0), "after")
    outcomes[last].append(Outcome(moment, None, (*_afterwards(last, directory, before),)))
    if not any(each.problems for some in outcomes.values() for each in some):
        shutil.rmtree(directory)
    return outcomes


def _struck_often(attack: Attack, directory: Path, before: frozenset[str], digests: set[str]) -> list[Outcome]:
    cell, outcomes = attack.cell, list[Outcome]()
    missing, missed = attack.kills, 0
    for moment in attack.moments:
        if not missing or missed > attack.kills + _MISSES:
            break
        if cell.mode != "replacing":
            _forget(directory)
        elif outcomes and outcomes[-1].problems:  # else every one after it would have the same
            build(directory, moment=None, mode=cell.mode, options=_options(cell.mode))
        outcomes.append(_struck(cell, moment, directory, before, digests))
        digests |= _digests(directory)
        missing, missed = (missing - 1, missed) if outcomes[-1].killed else (missing, missed + 1)
    return outcomes


def _struck(cell: Cell, moment: Moment, directory: Path, before: frozenset[str], known: set[str]) -> Outcome:
    built = build(directory, moment=moment, mode=cell.mode, options=_options(cell.mode))
    killed = built.report["reached"] and built.report["died"]
    problems = [*_left(directory, built, before, partials=cell.may_leave_partials)]
    problems += remains.misstated(_image(directory), known | _digests(directory))
    problems += _told(cell, built, killed=killed, published=any((directory / name).exists() for name in PUBLISHED))
    return Outcome(moment, killed, tuple(f"{each}\n{built.output}" for each in problems))


def _left(directory: Path, built: Built, before: frozenset[str], *, partials: bool) -> Iterator[str]:
    """What there is that there was not, but for what has been published.

    :param partials: whether unfinished files may be there, which no one takes for an image.
    """
    report = built.report
    yield from (f"process that did not end: {each}" for each in report["left"])
    yield from remains.left_on_machine(directory, report["loops"], report["made"])
    yield from (f"file outside: {each}" for each in remains.strangers(report["made"], directory))
    now = remains.files(directory)
    allowed = {*before, *PUBLISHED, SEALED, *(remains.partials(now) if partials else ())}
    yield from (f"new file: {each}" for each in sorted(now - allowed))
    yield from (f"lost file: {each}" for each in sorted(before - now))


def _told(cell: Cell, built: Built, *, killed: bool, published: bool) -> Iterator[str]:
    """Whether the caller ended as it should: of what it was killed by, or with words."""
    code = built.report["code"]
    if not killed:
        if code != 0:
            yield f"it was not killed and ended with {code}"
        return
    if cell.victim == "caller":
        if code != -9:
            yield f"it ended with {code}"
        return
    if unexplained := _UNEXPLAINED.search(built.output):
        yield f"it says {unexplained.group()}"
    if cell.victim == "tool":  # not all that a build runs is needed for it
        if code not in (0, 1):
            yield f"it ended with {code}"
        return
    if cell.victim == "keeper" and cell.stage != "close" and built.report["holder"] == 0:
        yield "the holder did not die with the keeper"
    if code != 1:
        yield f"it ended with {code}"
    if published:
        yield "it has published"
    if not _DIED.search(built.output):
        yield "it does not say that the sandbox has died"


def _afterwards(cell: Cell, directory: Path, before: frozenset[str]) -> Iterator[str]:
    """Whether the image can be built after all that, and nothing is left then of what was unfinished."""
    there = any((directory / name).exists() for name in PUBLISHED)
    built = build(directory, moment=None, mode=cell.mode, options=[OVERWRITE] if there else [])
    problems = [*_left(directory, built, before, partials=False)]
    problems += [*remains.misstated(_image(directory), _digests(directory)), *_unpublished(directory, built)]
    yield from (f"{each}\n{built.output}" for each in problems)


def _unpublished(directory: Path, built: Built) -> Iterator[str]:
    """What a build that nobody killed did not do."""
    if built.report["code"] != 0:
        yield f"it ended with {built.report['code']}"
    yield from (f"not published: {name}" for name in PUBLISHED if not (directory / name).exists())


def _forget(directory: Path) -> None:
    """Take away what a build has published, so that the next one may; but not what it has left unfinished."""
    for name in (*PUBLISHED, SEALED):
        (directory / name).unlink(missing_ok=True)


def _options(mode: str) -> list[str]:
    return [OVERWRITE] if mode == "replacing" else []


def _image(directory: Path) -> Path:
    return directory / "images" / subject.NAME


def _digests(directory: Path) -> set[str]:
    digest = remains.sealed(_image(directory))
    return {digest} if digest else set()
