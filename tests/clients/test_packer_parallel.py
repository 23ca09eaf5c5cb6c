"""Three builds by Packer at once on one machine that refuses overlapping updates.

Packer 1.6.6 reads the machine, adds its disk to the list and puts all of it back, without an etag, and does not wait
for the machine to have it. On a machine where the last update wins, two builds can have one device: what comes out then
is described in docs/reference/emulator-clients.md, and depends on luck.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from .stage import COMPUTE, MACHINE, Stage, opened, resources

pytestmark = requirements()

BUILDS = range(3)
LONG = 6.0
"""Seconds for an attach: more than Packers that are started at once are ever apart."""


def run(stage: Stage, number: int, *outside: str) -> Build:
    """One of them, whose disk has a name of its own."""
    disk = {"temporary_os_disk_id": f"{COMPUTE}/disks/temporary{number}"}
    builder = {**SOURCES["platform"], **target("image", number), **disk}
    return build(stage, f"build{number}", builder, outside=outside)


def settled(holds: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def data_disks(stage: Stage) -> list[dict[str, Any]] | None:
    """The machine's; None while it is being updated."""
    found = stage.ask("GET", MACHINE)["properties"]
    disks: list[dict[str, Any]] = found["storageProfile"]["dataDisks"]
    return disks if found["provisioningState"] == "Succeeded" else None


@pytest.fixture(scope="module")
def together(platform_image: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Build]:
    """Started at once; the one that gets a disk waits until the machine has it."""
    directory = tmp_path_factory.mktemp("together")
    options: dict[str, Any] = {"overlap": "conflict", "seconds": {"virtualMachines.update": LONG}}
    with opened(directory, name="together", images={URN: platform_image}, **options) as stage:
        prepared(stage)
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda number: run(stage, number, f"sleep {LONG}"), BUILDS))


def test_the_first_one_alone_gets_through(together: list[Build]) -> None:
    good = [number for number in BUILDS if together[number].ended.status == 0]
    assert len(good) == 1, "".join(made.log for made in together)
    assert_built(together[good[0]], image_id(good[0]))
    there = resources(together[0].stage.directory)
    assert [number for number in BUILDS if image_id(number) in there] == good


def test_the_others_try_three_times_and_clean_up(together: list[Build]) -> None:
    for made in together:
        if made.ended.status != 0:
            assert "error attaching disk" in made.ended.output and 'Code="Conflict"' in made.ended.output
    calls = [call["status"] for call in together[0].stage.calls() if call["name"] == "PUT virtualMachines"]
    assert calls.count(409) == 6 and calls.count(200) == 2
    assert left_of_builds(together[0].stage.directory) == []


def test_taking_turns_all_get_through(platform_image: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """All three have their disks at once; no attach or detach begins before the last one is done."""
    directory = tmp_path_factory.mktemp("turns")
    luns: list[int] = []
    with opened(directory, name="turns", images={URN: platform_image}, overlap="conflict") as stage:
        prepared(stage)
        with ThreadPoolExecutor() as pool:
            running = []
            for number in BUILDS:
                attached, go = directory / f"attached{number}", directory / f"go{number}"
                commands = (f"touch {attached}", f"until test -e {go}; do sleep 0.1; done")
                running.append(pool.submit(run, stage, number, *commands))
                settled(attached.exists)
                settled(lambda: data_disks(stage) is not None)
            luns += [disk["lun"] for disk in data_disks(stage) or []]
            for number in BUILDS:
                (directory / f"go{number}").touch()
                running[number].result()
    assert luns == [0, 1, 2]
    for number in BUILDS:
        assert_built(running[number].result(), image_id(number))
    assert left_of_builds(directory) == []
