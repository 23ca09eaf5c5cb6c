"""Three builds by Packer at once on one machine that refuses overlapping updates.

Packer 1.6.6 reads the machine, adds its disk to the list and puts all of it back, without an etag, and does not wait
for the machine to have it. On a machine where the last update wins, two builds can have one device: what comes out then
is described in docs/reference/emulator-clients.md, and depends on luck.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .packer import (
    SOURCES,
    URN,
    Build,
    assert_built,
    build,
    image_id,
    left_of_builds,
    prepared,
    requirements,
    target,
)
from .stage import COMPUTE, Stage, opened, resources

pytestmark = requirements()

SLOW = {"disks.create": 1.0, "virtualMachines.update": 1.5, "images.create": 1.0}
"""An attach takes long beside what Packer does between its look at the machine and its change of it."""

WAYS: dict[str, dict[str, Any]] = {
    "together": {},
    "one disk": {"unique": False},
    "apart": {"apart": 5.0},
}
"""By whether each has a name of its own for its disk, and by the seconds between them."""


@dataclass(frozen=True)
class Three:
    """Three builds, and the directory of their stage, which has ended."""

    builds: list[Build]
    directory: Path

    @property
    def good(self) -> list[int]:
        """Numbers of those that ended well."""
        return [number for number, made in enumerate(self.builds) if made.ended.status == 0]

    @property
    def images(self) -> list[int]:
        """Numbers of those whose image is there."""
        there = resources(self.directory)
        return [number for number in range(3) if image_id(number) in there]

    @property
    def outputs(self) -> list[str]:
        """Of those that failed."""
        return [made.ended.output for number, made in enumerate(self.builds) if number not in self.good]


def run(stage: Stage, number: int, *, unique: bool, apart: float) -> Build:
    """One of them; it provisions for longer than an attach takes."""
    time.sleep(apart * number)
    builder = {**SOURCES["platform"], **target("image", number)}
    if unique:
        builder["temporary_os_disk_id"] = f"{COMPUTE}/disks/temporary{number}"
    return build(stage, f"build{number}", builder, commands=["sleep 2"], timeout=60)


def three(way: str, directory: Path, image: Path) -> Three:
    """Three builds on a machine of their own."""
    options = {"overlap": "conflict", **WAYS[way]}
    unique, apart = options.pop("unique", True), options.pop("apart", 0.0)
    name = way.replace(" ", "")
    with opened(directory / name, name=name, images={URN: image}, seconds=SLOW, **options) as stage:
        prepared(stage)
        with ThreadPoolExecutor() as pool:
            builds = list(pool.map(lambda number: run(stage, number, unique=unique, apart=apart), range(3)))
    return Three(builds, directory / name)


@pytest.fixture(scope="module")
def found(platform_image: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Three]:
    """What has become of them, by :data:`WAYS`: all at once, for they mostly wait."""
    directory = tmp_path_factory.mktemp("parallel")
    with ThreadPoolExecutor() as pool:
        return dict(zip(WAYS, pool.map(lambda way: three(way, directory, platform_image), WAYS), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_what_ended_well_is_right(found: dict[str, Three], way: str) -> None:
    for number in found[way].good:
        assert_built(found[way].builds[number], image_id(number))
    assert found[way].good == found[way].images


def test_where_overlapping_updates_conflict_the_first_one_alone_gets_through(found: dict[str, Three]) -> None:
    assert len(found["together"].good) == 1
    for output in found["together"].outputs:
        assert "error attaching disk" in output and 'Code="Conflict"' in output
    assert left_of_builds(found["together"].directory) == []


def test_it_tries_three_times_at_once(found: dict[str, Three]) -> None:
    calls = [call for call in found["together"].builds[0].stage.calls() if call["name"] == "PUT virtualMachines"]
    refused = [call for call in calls if call["status"] == 409]
    assert len(refused) == 6 and refused[-1]["at"] - refused[0]["at"] < SLOW["virtualMachines.update"]


def test_in_the_same_second_they_have_one_name_for_their_disks(found: dict[str, Three]) -> None:
    """Unless the three were so far apart that the clock has gone on."""
    names = {
        call["path"].rpartition("/")[2]
        for call in found["one disk"].builds[0].stage.calls()
        if call["name"] == "PUT disks" and "PackerTemp" in call["path"]
    }
    assert len(names) < 3
    assert len(found["one disk"].good) == 1
    assert any("Failed to initiate resource creation" in output for output in found["one disk"].outputs)


def test_a_few_seconds_apart_all_get_through(found: dict[str, Three]) -> None:
    assert found["apart"].good == [0, 1, 2]
    assert left_of_builds(found["apart"].directory) == []
