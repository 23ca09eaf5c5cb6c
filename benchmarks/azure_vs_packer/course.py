"""The course of a build by the calls that it makes: how long each part took, and what nobody can avoid of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .terms import CriticalPath

Call = Mapping[str, Any]
"""A line of the emulator's log."""

PARTS = ("until a disk is asked for", "disk", "device, work in the image", "publication and detach", "deletion, end")
"""Between the calls below. Each but the first contains one part of the critical path."""

_MARKS: Sequence[Callable[[str], bool]] = (
    lambda name: name == "PUT disks",
    lambda name: name in {"POST virtualMachines/attachDetachDataDisks", "PUT virtualMachines"},
    lambda name: name in {"PUT images", "PUT snapshots", "PUT galleries/images/versions"},
    lambda name: name == "DELETE disks",
)


@dataclass(frozen=True)
class Part:
    """One of :data:`PARTS`."""

    name: str
    seconds: float
    least: float
    """What the critical path has for it."""

    def __str__(self) -> str:
        return f"{self.name} {self.seconds:.2f} ({self.seconds - self.least:+.2f})"


def course(calls: Iterable[Call], path: CriticalPath, *, began: float, ended: float) -> list[Part]:
    """The parts of a build; none if one of its calls is missing.

    :param began, ended: when its process did, in the log's own time.
    """
    times = [began, *_times(calls), ended]
    if len(times) != len(PARTS) + 1:
        return []
    least = (0.0, *path.parts)
    return [
        Part(name, after - before, part)
        for name, before, after, part in zip(PARTS, times[:-1], times[1:], least, strict=True)
    ]


def _times(calls: Iterable[Call]) -> Iterator[float]:
    """When each mark was first met, after the one before it."""
    marks = iter(_MARKS)
    mark = next(marks, None)
    for call in calls:
        if mark is not None and mark(str(call["name"])):
            yield float(call["at"])
            mark = next(marks, None)
