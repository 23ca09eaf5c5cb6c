"""What the benchmark says of numbers. The numbers themselves are not for a test."""

from __future__ import annotations

import pytest

from benchmarks.azure_vs_packer.course import course
from benchmarks.azure_vs_packer.report import OURS, PACKER, Comparison, Run
from benchmarks.azure_vs_packer.terms import HINTED, IMAGE, PLAIN, PROFILE, VERSION, Terms, critical_path
from pytest_azchroot.emulator.settings import Profile


@pytest.mark.parametrize(("published", "seconds"), [(IMAGE, 9.9), (VERSION, 12.9)])
def test_critical_path_is_that_of_the_profile(published: str, seconds: float) -> None:
    path = critical_path(PROFILE, published)
    assert path.seconds == pytest.approx(seconds)
    assert path.formula.endswith(f"= {seconds:g} s")


def test_the_disk_is_deleted_when_it_is_detached_and_published() -> None:
    slow = Profile({"virtualMachines.attachDetach": 10, "images.create": 5, "disks.delete": 1})
    assert critical_path(slow, IMAGE).seconds == pytest.approx(8 + 10 + 1)


def runs(packer: float, ours: float) -> list[Run]:
    """Three of each, with these medians."""
    walls = {PACKER: packer, OURS: ours}
    return [Run(tool, IMAGE, "", wall + by) for tool, wall in walls.items() for by in (-1, 0, 5)]


@pytest.mark.parametrize(
    ("terms", "packer", "ours", "missed"),
    [
        (PLAIN, 15.2, 11.38, []),
        (PLAIN, 14.0, 11.38, ["of Packer's time: 0.81 (at most 0.75: MISSED)"]),
        (PLAIN, 20.0, 12.0, ["of the critical path: 1.21 (at most 1.15: MISSED)"]),
        (HINTED, 12.0, 12.6, []),
        (HINTED, 12.0, 12.8, ["of Packer's time: 1.07 (at most 1.05: MISSED)"]),
    ],
)
def test_medians_are_held_against_the_targets(terms: Terms, packer: float, ours: float, missed: list[str]) -> None:
    found = Comparison(terms, PROFILE, IMAGE, runs(packer, ours))
    assert found.failures == [f"{terms.name}, managed image: {each}" for each in missed]


def test_a_wrong_image_is_a_failure_and_its_time_counts_for_nothing() -> None:
    found = Comparison(
        PLAIN, PROFILE, IMAGE, [*runs(16, 11), Run(OURS, IMAGE, "id", 0.1, failure="id is not as it should be")]
    )
    assert found.failures == ["no Retry-After, managed image: azchroot: id is not as it should be"]
    assert found.wall(OURS) == 11


def test_where_no_run_was_right_there_is_nothing_to_compare() -> None:
    found = Comparison(PLAIN, PROFILE, IMAGE, [Run(OURS, IMAGE, "id", 0.1, failure="wrong")])
    assert found.targets == []
    assert len(found.failures) == 1 and list(found.lines())


def test_the_course_of_a_build_shows_what_is_beyond_the_critical_path() -> None:
    names = ["PUT disks", "GET DiskOperations", "POST virtualMachines/attachDetachDataDisks", "PUT images"]
    names += ["POST virtualMachines/attachDetachDataDisks", "DELETE disks", "GET DiskOperations"]
    times = [11, 12, 13.5, 17, 17.1, 22.5, 23]
    calls = [{"name": name, "at": at} for name, at in zip(names, times, strict=True)]
    parts = course(calls, critical_path(PROFILE, IMAGE), began=10, ended=23.25)
    assert [part.seconds for part in parts] == [1, 2.5, 3.5, 5.5, 0.75]
    assert [str(part) for part in parts][1:3] == ["disk 2.50 (+0.50)", "device, work in the image 3.50 (+1.10)"]
    assert course(calls[:5], critical_path(PROFILE, IMAGE), began=10, ended=18) == []
