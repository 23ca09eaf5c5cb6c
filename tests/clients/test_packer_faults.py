"""What Packer makes of a service that fails: it gives up or goes on as it does on Azure, and what it leaves is known."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
    version_id,
)
from .stage import opened, resources

pytestmark = requirements()

TEMPORARY = "*/packertemp*"
"""What Packer makes, and not what was there before."""
NO_LUCK: dict[str, Any] = {"code": "InternalExecutionError", "message": "no luck"}
DETACH_TAKES = 4.0
WAITING = "detach to complete"
"""What Packer says when it begins to ask, every second for 15 minutes, whether the machine has let go of a disk."""


@dataclass(frozen=True)
class Case:
    """What goes wrong, and where Packer builds to."""

    rules: tuple[dict[str, Any], ...] = ()
    place: str = "image"
    timeout: float = 120
    until: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    commands: tuple[str, ...] = ()


CASES = {
    "disk refused": Case(({"call": "PUT disks", "resource": TEMPORARY, "status": 500, "retry_after": 1},)),
    "disk refused once": Case(
        ({"call": "PUT disks", "resource": TEMPORARY, "nth": 1, "status": 500, "retry_after": 1},)
    ),
    "disk not made": Case(({"operation": "disks.create", "resource": TEMPORARY, **NO_LUCK},)),
    "attach refused": Case(({"call": "PUT virtualMachines", "status": 409, "code": "AttachDiskWhileBeingDetached"},)),
    "attach refused once": Case(({"call": "PUT virtualMachines", "nth": 1, "status": 409, "code": "Conflict"},)),
    "detach takes long": Case(({"operation": "virtualMachines.update", "nth": 2, "delay": DETACH_TAKES},)),
    "detach fails": Case(({"operation": "virtualMachines.update", "nth": 2, **NO_LUCK},), until=WAITING),
    "in use": Case(commands=("sleep 60 > /dev/null 2>&1 < /dev/null &",), until=WAITING),
    "image not made": Case(({"operation": "images.create", **NO_LUCK},)),
    "snapshot not made": Case(({"operation": "snapshots.create", **NO_LUCK},), place="version"),
    "version not made": Case(({"operation": "versions.create", "resource": "*/2.0.0", **NO_LUCK},), place="version"),
    "metadata limited": Case(({"call": "GET /metadata/instance*", "nth": 6, "status": 429},)),
}


@dataclass(frozen=True)
class Outcome:
    """A build, and what is left on its stage, which has ended."""

    made: Build
    directory: Path

    @property
    def left(self) -> list[str]:
        """Disks, snapshots, and what is attached, without their numbers, which are the time."""
        return [name.rpartition("-")[0] for name in left_of_builds(self.directory)]

    @property
    def attached(self) -> list[dict[str, Any]]:
        """The machine's data disks."""
        machine = next(each for each in resources(self.directory).values() if each.kind == "virtualmachines")
        found: list[dict[str, Any]] = machine.properties["storageProfile"]["dataDisks"]
        return found

    def state(self, id_: str) -> str | None:
        """``provisioningState`` of a resource."""
        found = resources(self.directory).get(id_)
        return None if found is None else str(found.properties["provisioningState"])

    def statuses(self, name: str) -> list[int]:
        """Of the calls of one kind for what Packer made, in their order."""
        calls = [call for call in self.made.stage.calls() if call["name"] == name]
        return [call["status"] for call in calls if "PackerTemp" in call["path"] or "virtualMachines" in call["path"]]


def outcome(case: Case, name: str, directory: Path, image: Path) -> Outcome:
    """A build on a machine of its own."""
    name = name.replace(" ", "")
    with opened(directory / name, name=name, images={URN: image}, faults=list(case.rules), **case.options) as stage:
        prepared(stage)
        builder = {**SOURCES["platform"], **target(case.place)}
        made = build(stage, name, builder, commands=case.commands, timeout=case.timeout, until=case.until)
    return Outcome(made, directory / name)


@pytest.fixture(scope="module")
def found(platform_image: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What becomes of each."""
    directory = tmp_path_factory.mktemp("faults")
    with ThreadPoolExecutor(max_workers=4) as pool:
        outcomes = pool.map(lambda name: outcome(CASES[name], name, directory, platform_image), CASES)
        return dict(zip(CASES, outcomes, strict=True))


def test_a_disk_that_is_refused_is_asked_for_four_times(found: dict[str, Outcome]) -> None:
    refused = found["disk refused"]
    assert refused.made.ended.status == 1 and "Failed to initiate resource creation" in refused.made.ended.output
    assert refused.statuses("PUT disks") == [500] * 4 and refused.left == []


def test_a_disk_that_is_refused_once(found: dict[str, Outcome]) -> None:
    refused = found["disk refused once"]
    assert_built(refused.made, image_id())
    assert refused.statuses("PUT disks") == [500, 202] and refused.left == []


def test_a_disk_that_is_not_made_is_deleted(found: dict[str, Outcome]) -> None:
    failed = found["disk not made"]
    assert failed.made.ended.status == 1 and "no luck" in failed.made.ended.output
    assert failed.statuses("DELETE disks") == [202] and failed.left == []


def test_an_attach_that_is_refused(found: dict[str, Outcome]) -> None:
    refused = found["attach refused"]
    assert refused.made.ended.status == 1 and 'Code="AttachDiskWhileBeingDetached"' in refused.made.ended.output
    assert refused.statuses("PUT virtualMachines") == [409] * 3 and refused.left == []


def test_an_attach_that_is_refused_once(found: dict[str, Outcome]) -> None:
    refused = found["attach refused once"]
    assert_built(refused.made, image_id())
    assert refused.statuses("PUT virtualMachines") == [409, 200, 200] and refused.left == []


def test_it_waits_for_a_detach(found: dict[str, Outcome]) -> None:
    slow = found["detach takes long"]
    assert_built(slow.made, image_id())
    assert slow.made.ended.seconds > DETACH_TAKES
    assert slow.statuses("DELETE disks") == [202] and slow.left == []


def test_a_detach_that_fails_leaves_the_disk(found: dict[str, Outcome]) -> None:
    failed = found["detach fails"]
    assert failed.made.ended.status == -9 and WAITING in failed.made.ended.output
    assert failed.left == ["PackerTemp-osdisk"] and [disk["toBeDetached"] for disk in failed.attached] == [True]
    assert failed.state(image_id()) == "Succeeded"


def test_a_process_in_the_image_leaves_the_disk(found: dict[str, Outcome]) -> None:
    """It is detached while it is mounted; the emulator's machine does not let go."""
    busy = found["in use"]
    assert busy.made.ended.status == -9 and "error unmounting root device" in busy.made.ended.output
    assert busy.left == ["PackerTemp-osdisk"] and busy.state(image_id()) is None


def test_what_was_to_come_out_and_failed_is_left(found: dict[str, Outcome]) -> None:
    for name, id_ in (("image not made", image_id()), ("version not made", version_id())):
        assert found[name].made.ended.status == 1 and "no luck" in found[name].made.ended.output
        assert found[name].state(id_) == "Failed" and found[name].left == []


def test_a_snapshot_that_is_not_made_is_deleted(found: dict[str, Outcome]) -> None:
    failed = found["snapshot not made"]
    assert failed.made.ended.status == 1 and failed.state(version_id()) is None and failed.left == []
    assert "error deleting snapshot" not in failed.made.ended.output
    names = [call["name"] for call in failed.made.stage.calls() if "snapshots" in call["path"]]
    assert names == ["PUT snapshots", "POST snapshots/endGetAccess", "DELETE snapshots"]


def test_it_does_not_ask_the_metadata_service_again(found: dict[str, Outcome]) -> None:
    """It asks who it is before each call, of which the service answers five a second: 429 is the end."""
    limited = found["metadata limited"]
    assert limited.made.ended.status == 1, limited.made.log
    asked = [call["status"] for call in limited.made.stage.calls() if call["name"].startswith("GET /metadata/instance")]
    assert asked.count(429) == 1
