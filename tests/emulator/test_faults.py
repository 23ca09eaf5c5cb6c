"""Plans of faults, and rate limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_azchroot.emulator import throttles
from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.faults import FaultPlan, Rule
from pytest_azchroot.emulator.hooks import Delay, Reset
from pytest_azchroot.emulator.http import Request, Response
from pytest_azchroot.emulator.settings import Settings, SettingsError
from pytest_azchroot.emulator.throttles import Throttles

from .conftest import Compute, attach, connect, empty_disk
from .test_disks import refusal
from .wire import ask

SUBSCRIPTION = "/subscriptions/s"
MACHINE = f"{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm1"


def planned(tmp_path: Path, text: str) -> FaultPlan:
    """A plan from a file."""
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return FaultPlan.load(path)


def asked(path: str, method: str = "GET") -> Request:
    """A request."""
    return Request(method, "http", "h", path)


def test_the_nth_call_of_a_kind(tmp_path: Path) -> None:
    plan = planned(tmp_path, "- {call: PUT disks, nth: 2, status: 429, code: TooManyRequests, retry_after: 3}")
    answers = [plan.request(name, asked("/d")) for name in ("PUT disks", "GET disks", "PUT disks", "PUT disks")]
    assert [answer is None for answer in answers] == [True, True, False, True]
    found = answers[2]
    assert isinstance(found, Response) and found.status == 429 and isinstance(found.body, bytes)
    assert found.headers["Retry-After"] == "3"
    assert json.loads(found.body)["error"]["code"] == "TooManyRequests"


def test_the_nth_of_all_calls(tmp_path: Path) -> None:
    plan = planned(tmp_path, "- {call: '*', nth: 3, reset: true}")
    answers = [plan.request(name, asked("/d")) for name in ("PUT disks", "GET disks", "GET images", "GET disks")]
    assert answers == [None, None, Reset(), None]


def test_every_call_of_a_resource() -> None:
    plan = FaultPlan([Rule(call="GET *", resource="*/vm1", delay=0.5)])
    assert [plan.request("GET virtualMachines", asked(path)) for path in (MACHINE, "/x/vm2")] == [Delay(0.5), None]


def test_operations() -> None:
    rules = [
        Rule(operation="disks.create", nth=2, code="NoLuck"),
        Rule(operation="versions.*", endless=True),
        Rule(operation="virtualMachines.*", no_device=True, delay=2),
    ]
    plan = FaultPlan(rules)
    assert plan.operation("disks.create", "d1") is None
    failed = plan.operation("disks.create", "d2")
    assert failed is not None and failed.error is not None and failed.error.code == "NoLuck"
    endless = plan.operation("versions.create", "v")
    assert endless is not None and endless.endless and endless.error is None
    lost = plan.operation("virtualMachines.attachDetach", "vm1")
    assert lost is not None and (lost.no_device, lost.delay) == (True, 2)
    assert plan.request("disks.create", asked("/d")) is None


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "a: b",
        "- 1",
        "- {nth: 1}",
        "- {call: a, operation: b}",
        "- {call: a, endless: true}",
        "- {operation: a, reset: true}",
        "- {call: a, sttaus: 3}",
    ],
)
def test_what_is_no_plan(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"the fault plan .* cannot be used"):
        planned(tmp_path, text)


@pytest.mark.root
def test_a_plan_of_an_emulator(settings: Settings) -> None:
    plan = FaultPlan([Rule(operation="disks.create", nth=1, status=409, code="NoLuck", message="none today")])
    with Emulator(settings, hooks=[plan]) as emulator:
        compute: Compute = connect(emulator.url, settings)
        assert refusal(lambda: empty_disk(compute, "d1"))[1:] == ("NoLuck", "none today")
        assert empty_disk(compute, "d1").properties.provisioning_state == "Succeeded"


@pytest.mark.root
def test_a_disk_that_could_not_be_made_is_neither_attached_nor_lent(settings: Settings) -> None:
    plan = FaultPlan([Rule(operation="disks.create", nth=1, code="NoLuck")])
    with Emulator(settings, hooks=[plan]) as emulator:
        compute: Compute = connect(emulator.url, settings)
        refusal(lambda: empty_disk(compute, "d1"))
        disk = compute.disks.get("rg1", "d1")
        assert refusal(lambda: attach(compute, disk.id))[:2] == (409, "OperationNotAllowed")
        read = {"access": "Read", "durationInSeconds": 60}
        assert refusal(lambda: compute.disks.begin_grant_access("rg1", "d1", read))[:2] == (409, "OperationNotAllowed")
        compute.disks.begin_delete("rg1", "d1").result()


@pytest.mark.root
def test_packer_takes_back_grants_of_a_snapshot_that_could_not_be_made(settings: Settings) -> None:
    plan = FaultPlan([Rule(operation="snapshots.create", code="NoLuck")])
    with Emulator(settings, hooks=[plan]) as emulator:
        compute: Compute = connect(emulator.url, settings)
        copy = {"createOption": "Copy", "sourceResourceId": empty_disk(compute, "d1").id}
        body = {"location": "westus2", "properties": {"creationData": copy}}
        refusal(lambda: compute.snapshots.begin_create_or_update("rg1", "s1", body).result())
        compute.snapshots.begin_revoke_access("rg1", "s1").result()
        compute.snapshots.begin_delete("rg1", "s1").result()
        assert list(compute.snapshots.list()) == []


# -- rate limits


class Time:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def exhausted(hook: Throttles, name: str, request: Request) -> tuple[int, Response]:
    """How many requests are let through, and the answer to the next."""
    for count in range(1000):
        answer = hook.request(name, request)
        if answer is not None:
            return count, answer
    raise AssertionError("there is no limit")


def owner_of(resource: str) -> Callable[[str], str | None]:
    """All operations are about this."""
    return lambda name: resource


@pytest.mark.parametrize(
    ("name", "path", "count", "wait"),
    [
        ("PUT virtualMachines", MACHINE, 12, "15"),
        ("POST virtualMachines/attachDetachDataDisks", f"{MACHINE}/attachDetachDataDisks", 12, "15"),
        ("GET virtualMachines", MACHINE, 36, "5"),
        ("GET operations", f"{SUBSCRIPTION}/providers/Microsoft.Compute/locations/l/operations/o", 45, "4"),
        ("GET disks", MACHINE.replace("virtualMachines/vm1", "disks/d"), 250, "1"),
        ("PUT disks", MACHINE.replace("virtualMachines/vm1", "disks/d"), 200, "1"),
    ],
)
def test_documented_limits(name: str, path: str, count: int, wait: str) -> None:
    hook = Throttles(owner=owner_of(MACHINE), clock=Time())
    found, answer = exhausted(hook, name, asked(path, name.split(maxsplit=1)[0]))
    assert (found, answer.status, answer.headers["Retry-After"]) == (count, 429, wait)


def test_a_bucket_fills_again() -> None:
    clock = Time()
    hook = Throttles(owner=owner_of(MACHINE), clock=clock)
    exhausted(hook, "GET virtualMachines", asked(MACHINE))
    clock.now += 10  # 12 a minute
    assert exhausted(hook, "GET virtualMachines", asked(MACHINE))[0] == 2


def test_each_machine_has_its_own_buckets() -> None:
    hook = Throttles(owner=owner_of(MACHINE), clock=Time())
    exhausted(hook, "GET virtualMachines", asked(MACHINE))
    assert hook.request("GET virtualMachines", asked(MACHINE + "2")) is None
    assert hook.request("GET virtualMachines", asked(MACHINE.upper())) is not None


def test_operations_of_others_are_polled_as_often_as_one_likes() -> None:
    hook = Throttles(owner=owner_of("/subscriptions/s/images/i"), clock=Time())
    path = f"{SUBSCRIPTION}/providers/Microsoft.Compute/locations/l/operations/o"
    assert exhausted(hook, "GET operations", asked(path))[0] == throttles.READS.burst


def test_what_the_limit_of_a_machine_says() -> None:
    hook = Throttles(owner=owner_of(MACHINE), clock=Time())
    _, answer = exhausted(hook, "GET virtualMachines", asked(MACHINE))
    assert isinstance(answer.body, bytes)
    error = json.loads(answer.body)["error"]
    assert error["code"] == "OperationNotAllowed" and error["details"][0]["code"] == "TooManyRequests"
    assert json.loads(error["details"][0]["message"])["operationGroup"] == "GetVM"


@pytest.mark.root
def test_an_emulator_with_limits(settings: Settings) -> None:
    with Emulator(Settings(settings.directory, throttled=True)) as emulator:
        statuses = [ask(emulator, "GET", "virtualMachines/vm1").status for _ in range(37)]
        assert statuses == [200] * 36 + [429]
