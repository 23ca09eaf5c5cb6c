"""The timeline adds up, and the words for durations are a person's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from pytest_azchroot.report.timeline import Timeline, seconds


def ticking() -> Iterator[float]:
    """A clock that goes on by a second whenever it is asked."""
    return map(float, count())


def test_a_stage_takes_what_its_clock_says() -> None:
    clock = ticking()
    timeline = Timeline("x", clock=lambda: next(clock))
    with timeline.stage("mount"):
        pass
    with timeline.stage("mount"):
        pass
    timeline.add("steps", 3.5)
    assert timeline.stages == {"mount": 2.0, "steps": 3.5}


def test_a_stage_that_fails_is_timed_too() -> None:
    clock = ticking()
    timeline = Timeline("x", clock=lambda: next(clock))
    with pytest.raises(ZeroDivisionError), timeline.stage("mount"):
        raise ZeroDivisionError
    assert timeline.stages == {"mount": 1.0}


def test_a_stage_within_a_stage_counts_once() -> None:
    clock = ticking()
    timeline = Timeline("x", clock=lambda: next(clock))
    with timeline.stage("close"), timeline.stage("digest"):
        pass
    assert list(timeline.stages.items()) == [("close", 2.0), ("digest", 1.0)]


def test_a_watcher_hears_begin_and_end() -> None:
    heard: list[str] = []

    class Watcher:
        def begin(self, image: str, stage: str) -> None:
            heard.append(f"{image} {stage}")

        def end(self) -> None:
            heard.append("end")

    timeline = Timeline("x", Watcher())
    with timeline.stage("pre_mount_commands", detail="sfdisk"):
        pass
    assert heard == ["x sfdisk", "end"]


@pytest.mark.parametrize(("spent", "words"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (41.2, "41 s"), (200.4, "3 min 20 s")])
def test_durations(spent: float, words: str) -> None:
    assert seconds(spent) == words
