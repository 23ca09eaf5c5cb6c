"""Attaching and detaching, agreed among processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.clouds.azure import shared
from pytest_azchroot.clouds.azure.broker import Attaching, Broker, Room
from pytest_azchroot.clouds.azure.buckets import UPDATES, Budget
from pytest_azchroot.clouds.azure.client import Azure
from pytest_azchroot.clouds.azure.leader import Leader
from pytest_azchroot.clouds.azure.queue import Queue
from pytest_azchroot.clouds.azure.refusals import AzureError, OperationTimeoutError
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.emulator.settings import Machine, Profile, Settings
from pytest_azchroot.errors import UnavailableError

from .builds import POST, Builds, attached, connected, count, machine_of, make_disks, statuses, until

pytestmark = pytest.mark.root
MANY = 16
READ = "GET virtualMachines"


@pytest.fixture
def azure_emulator_settings(azure_emulator_settings: Settings) -> Settings:
    """A machine with room for all, operations that last, and Azure's limits."""
    seconds = {"virtualMachines.attachDetach": 0.3, "virtualMachines.update": 0.3}
    profile = Profile(seconds, request=0.01, detach_patience=0.5)
    machine = Machine(size="Standard_D16s_v5")
    return replace(azure_emulator_settings, machine=machine, profile=profile, throttled=True)


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    """In place of the directory below /run."""
    return shared.private(tmp_path / "meeting")


@pytest.fixture
def azure(azure_emulator: AzureEmulator) -> Iterator[Azure]:
    """With the machine's identity."""
    found = connected()
    yield found
    found.close()


Make = Callable[..., Broker]


@pytest.fixture
def make(azure: Azure, azure_emulator: AzureEmulator, meeting: Path) -> Make:
    """A broker of this process."""
    return partial(Broker, azure, machine_of(azure_emulator), directory=meeting)


@pytest.fixture
def broker(make: Make) -> Broker:
    """One."""
    return make()


@pytest.fixture
def builds(azure_emulator: AzureEmulator, meeting: Path, tmp_path: Path) -> Builds:
    """Others."""
    return Builds(azure_emulator, meeting, tmp_path / "results")


def settled(emulator: AzureEmulator) -> None:
    """No operation of the machine runs any more."""
    until(lambda: emulator.emulator.machine()["properties"]["provisioningState"] != "Updating")


# -- one build


def test_a_disk_is_attached_and_detached(broker: Broker, meeting: Path, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    attaching = broker.attach(disk, caching="ReadOnly", timeout=10)
    assert attached(azure_emulator) == {attaching.lun: disk.lower()}
    attaching.check()
    settled(azure_emulator)
    broker.detach(disk)
    broker.wait_detached(disk, timeout=10)
    assert attached(azure_emulator) == {}
    assert count(azure_emulator, POST) == 2 and count(azure_emulator, READ) == 2
    assert [Budget(meeting / "budget.json").take(UPDATES) for _ in range(9)] == [True] * 8 + [False]


def test_what_is_so_already_is_not_asked_for(broker: Broker, azure_emulator: AzureEmulator) -> None:
    disk, other = make_disks(azure_emulator, 2)
    lun = broker.attach(disk, caching="None", timeout=10).lun
    assert broker.attach(disk.upper().replace("/SUBSCRIPTIONS", "/subscriptions"), timeout=10).lun == lun
    broker.detach(other)
    broker.wait_detached(other, timeout=10)
    assert count(azure_emulator, POST) == 1


def test_a_disk_that_is_gone_is_detached(broker: Broker, azure_emulator: AzureEmulator) -> None:
    missing = f"{azure_emulator.vm_id.rsplit('/', 2)[0]}/disks/none"
    broker.detach(missing)
    broker.wait_detached(missing, timeout=10)


def test_an_instance_of_a_uniform_scale_set(azure: Azure, meeting: Path, azure_emulator: AzureEmulator) -> None:
    id = f"{azure_emulator.vm_id.rsplit('/', 2)[0]}/virtualMachineScaleSets/set/virtualMachines/3"
    with pytest.raises(UnavailableError, match="scale set with uniform"):
        Broker(azure, replace(machine_of(azure_emulator), resource_id=id), directory=meeting)


def test_room(broker: Broker, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    broker.attach(disk, timeout=10)
    assert [broker.room(), broker.room()] == [Room(1, 32)] * 2 and Room(1, 32).left == 31
    assert count(azure_emulator, "GET skus") == 1


def test_a_full_machine_says_so(azure_emulator: AzureEmulator, make: Make, meeting: Path) -> None:
    compute: Any = azure_emulator.compute()
    size = {"properties": {"hardwareProfile": {"vmSize": "Standard_D2s_v5"}}}
    compute.virtual_machines.begin_update("rg1", "vm1", size).result()
    disks = make_disks(azure_emulator, 6)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda disk: tried(make(), disk), disks))
    assert sorted(each for each in found if isinstance(each, int)) == [0, 1, 2, 3]
    problems = [str(each) for each in found if isinstance(each, AzureError)]
    assert len(problems) == 2
    assert all("size Standard_D2s_v5 allows 4 data disks, and it has 4" in each for each in problems)
    assert count(azure_emulator, POST) <= 4


def tried(broker: Broker, disk: str) -> int | AzureError:
    """The LUN, or the error."""
    try:
        return broker.attach(disk, timeout=20).lun
    except AzureError as error:
        return error


def test_a_stolen_lun_is_replaced(broker: Broker, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    azure_emulator.fault(
        call=POST, nth=1, status=400, code="InvalidParameter", message="A disk at LUN 0 already exists."
    )
    assert broker.attach(disk, timeout=10).lun == 1
    assert count(azure_emulator, "GET virtualMachines") == 2


@pytest.mark.parametrize(("call", "status"), [(POST, 409), (POST, 429), (READ, 429), (READ, 503)])
def test_a_busy_azure_is_asked_again(call: str, status: int, broker: Broker, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    azure_emulator.fault(call=call, nth=1, status=status, code="Conflict", retry_after=1)
    assert broker.attach(disk, timeout=20).lun == 0
    assert count(azure_emulator, call) == 2


def test_a_lost_answer_leaves_one_disk(broker: Broker, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    azure_emulator.fault(call=POST, nth=1, reset=True)
    assert broker.attach(disk, timeout=20).lun == 0
    assert list(attached(azure_emulator)) == [0]


def test_waiting_ends_with_the_reason(make: Make, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    azure_emulator.fault(call=POST, status=409, code="Conflict", message="somebody else is at it")
    said: list[str] = []
    with pytest.raises(OperationTimeoutError, match="somebody else is at it") as caught:
        make(say=said.append).attach(disk, timeout=2.5)
    assert caught.value.code == "Conflict"
    assert said == [
        "attaching disk0: waiting for Azure to take it (Conflict: somebody else is at it)",
    ]


def checked(attaching: Attaching) -> bool:
    """As long as nothing is wrong with it."""
    attaching.check()
    return False


def test_a_failed_attach_is_told(broker: Broker, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    azure_emulator.fault(
        operation="virtualMachines.attachDetach", nth=1, code="ConflictingUserInput", message="the disk is owned"
    )
    attaching = broker.attach(disk, timeout=10)
    with pytest.raises(AzureError, match="ConflictingUserInput: the disk is owned") as caught:
        until(partial(checked, attaching))
    assert caught.value.code == "ConflictingUserInput"
    assert count(azure_emulator, "GET operations") == 1


def test_a_failed_detach_is_told_and_can_be_repeated(broker: Broker, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    broker.attach(disk, timeout=10)
    settled(azure_emulator)
    azure_emulator.fault(
        operation="virtualMachines.attachDetach", nth=1, code="DetachDiskFailed", message="the device is in use"
    )
    broker.detach(disk)
    with pytest.raises(AzureError, match="detaching disk0 from vm1 failed: DetachDiskFailed: the device is in use"):
        broker.wait_detached(disk, timeout=20)
    broker.detach(disk)
    broker.wait_detached(disk, timeout=20)
    assert attached(azure_emulator) == {}


def test_a_disk_on_its_way_out_is_waited_for(broker: Broker, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    broker.attach(disk, timeout=10)
    settled(azure_emulator)
    broker.detach(disk)
    assert broker.attach(disk, timeout=20).lun == 0
    assert 409 not in statuses(azure_emulator)


def test_who_waits_says_for_whom(make: Make, meeting: Path, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    said: list[str] = []
    with shared.attempt(meeting / "lock"), pytest.raises(OperationTimeoutError, match="within 2 s"):
        make(say=said.append).attach(disk, timeout=2.5)
    assert said == [f"attaching disk0: waiting for process {os.getpid()}, which changes the data disks of vm1"]


def test_who_waits_can_be_called_off(broker: Broker, meeting: Path, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt

    with shared.attempt(meeting / "lock"), pytest.raises(KeyboardInterrupt):
        broker.attach(disk, timeout=20, check=check)
    assert list(meeting.glob("queue/*")) == [] and count(azure_emulator, POST) == 0


# -- many


def test_sixteen_builds(builds: Builds, azure_emulator: AzureEmulator) -> None:
    disks = make_disks(azure_emulator, MANY)
    assert builds.start(disks, detach=True).wait(60) == 0
    found = builds.found()
    assert [each.get("error") for each in found.values()] == [None] * MANY
    assert sorted(each["lun"] for each in found.values()) == list(range(MANY))
    assert attached(azure_emulator) == {}
    assert statuses(azure_emulator) <= {200, 202}
    assert count(azure_emulator, POST) < MANY


def test_no_disk_is_lost_under_limits(make: Make, azure_emulator: AzureEmulator, meeting: Path) -> None:
    budget = Budget(meeting / "budget.json")
    disks = make_disks(azure_emulator, 8)
    brokers = [make() for _ in disks]
    budget.empty(UPDATES, 2)
    with ThreadPoolExecutor(8) as pool:
        luns = list(pool.map(lambda each: each[0].attach(each[1], timeout=30).lun, zip(brokers, disks, strict=True)))
    assert sorted(luns) == list(range(8)) and len(attached(azure_emulator)) == 8
    assert count(azure_emulator, POST) == 1


def test_who_dies_meanwhile_gets_no_disk(
    builds: Builds, broker: Broker, azure: Azure, azure_emulator: AzureEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, mine = make_disks(azure_emulator, 2)
    waiting: list[subprocess.Popen[bytes]] = []
    planned = Leader._planned

    def start(name: str) -> None:
        """Another one, when we have the lock."""
        if name == READ and not waiting:
            waiting.append(builds.start([dead]))
            until(lambda: len(builds.requests()) == 2)

    def kill(self: Leader, model: Any, batch: Any) -> Any:
        """The leader has its list of requests, and knows the machine."""
        (other,) = [request for request, _ in batch if request.pid != os.getpid()]
        os.kill(other.pid, signal.SIGKILL)
        waiting[0].wait(10)
        return planned(self, model, batch)

    azure.calls.before = start
    monkeypatch.setattr(Leader, "_planned", kill)
    broker.attach(mine, timeout=20)
    assert list(attached(azure_emulator).values()) == [mine.lower()]


def held(lock: Path) -> bool:
    """Whether somebody leads."""
    with shared.attempt(lock) as ours:
        return not ours


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_leader_is_killed(
    moment: str, builds: Builds, broker: Broker, meeting: Path, azure_emulator: AzureEmulator
) -> None:
    victims, mine = make_disks(azure_emulator, 2)
    victim = builds.start([victims], kill=moment, crowd=2)
    until(lambda: held(meeting / "lock"))
    assert broker.attach(mine, timeout=30).lun == list(attached(azure_emulator).values()).index(mine.lower())
    assert victim.wait(20) != 0
    assert sorted(attached(azure_emulator).values()) == sorted(
        [mine.lower()] if moment == "before" else [victims.lower(), mine.lower()]
    )
    assert count(azure_emulator, POST) == 1
    assert list(meeting.glob("queue/*")) == []


def test_the_dead_are_not_served(meeting: Path, broker: Broker, builds: Builds, azure_emulator: AzureEmulator) -> None:
    dead, mine = make_disks(azure_emulator, 2)
    with shared.attempt(meeting / "lock") as ours:
        assert ours
        waiting = builds.start([dead])
        until(lambda: bool(list(meeting.glob("queue/*.request"))))
        (request,) = Queue(meeting / "queue").waiting()
        os.kill(request.pid, signal.SIGKILL)
        waiting.wait(10)
    broker.attach(mine, timeout=20)
    assert list(attached(azure_emulator).values()) == [mine.lower()]
    assert list(meeting.glob("queue/*")) == []


def test_each_gets_its_own_refusal(make: Make, meeting: Path, azure_emulator: AzureEmulator) -> None:
    disks = make_disks(azure_emulator, 4)
    owned = f"{azure_emulator.vm_id.rsplit('/', 2)[0]}/disks/missing"
    wanted = [*disks[:2], owned, *disks[2:]]
    brokers = [make() for _ in wanted]
    with ThreadPoolExecutor(5) as pool:
        with shared.attempt(meeting / "lock") as ours:
            assert ours
            results = [pool.submit(tried, broker, disk) for broker, disk in zip(brokers, wanted, strict=True)]
            until(lambda: len(list(meeting.glob("queue/*.request"))) == 5)
        found = [each.result() for each in results]
    assert isinstance(found[2], AzureError) and "missing" in str(found[2])
    assert sorted(each for each in found if isinstance(each, int)) == [0, 1, 2, 3]
    assert count(azure_emulator, POST) == 2


def test_a_failure_is_of_the_disk_that_it_names(
    make: Make, meeting: Path, azure_emulator: AzureEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is busy fails the operation, and all others in it come and go as they should."""
    monkeypatch.setattr("pytest_azchroot.clouds.azure.underway._GRACE", 1000)
    old, busy, new = make_disks(azure_emulator, 3)
    brokers = [make() for _ in range(3)]
    luns = [brokers[0].attach(disk, timeout=20).lun for disk in (old, busy)]
    settled(azure_emulator)
    device = next(azure_emulator.device_directory.rglob(f"lun{luns[1]}"))
    with device.open("rb"), ThreadPoolExecutor(3) as pool:
        with shared.attempt(meeting / "lock"):
            gone = [pool.submit(each.detach, disk) for each, disk in zip(brokers, (old, busy), strict=False)]
            until(lambda: len(list(meeting.glob("queue/*.request"))) == 2)
            came = pool.submit(brokers[2].attach, new, timeout=20)
            until(lambda: len(list(meeting.glob("queue/*.request"))) == 3)
        assert [each.result() for each in gone] == [None, None]
        attaching = came.result()
        with pytest.raises(AzureError, match="DetachDiskFailed: The data disk 'disk1' could not be detached"):
            brokers[1].wait_detached(busy, timeout=20)
        attaching.check()
        brokers[0].wait_detached(old, timeout=20)
    assert sorted(attached(azure_emulator).values()) == sorted([busy.lower(), new.lower()])
    assert count(azure_emulator, POST) == 3


def test_a_refusal_that_names_nobody_is_divided(make: Make, meeting: Path, azure_emulator: AzureEmulator) -> None:
    disks = make_disks(azure_emulator, 4)
    azure_emulator.fault(call=POST, nth=1, status=400, code="Odd", message="one of them is odd")
    azure_emulator.fault(call=POST, nth=1, status=400, code="Odd", message="one of them is odd")
    azure_emulator.fault(call=POST, nth=1, status=400, code="Odd", message="it is odd")
    with ThreadPoolExecutor(4) as pool:
        with shared.attempt(meeting / "lock"):
            results = []
            for number, disk in enumerate(disks):
                results.append(pool.submit(tried, make(), disk))
                until(lambda number=number: len(list(meeting.glob("queue/*.request"))) > number)  # type: ignore[misc]
        found = [each.result() for each in results]
    assert [isinstance(each, AzureError) for each in found] == [True, False, False, False]
    assert len(attached(azure_emulator)) == 3


# -- in a hurry


def test_a_hurry_waits_for_nobody(
    broker: Broker, meeting: Path, azure_emulator: AzureEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_azchroot.clouds.azure.broker._HURRY", 0.5)
    (disk,) = make_disks(azure_emulator, 1)
    broker.attach(disk, timeout=10)
    with shared.attempt(meeting / "lock") as ours:
        assert ours
        asked = iter([False, False])
        broker.detach(disk, hurry=lambda: next(asked, True))  # it comes while we wait
        broker.wait_detached(disk, timeout=10)
    assert attached(azure_emulator) == {}


def test_a_hurry_takes_from_the_margin(broker: Broker, meeting: Path, azure_emulator: AzureEmulator) -> None:
    (disk,) = make_disks(azure_emulator, 1)
    broker.attach(disk, timeout=10)
    budget = Budget(meeting / "budget.json")
    while budget.take(UPDATES):
        pass
    broker.detach(disk, hurry=True)
    broker.wait_detached(disk, timeout=10)
    assert 429 not in statuses(azure_emulator)
