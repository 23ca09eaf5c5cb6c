"""Attaching where ``attachDetachDataDisks`` is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.clouds.azure import shared
from pytest_azchroot.clouds.azure.broker import Broker
from pytest_azchroot.clouds.azure.calls import Call, Calls
from pytest_azchroot.clouds.azure.fallback import goal
from pytest_azchroot.clouds.azure.queue import Request
from pytest_azchroot.clouds.azure.refusals import AzureError
from pytest_azchroot.emulator import http
from pytest_azchroot.emulator.errors import ArmError
from pytest_azchroot.emulator.hooks import OperationFault
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.emulator.settings import Machine, Profile, Settings

from .builds import POST, Builds, attached, connected, count, machine_of, make_disks, statuses

PATCH = "PATCH virtualMachines"
BLOB = {"lun": 3, "name": "old", "vhd": {"uri": "https://store.example/old.vhd"}, "createOption": "Attach", "new": {}}
MANAGED = {"lun": 0, "name": "d0", "managedDisk": {"id": "/x/disks/D0", "diskEncryptionSet": {"id": "e"}}, "caching": 1}
REQUEST = Request("1", 1, "attach", "/x/disks/d1", "ReadOnly")


def test_what_is_there_goes_back_as_it_came() -> None:
    new = goal([BLOB, MANAGED], attach=[(REQUEST, 1)], detach=())
    assert new[:2] == [BLOB, MANAGED]
    assert new[2:] == [
        {
            "lun": 1,
            "name": "d1",
            "createOption": "Attach",
            "caching": "ReadOnly",
            "deleteOption": "Detach",
            "managedDisk": {"id": "/x/disks/d1"},
        }
    ]


def test_only_what_is_named_goes() -> None:
    assert goal([BLOB, MANAGED], attach=(), detach={"/x/disks/d0"}) == [BLOB, {**MANAGED, "toBeDetached": True}]


@pytest.fixture
def azure_emulator_settings(azure_emulator_settings: Settings) -> Settings:
    """Updates that overlap are refused."""
    profile = Profile({"virtualMachines.update": 0.7, "virtualMachines.attachDetach": 0.2}, request=0.01)
    machine = Machine(size="Standard_D16s_v5")
    return replace(azure_emulator_settings, machine=machine, profile=profile, throttled=True, overlap="conflict")


@pytest.fixture
def emulator(azure_emulator: AzureEmulator) -> AzureEmulator:
    """One that is too old."""
    azure_emulator.fault(call=POST, status=404, code="InvalidResourceType")
    return azure_emulator


@pytest.fixture
def calls() -> Calls:
    """Of the broker."""
    return Calls()


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    """In place of the directory below /run."""
    return shared.private(tmp_path / "meeting")


@pytest.fixture
def broker(emulator: AzureEmulator, calls: Calls, meeting: Path) -> Iterator[Broker]:
    """With the machine's identity."""
    azure = connected(calls)
    yield Broker(azure, machine_of(emulator), directory=meeting)
    azure.close()


@pytest.mark.root
def test_a_disk_is_attached_and_detached(broker: Broker, emulator: AzureEmulator) -> None:
    disk, other = make_disks(emulator, 2)
    attaching = broker.attach(disk, timeout=20)
    attaching.check()
    assert attached(emulator) == {attaching.lun: disk.lower()}
    assert broker.attach(other, timeout=20).lun == 1
    broker.detach(disk)
    broker.wait_detached(disk, timeout=10)
    assert attached(emulator) == {1: other.lower()}
    assert count(emulator, POST) == 1 and count(emulator, PATCH) == 3


@pytest.mark.root
def test_builds_at_once(emulator: AzureEmulator, meeting: Path, tmp_path: Path) -> None:
    builds = Builds(emulator, meeting, tmp_path / "results")
    disks = make_disks(emulator, 8)
    assert builds.start(disks, detach=True).wait(60) == 0
    found = builds.found()
    assert [each.get("error") for each in found.values()] == [None] * 8
    assert len({each["lun"] for each in found.values()}) >= 4  # one that was freed may be given again
    assert attached(emulator) == {}
    assert not {409, 429} & statuses(emulator)


@pytest.mark.root
def test_a_disk_that_comes_in_between_stays(broker: Broker, calls: Calls, emulator: AzureEmulator) -> None:
    mine, foreign = make_disks(emulator, 2)
    compute: Any = emulator.compute()

    def interfere(call: Call) -> None:
        if call.name == "GET virtualMachines" and count(emulator, POST) == 1 and count(emulator, PATCH) == 0:
            entry = {"lun": 0, "createOption": "Attach", "managedDisk": {"id": foreign}}
            body = {"properties": {"storageProfile": {"dataDisks": [entry]}}}
            compute.virtual_machines.begin_update("rg1", "vm1", body).result()

    calls.after = interfere
    assert broker.attach(mine, timeout=30).lun == 1
    assert attached(emulator) == {0: foreign.lower(), 1: mine.lower()}
    assert 412 in statuses(emulator)


class Listening:
    """Hears what is written, and refuses it."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []

    def request(self, name: str, request: http.Request) -> http.Response | None:
        """Of the emulator's hooks."""
        if name != PATCH:
            return None
        self.bodies.append(json.loads(request.body))
        return ArmError(400, "Heard", "enough").response

    def operation(self, kind: str, resource: str) -> OperationFault | None:
        """Of the emulator's hooks."""
        return None


@pytest.mark.root
def test_page_blobs_and_unknown_fields_are_written_back(broker: Broker, emulator: AzureEmulator) -> None:
    listening = Listening()
    emulator.emulator.hooks.add(listening)
    azure = emulator.emulator.azure
    with azure.state.change():
        machine = azure.resource(emulator.vm_id)
        machine.properties["storageProfile"]["dataDisks"] = [BLOB]
        azure.state.put(machine)
    (disk,) = make_disks(emulator, 1)
    with pytest.raises(AzureError, match="Heard: enough"):
        broker.attach(disk, timeout=20)
    ((body),) = listening.bodies
    assert list(body["properties"]) == ["storageProfile"] and list(body["properties"]["storageProfile"]) == [
        "dataDisks"
    ]
    first, second = body["properties"]["storageProfile"]["dataDisks"]
    assert first == BLOB and second["lun"] == 0


@pytest.mark.root
def test_a_failed_update_is_told(broker: Broker, emulator: AzureEmulator) -> None:
    (disk,) = make_disks(emulator, 1)
    emulator.fault(operation="virtualMachines.update", nth=1, code="ConflictingUserInput", message="it is owned")
    with pytest.raises(AzureError, match="ConflictingUserInput: it is owned"):
        broker.attach(disk, timeout=20)
