"""What is done about what dead runs left in Azure: decided from data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from pytest_azchroot.clouds.azure.leftovers import Context, Resource, key, plan, resource
from pytest_azchroot.journal import Open, Record
from pytest_azchroot.removal import Removal

NOW = datetime(2026, 1, 2, 12, tzinfo=timezone.utc)
HERE = Context(NOW, "this-vm")
COMPUTE = "/subscriptions/s/resourceGroups/rg1/providers/Microsoft.Compute"
VM = f"{COMPUTE}/virtualMachines/vm1"
OTHER_VM = f"{COMPUTE}/virtualMachines/vm2"
DISK = f"{COMPUTE}/disks/d"
SNAPSHOT = f"{COMPUTE}/snapshots/s"
VERSION = f"{COMPUTE}/galleries/g/images/i/versions/1.0.0"
IMAGE = f"{COMPUTE}/images/i"
LATER, EARLIER = "2026-01-02T12:00:01Z", "2026-01-02T12:00:00Z"


def record(
    *entries: tuple[str, str] | tuple[str, str, dict[str, str]], run: str = "r1", host: str = "this-vm"
) -> Record:
    """A dead run's, which began an hour ago."""
    began = NOW - timedelta(hours=1)
    opened = [
        Open(number, each[0], each[1], each[2] if len(each) > 2 else {}, began) for number, each in enumerate(entries)
    ]
    return Record(run, host, 1, began, tuple(opened))


def disk(
    id: str = DISK,
    *,
    run: str = "r1",
    host: str = "this-vm",
    expires: str = LATER,
    attached: str | None = None,
    lent: bool = False,
) -> Resource:
    tags = {"azchroot-run": run, "azchroot-host": host, "azchroot-expires": expires}
    return Resource(id, "snapshot" if "/snapshots/" in id else "disk", tags=tags, attached=attached, lent=lent)


def version(state: str, *, run: str = "r1", id: str = VERSION, source: str = DISK) -> Resource:
    kind = "image" if "/galleries/" not in id else "gallery-version"
    return Resource(id, kind, state=state, tags={"azchroot-run": run, "azchroot-digest": "azd1:0"}, sources=(source,))


def planned(
    records: Sequence[Record], there: Sequence[Resource] = (), tagged: Sequence[Resource] = (), context: Context = HERE
) -> list[Removal]:
    seen: dict[str, Resource | None] = {key(entry.id): None for each in records for entry in each.entries}
    seen |= {key(each.id): each for each in there}
    return plan(records, seen, tagged, context)


def told(steps: Sequence[Removal]) -> list[str]:
    """``delete disk``."""
    return [f"{step.action} {step.kind}" for step in steps]


def reasons(steps: Sequence[Removal]) -> str:
    return "\n".join(step.reason for step in steps)


# -- by journal


def test_all_of_a_dead_run_in_its_order() -> None:
    entries = record(
        ("disk", DISK),
        ("attachment", DISK, {"vm": VM}),
        ("snapshot", SNAPSHOT),
        ("access", SNAPSHOT),
        ("gallery-version", VERSION),
    )
    there = [disk(attached=VM), disk(SNAPSHOT, lent=True), version("Failed")]
    steps = planned([entries], there)
    assert told(steps) == [
        "revoke access",
        "detach attachment",
        "delete gallery-version",
        "delete disk",
        "delete snapshot",
    ]
    assert [step.entry for step in steps] == [3, 1, 4, 0, 2]
    assert steps[1].vm == VM and all(step.run == "r1" and step.ends for step in steps)


def test_what_is_not_there_is_done() -> None:
    kinds = ("disk", "snapshot", "attachment", "access", "image", "gallery-version")
    steps = planned([record(*((kind, DISK) for kind in kinds))])
    assert {step.action for step in steps} == {"forget"} and len(steps) == 6


def test_ids_have_no_case() -> None:
    entries = record(("disk", DISK.upper()), ("attachment", DISK, {"vm": VM.upper()}))
    assert told(planned([entries], [disk(attached=VM)], [disk()])) == ["detach attachment", "delete disk"]


@pytest.mark.parametrize("kind", ["disk", "attachment", "access"])
def test_a_disk_of_that_name_that_another_run_made_is_not_touched(kind: str) -> None:
    entries = record((kind, DISK, {"vm": VM}))
    (step,) = planned([entries], [disk(run="r2", attached=VM, lent=True)])
    assert step.action == "forget" and "not made by this run" in step.reason
    (step,) = planned([entries], [replace(disk(attached=VM), tags={})])
    assert step.action == "forget"


def test_what_is_not_attached_any_more_is_done() -> None:
    steps = planned([record(("disk", DISK), ("attachment", DISK, {"vm": VM}))], [disk()])
    assert told(steps) == ["delete disk", "forget attachment"]


def test_a_disk_that_somebody_attached_elsewhere_is_left() -> None:
    steps = planned([record(("disk", DISK), ("attachment", DISK, {"vm": VM}))], [disk(attached=OTHER_VM)])
    assert told(steps) == ["leave disk", "forget attachment"] or told(steps) == ["forget attachment", "leave disk"]
    assert OTHER_VM in reasons(steps)


def test_a_disk_whose_detaching_was_only_asked_for() -> None:
    """Its entry may be gone; it is detached from the machine that made it, and from no other."""
    found, entries = disk(attached=VM), record(("disk", DISK))
    context = replace(HERE, machines={key(VM): "this-vm"})
    steps = planned([entries], [found], context=context)
    assert told(steps) == ["detach attachment", "delete disk"]
    assert [step.entry for step in steps] == [None, 0] and steps[0].vm == VM
    assert told(planned([entries], [found], context=replace(HERE, machines={key(VM): "another"}))) == ["leave disk"]
    assert told(planned([entries], [found])) == ["leave disk"]
    nobodys = disk(attached=VM, host="")
    assert told(planned([entries], [nobodys], context=replace(HERE, machines={key(VM): ""}))) == ["leave disk"]


def test_access_that_nobody_wrote_down_is_revoked_before_the_deletion() -> None:
    assert told(planned([record(("disk", DISK))], [disk(lent=True)])) == ["revoke access", "delete disk"]


def test_a_journal_of_another_machine_waits_for_the_expiry() -> None:
    """As in a state directory that several machines have, or that was copied."""
    entries = record(("disk", DISK), ("gallery-version", VERSION), host="other-vm")
    steps = planned([entries], [disk(host="other-vm"), version("Creating")])
    assert {step.action for step in steps} == {"leave"} and "another machine" in reasons(steps)
    steps = planned([entries], [disk(host="other-vm", expires=EARLIER), version("Succeeded")])
    assert told(steps) == ["delete disk", "keep gallery-version"]
    steps = planned([entries], [disk(host="other-vm"), version("Failed")], context=replace(HERE, abandon=True))
    assert {step.action for step in steps} == {"leave"}


def test_without_a_machine_of_azure_every_journal_is_anothers() -> None:
    nowhere = replace(HERE, host=None)
    assert told(planned([record(("disk", DISK))], [disk()], context=nowhere)) == ["leave disk"]
    assert told(planned([record(("disk", DISK))], [disk(expires=EARLIER)], context=nowhere)) == ["delete disk"]


# -- artifacts


@pytest.mark.parametrize("id", [VERSION, IMAGE])
@pytest.mark.parametrize(
    ("state", "facts", "abandon", "expected"),
    [
        ("Succeeded", {}, False, ["delete disk", "keep artifact"]),
        ("Succeeded", {"until": EARLIER}, True, ["delete disk", "keep artifact"]),
        ("Succeeded", {"until": LATER, "abandoned": "yes"}, False, ["delete artifact", "delete disk"]),
        ("Creating", {"until": LATER, "abandoned": "yes"}, False, ["delete artifact", "delete disk"]),
        ("Failed", {"until": LATER}, False, ["delete artifact", "delete disk"]),
        ("Canceled", {}, False, ["delete artifact", "delete disk"]),
        ("Creating", {"until": LATER}, False, ["leave artifact", "leave disk"]),
        ("Creating", {"until": EARLIER}, False, ["delete artifact", "delete disk"]),
        ("Creating", {"until": LATER}, True, ["delete artifact", "delete disk"]),
        ("Creating", {"until": "nonsense"}, False, ["leave artifact", "leave disk"]),
    ],
)
def test_artifacts_by_their_state(
    id: str, state: str, facts: dict[str, str], abandon: bool, expected: list[str]
) -> None:
    found = version(state, id=id)
    entries = record(("disk", DISK), (found.kind, id, facts))
    steps = planned([entries], [disk(), found], context=replace(HERE, abandon=abandon))
    assert told(steps) == [each.replace("artifact", found.kind) for each in expected]
    if expected[0].startswith("leave"):
        assert id in steps[1].reason and "--abandon" in steps[0].reason


def test_an_artifact_that_somebody_changes_has_been_published_before() -> None:
    """Its run died before it could write that down, and by now it is in use."""
    entries, found = record(("gallery-version", VERSION, {"until": EARLIER})), version("Updating")
    (step,) = planned([entries], [found], context=replace(HERE, abandon=True))
    assert step.action == "leave"


def test_an_artifact_of_that_name_that_is_made_of_another_disk_stays() -> None:
    """It was there when ours was asked for, and of one that is there Azure changes the tags."""
    entries = record(("gallery-version", VERSION, {"disk": DISK, "abandoned": "yes"}))
    (step,) = planned([entries], [version("Succeeded", source=f"{DISK}2")])
    assert step.action == "forget"


def test_an_artifact_that_does_not_say_until_when_is_given_a_day() -> None:
    entries, found = record(("gallery-version", VERSION)), version("Creating")
    for hours, action in ((22, "leave"), (24, "delete")):
        (step,) = planned([entries], [found], context=replace(HERE, now=NOW + timedelta(hours=hours)))
        assert step.action == action


def test_an_artifact_of_that_name_that_another_run_made_stays() -> None:
    """Ours was refused, or has been replaced since."""
    for state in ("Succeeded", "Failed", "Creating"):
        (step,) = planned([record(("gallery-version", VERSION))], [version(state, run="r2")])
        assert step.action == "forget"


# -- by tags


def test_what_has_expired_is_a_leftover_whoever_made_it() -> None:
    tagged = [disk(expires=EARLIER, host="other-vm", run="r9"), disk(SNAPSHOT, expires=EARLIER, run="r8")]
    steps = planned([], tagged=tagged)
    assert told(steps) == ["delete disk", "delete snapshot"]
    assert [step.entry for step in steps] == [None, None] and EARLIER in reasons(steps)


@pytest.mark.parametrize("expires", [LATER, "", "nonsense", "2020-01-01"])
def test_what_has_not_expired_is_not_touched(expires: str) -> None:
    assert planned([], tagged=[disk(expires=expires, run="r9"), disk(SNAPSHOT, expires=expires, host="other-vm")]) == []


def test_what_carries_no_run_is_nobodys_business() -> None:
    found = disk(expires=EARLIER)
    assert planned([], tagged=[replace(found, tags={"azchroot-expires": EARLIER})]) == []


def test_nothing_of_a_living_run_is_touched() -> None:
    found = disk(expires=EARLIER, run="alive")
    assert planned([], tagged=[found], context=replace(HERE, living=frozenset({"alive"}))) == []
    assert planned([], tagged=[found], context=replace(HERE, spoken_for=frozenset({key(DISK)}))) == []
    assert told(planned([], tagged=[found])) == ["delete disk"]


def test_what_a_journal_here_names_is_done_once() -> None:
    found = disk(expires=EARLIER)
    assert told(planned([record(("disk", DISK))], [found], [found])) == ["delete disk"]


def test_an_expired_disk_is_detached_only_from_the_machine_that_made_it() -> None:
    found = disk(expires=EARLIER, host="other-vm", attached=OTHER_VM, lent=True)
    context = replace(HERE, machines={key(OTHER_VM): "other-vm"})
    assert told(planned([], tagged=[found], context=context)) == ["revoke access", "detach attachment", "delete disk"]
    assert told(
        planned([], tagged=[replace(found, attached=VM)], context=replace(HERE, machines={key(VM): "this-vm"}))
    ) == ["leave disk"]


def test_an_expired_disk_of_which_something_is_being_made_is_left() -> None:
    entries = record(("gallery-version", VERSION, {"until": LATER}))
    assert told(planned([entries], [version("Creating")], [disk(expires=EARLIER)])) == [
        "leave gallery-version",
        "leave disk",
    ]


# -- what Azure says


def test_what_azure_says_of_a_disk() -> None:
    body = {
        "id": DISK,
        "managedBy": VM,
        "tags": {"Azchroot-Run": "r1"},
        "properties": {"provisioningState": "Succeeded", "diskState": "ActiveSAS"},
    }
    assert resource("disk", body) == Resource(DISK, "disk", "Succeeded", {"azchroot-run": "r1"}, VM, lent=True)
    assert resource("disk", {"id": DISK}) == Resource(DISK, "disk", state="")


def test_what_artifacts_are_made_of() -> None:
    disks = {"osDisk": {"managedDisk": {"id": "/a"}}, "dataDisks": [{"lun": 0, "snapshot": {"id": "/b"}}]}
    assert resource("image", {"id": IMAGE, "properties": {"storageProfile": disks}}).sources == ("/a", "/b")
    disks = {"osDiskImage": {"source": {"id": "/c"}}, "dataDiskImages": [{"lun": 0, "source": {"id": "/d"}}]}
    assert resource("gallery-version", {"id": VERSION, "properties": {"storageProfile": disks}}).sources == ("/c", "/d")
    whole = {"source": {"id": "/e"}, "osDiskImage": None}
    assert resource("gallery-version", {"id": VERSION, "properties": {"storageProfile": whole}}).sources == ("/e",)
