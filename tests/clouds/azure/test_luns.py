"""Which disk gets which LUN, and what a refusal means."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_azchroot.clouds.azure.courses import Course, blamed, course, pause
from pytest_azchroot.clouds.azure.luns import DataDisk, Plan, data_disks, planned
from pytest_azchroot.clouds.azure.queue import Answer, Failure, Note, Request


def request(what: Any, disk: str, number: int = 0) -> Request:
    """Something that a build wants."""
    return Request(f"{number}-{what}-{disk}", 1, what, f"/x/disks/{disk}")


def plan(disks: list[DataDisk], *requests: Request, limit: int | None = None, avoid: tuple[int, ...] = ()) -> Plan:
    """For machine vm1."""
    batch = [(each, Note(avoid=avoid)) for each in requests]
    return planned(disks, batch, limit=limit, machine="vm1", size="Standard_X")


def disk(lun: int, name: str = "", *, leaving: bool = False) -> DataDisk:
    """One that is there."""
    return DataDisk(lun, f"/x/disks/{name}" if name else "", leaving)


def test_a_model_is_read() -> None:
    entries = [{"lun": 1, "managedDisk": {"id": "/X"}, "toBeDetached": True}, {"lun": 0, "vhd": {"uri": "u"}}]
    model = {"properties": {"storageProfile": {"dataDisks": entries}}}
    assert data_disks(model) == [DataDisk(1, "/x", True), DataDisk(0, "", False)]
    assert data_disks({"properties": {"storageProfile": {}}}) == data_disks({}) == []


def test_the_lowest_free_lun() -> None:
    a, b = request("attach", "a"), request("attach", "b", 1)
    assert plan([disk(0), disk(2, "x", leaving=True)], a, b).attach == [(a, 1), (b, 3)]
    assert plan([disk(0)], a, avoid=(1, 2)).attach == [(a, 3)]


def test_what_is_attached_keeps_its_lun() -> None:
    a = request("attach", "A")
    assert plan([disk(7, "a")], a).answers == [(a, Answer(7))]


def test_what_is_not_there_is_detached() -> None:
    a = request("detach", "a")
    assert plan([], a).answers == [(a, Answer())]
    assert plan([disk(3, "a", leaving=True)], a).detach == [a]


def test_one_call_does_not_do_both_to_one_disk() -> None:
    off, on = request("detach", "a"), request("attach", "a", 1)
    found = plan([disk(0, "a")], off, on)
    assert found.requests == [off] and not found.answers and not found.later


def test_asked_for_twice_it_is_attached_once() -> None:
    assert len(plan([], request("attach", "a"), request("attach", "A", 1)).requests) == 1


def test_a_disk_on_its_way_out_has_to_be_gone_first() -> None:
    a = request("attach", "a")
    (later,) = plan([disk(0, "a", leaving=True)], a).later
    assert later[0] is a and later[1].code == "AttachDiskWhileBeingDetached"


def test_a_full_machine() -> None:
    a, b = request("attach", "a"), request("attach", "b", 1)
    ((_, answer),) = plan([disk(0), disk(1)], a, limit=2).answers
    assert answer.failure is not None
    assert answer.failure.why == "the machine's size Standard_X allows 2 data disks, and it has 2"
    found = plan([disk(0)], a, b, limit=2)
    assert found.attach == [(a, 1)] and not found.answers  # b is told when a has its disk
    assert plan([disk(lun) for lun in range(64)], a).answers  # more LUNs there are not


def test_room_is_waited_for_where_a_disk_goes() -> None:
    a, off = request("attach", "a"), request("detach", "x", -1)
    assert plan([disk(0, "x", leaving=True)], a, limit=1).later
    assert plan([disk(0, "x")], off, a, limit=1).later


@pytest.mark.parametrize(
    ("status", "code", "text", "wanted"),
    [
        (None, None, "no answer", Course.LATER),
        (429, "OperationNotAllowed", "too many requests", Course.LATER),
        (412, "PreconditionFailed", "", Course.LATER),
        (409, "Conflict", "The request failed due to conflict with a concurrent request.", Course.LATER),
        (409, "AttachDiskWhileBeingDetached", "Cannot attach data disk", Course.LATER),
        (400, "InvalidParameter", "A disk at LUN 0 already exists.", Course.PICK_AGAIN),
        (
            409,
            "OperationNotAllowed",
            "The maximum number of data disks allowed to be attached to a VM of this size is 4.",
            Course.FULL,
        ),
        (404, "InvalidResourceType", "", Course.OTHER_WAY),
        (405, None, "", Course.OTHER_WAY),
        (404, None, "", Course.OTHER_WAY),
        (400, "NotSupported", "", Course.OTHER_WAY),
        (400, "BadRequest", "AttachDetachDataDisks is not enabled for subscription x.", Course.OTHER_WAY),
        (400, "InvalidParameter", "Disk 'a' cannot be detached as it is not attached to VM 'b'.", Course.LATER),
        (404, "NotFound", "Disk x is not found.", Course.FINAL),
        (400, "BadRequest", "UltraSSD_LRS is not supported in region westus2.", Course.FINAL),
        (409, "OperationNotAllowed", "This operation is not enabled in the region.", Course.OTHER_WAY),
        (404, "ResourceNotFound", "The Resource 'Microsoft.Compute/disks/x' was not found", Course.FINAL),
        (
            409,
            "ConflictingUserInput",
            "Disk 'a' cannot be attached as the disk is already owned by VM 'b'.",
            Course.FINAL,
        ),
        (400, "InvalidParameter", "The value is invalid", Course.FINAL),
        (403, "AuthorizationFailed", "", Course.NOT_WE),
        (401, None, "", Course.NOT_WE),
    ],
)
def test_courses(status: int | None, code: str | None, text: str, wanted: Course) -> None:
    assert course(Failure("it failed", why=text, status=status, code=code)) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Disk '/X/disks/a' cannot be attached as it is owned by VM '/x/virtualMachines/a-b'.", "a"),
        ("Cannot attach data disk 'a-b' to VM 'vm'", "a-b"),
        ("Microsoft.Compute/disks/a.b was not found.", "a.b"),
        ("Cannot attach disk a.", "a"),
        ("a and a-b do not go together", None),
        ("one of them is bad", None),
    ],
)
def test_who_is_to_blame(text: str, wanted: str | None) -> None:
    requests = [request("attach", name) for name in ("a", "a-b", "a.b")]
    found = blamed(Failure("it failed", why=text), requests)
    assert (None if found is None else found.key.rsplit("/", 1)[-1]) == wanted


def test_pauses_grow_and_azure_is_heard() -> None:
    assert [pause(0, None), pause(20, None), pause(0, 30.0)] == [0.5, 20.0, 30.0]
