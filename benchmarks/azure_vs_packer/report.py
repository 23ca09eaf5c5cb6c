"""What the contest has shown: medians, their ratio, and what was missed. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, median_low

from pytest_azchroot.emulator.settings import Profile

from .course import Part
from .terms import IMAGE, Terms, critical_path

PACKER, OURS = "packer", "azchroot"
WHAT = {IMAGE: "managed image"}


@dataclass(frozen=True)
class Run:
    """One program, from its start to its end."""

    tool: str
    published: str
    artifact: str
    """The id of what it was to publish."""
    seconds: float
    processor: float = 0.0
    """Seconds of processor time, of all its processes: what a busy machine does not change much."""
    failure: str = ""
    """What is wrong with it; empty: its image is as it should be."""
    calls: Counter[str] = field(default_factory=Counter)
    """Requests to Azure, by name."""
    course: Sequence[Part] = ()
    """Where its time went, by its calls."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """The same by its own account, in seconds, if it gives one."""


@dataclass(frozen=True)
class Target:
    """What a number must not exceed."""

    what: str
    value: float
    most: float

    @property
    def missed(self) -> bool:
        """As printed: with two digits."""
        return round(self.value, 2) > self.most

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.2f} (at most {self.most:g}{': MISSED' if self.missed else ''})"


@dataclass(frozen=True)
class Comparison:
    """All runs of both on the same terms that were to publish the same."""

    terms: Terms
    profile: Profile
    published: str
    runs: Sequence[Run]

    def of(self, tool: str) -> list[Run]:
        """The runs of one of them that made the image that they were to make: how fast it fails is of no interest."""
        return [run for run in self.runs if run.tool == tool and not run.failure]

    def wall(self, tool: str) -> float:
        """The median of its wall times."""
        return median(run.seconds for run in self.of(tool))

    @property
    def targets(self) -> list[Target]:
        """What is to be reached, as far as there are numbers for it."""
        found = []
        if self.of(PACKER) and self.of(OURS):
            ratio = self.wall(OURS) / self.wall(PACKER)
            found.append(Target("of Packer's time", ratio, self.terms.ratios[self.published]))
        if self.of(OURS) and self.terms.distance is not None:
            shortest = critical_path(self.profile, self.published).seconds
            found.append(Target("of the critical path", self.wall(OURS) / shortest, self.terms.distance))
        return found

    @property
    def failures(self) -> list[str]:
        """What is wrong, in a line each."""
        where = f"{self.terms.name}, {WHAT.get(self.published, 'gallery version')}"
        broken = [f"{where}: {run.tool}: {run.failure}" for run in self.runs if run.failure]
        return broken + [f"{where}: {target}" for target in self.targets if target.missed]

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{WHAT.get(self.published, 'gallery version')}, {self.terms.name}"
        for tool in (PACKER, OURS):
            if runs := self.of(tool):
                each = " ".join(f"{run.seconds:.2f}" for run in runs)
                typical = _typical(runs)
                rest = f"processor {typical.processor:.2f} s, {typical.calls.total()} calls"
                yield f"  {tool:8} {self.wall(tool):6.2f} s   of {each};   {rest}"
        yield f"  critical path: {critical_path(self.profile, self.published).formula}"
        yield from (f"  {target}" for target in self.targets)
        for tool in (PACKER, OURS):
            if runs := self.of(tool):
                yield from _details(_typical(runs))


def _details(run: Run) -> Iterator[str]:
    yield f"  calls of {run.tool}: {', '.join(f'{n} {name}' for name, n in run.calls.most_common())}"
    if run.course:
        yield f"  course of {run.tool}, and beyond the critical path: {', '.join(map(str, run.course))}"
    if run.stages:
        split = ", ".join(f"{name} {spent:.2f}" for name, spent in run.stages.items())
        yield f"  stages of {run.tool}: {split}; outside of them {run.seconds - sum(run.stages.values()):.2f} s"


def _typical(runs: Sequence[Run]) -> Run:
    """The one with the median time."""
    middle = median_low(run.seconds for run in runs)
    return next(run for run in runs if run.seconds == middle)
