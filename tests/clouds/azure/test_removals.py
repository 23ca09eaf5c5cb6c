"""azchroot sweep on the emulator: what dead runs left is gone, in the right order; what is not theirs stays."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from pytest_azchroot import cli, journal, machinery
from pytest_azchroot.clouds.azure import metadata, removals, shared
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.emulator.settings import Profile, Settings
from pytest_azchroot.errors import UnavailableError
from pytest_azchroot.journal import Journal

from .builds import until

pytestmark = pytest.mark.root

Json = dict[str, Any]
KILLED = """
import json, signal, sys
from pytest_azchroot.journal import Journal
begun = Journal.begin(host=sys.argv[1])
print(begun.run, flush=True)
for kind, id, facts in json.loads(sys.stdin.readline()):
    begun.intend(kind, id, **facts)
print("written", flush=True)
signal.pause()
"""


@pytest.fixture
def azure_emulator_settings(tmp_path: Path) -> Settings:
    """Attaching and detaching take a moment."""
    return Settings(tmp_path / "azure", profile=Profile({"virtualMachines.attachDetach": 0.3, "versions.create": 1.5}))


class Stage:
    """Azure, as builds have left it."""

    def __init__(self, emulator: AzureEmulator, capsys: pytest.CaptureFixture[str]) -> None:
        self.emulator = emulator
        self.compute: Any = emulator.compute()
        self._capsys = capsys
        self._seen = 0

    # -- what builds make

    def tags(self, run: str, *, host: str | None = None, hours: float = 24) -> dict[str, str]:
        """Of what is temporary."""
        expires = datetime.now(timezone.utc) + timedelta(hours=hours)
        vm = self.emulator.settings.vm_id if host is None else host
        return {"azchroot-run": run, "azchroot-host": vm, "azchroot-expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}"}

    def disk(self, name: str, tags: dict[str, str]) -> str:
        creation = {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1, "osType": "Linux"}
        body = {"location": "westus2", "tags": tags, "properties": creation}
        return str(self.compute.disks.begin_create_or_update("rg1", name, body).result().id)

    def snapshot(self, name: str, disk: str, tags: dict[str, str]) -> str:
        creation = {"creationData": {"createOption": "Copy", "sourceResourceId": disk}}
        body = {"location": "westus2", "tags": tags, "properties": creation}
        return str(self.compute.snapshots.begin_create_or_update("rg1", name, body).result().id)

    def attach(self, disk: str) -> None:
        body = {"dataDisksToAttach": [{"diskId": disk}]}
        self.compute.virtual_machines.begin_attach_detach_data_disks("rg1", "vm1", body).result()

    def grant(self, snapshot: str) -> None:
        body = {"access": "Read", "durationInSeconds": 300}
        self.compute.snapshots.begin_grant_access("rg1", snapshot, body).result()

    def version(self, name: str, disk: str, run: str) -> tuple[str, Any]:
        """Its id, and the operation that makes it."""
        self.compute.galleries.begin_create_or_update("rg1", "g", {"location": "westus2"}).result()
        identifier = {"publisher": "p", "offer": "o", "sku": "s"}
        properties = {"osType": "Linux", "osState": "Generalized", "hyperVGeneration": "V1", "identifier": identifier}
        definition = {"location": "westus2", "properties": properties}
        self.compute.gallery_images.begin_create_or_update("rg1", "g", "i", definition).result()
        profile = {"storageProfile": {"osDiskImage": {"source": {"id": disk}}}}
        body = {"location": "westus2", "tags": {"azchroot-run": run}, "properties": profile}
        poller = self.compute.gallery_image_versions.begin_create_or_update("rg1", "g", "i", name, body)
        group = f"/subscriptions/{self.emulator.subscription_id}/resourceGroups/rg1"
        return f"{group}/providers/Microsoft.Compute/galleries/g/images/i/versions/{name}", poller

    # -- what is there

    def there(self) -> set[str]:
        """The names of disks, snapshots and versions."""
        found = {each.name for each in [*self.compute.disks.list(), *self.compute.snapshots.list()]}
        for gallery in self.compute.galleries.list():
            found |= {
                each.name
                for each in self.compute.gallery_image_versions.list_by_gallery_image("rg1", gallery.name, "i")
            }
        return found - {"vm1-os", "vm1_OsDisk"}

    def asked(self) -> list[str]:
        """Changes since the last time, in their order: ``DELETE disks d1``."""
        calls = self.emulator.calls()
        new, self._seen = calls[self._seen :], len(calls)
        changes = [
            call for call in new if call["method"] in {"POST", "PUT", "DELETE"} and "compute" in call["path"].lower()
        ]
        return [f"{call['method']} {call['path'].split('/')[-1]}" for call in changes if call["status"] < 400]

    def sweep(self, *options: str) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        self.asked()
        self._capsys.readouterr()
        code = cli.main(["sweep", *options])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def stage(
    azure_emulator: AzureEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Stage:
    """Nothing of this machine but its journals is looked at."""
    monkeypatch.setenv(journal.STATE_DIRECTORY, str(tmp_path / "state"))
    monkeypatch.setattr(shared, "SYSTEM", tmp_path / "run")
    monkeypatch.setattr(machinery, "find", list)
    return Stage(azure_emulator, capsys)


@contextmanager
def living(stage: Stage, *, host: str | None = None) -> Iterator[tuple[str, Callable[..., None], Callable[[], None]]]:
    """A process that holds its journal. Yields its run, what writes into the journal, and what kills it."""
    vm = stage.emulator.settings.vm_id if host is None else host
    command = [sys.executable, "-c", KILLED, vm]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None

    def write(*entries: tuple[str, str, dict[str, str]]) -> None:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(entries) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "written\n"

    def kill() -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    try:
        yield process.stdout.readline().strip(), write, kill
    finally:
        kill()
        process.stdin.close()
        process.stdout.close()


def journals(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "state" / "journal").iterdir()]


def test_all_that_a_killed_run_left_goes_in_its_order(stage: Stage, tmp_path: Path) -> None:
    vm = stage.emulator.vm_id
    with living(stage) as (run, write, kill):
        tags = stage.tags(run)
        disk, other = stage.disk("d1", tags), stage.disk("d2", tags)
        snapshot = stage.snapshot("s1", disk, tags)
        stage.grant("s1")
        stage.attach(disk)
        gone = disk.replace("d1", "gone")
        write(
            ("disk", disk, {}), ("disk", other, {}), ("disk", gone, {}), ("attachment", disk, {"vm": vm}),
            ("snapshot", snapshot, {}), ("access", snapshot, {}),
        )  # fmt: skip
        kill()
    code, output, errors = stage.sweep("--dry-run")
    assert (code, stage.asked(), errors) == (0, [], "")
    assert f"would delete disk rg1/d1: left by a run that died (run {run}, which began 20" in output
    assert "would detach disk rg1/d1 from vm1" in output and "if this were no dry run" in output
    assert stage.there() == {"d1", "d2", "s1"} and len(journals(tmp_path)) == 1
    code, output, errors = stage.sweep()
    asked = stage.asked()
    assert (code, errors) == (0, "")
    assert asked[:2] == ["POST endGetAccess", "POST attachDetachDataDisks"]
    assert set(asked[2:4]) == {"DELETE d1", "DELETE d2"} and asked[4:] == ["DELETE s1"]
    assert f"deleted disk rg1/d1: left by a run that died (run {run}" in output
    assert "revoked access to rg1/s1" in output and output.endswith("3 deleted, 1 detached, 1 revoked\n")
    assert stage.there() == set() and journals(tmp_path) == []
    assert stage.sweep() == (0, "dead runs have left nothing\n", "")


def test_nothing_of_a_living_run_is_touched(stage: Stage, tmp_path: Path) -> None:
    """Not even what has expired, or is not yet in its journal."""
    with living(stage) as (run, write, kill):
        disk = stage.disk("d1", stage.tags(run, hours=-1))
        stage.disk("d2", stage.tags(run, hours=-1))
        write(("disk", disk, {}))
        assert stage.sweep() == (0, "dead runs have left nothing\n", "")
        assert stage.asked() == [] and stage.there() == {"d1", "d2"}
        kill()
        code, output, _ = stage.sweep()
        assert code == 0 and output.endswith("2 deleted\n")
    assert stage.there() == set() and journals(tmp_path) == []


@pytest.mark.parametrize("abandon", [False, True])
def test_a_version_that_is_still_made_keeps_its_disk(stage: Stage, tmp_path: Path, abandon: bool) -> None:
    with living(stage) as (run, write, kill):
        disk = stage.disk("d1", stage.tags(run))
        version, poller = stage.version("1.0.0", disk, run)
        until = datetime.now(timezone.utc) + timedelta(hours=1)
        write(("disk", disk, {}), ("gallery-version", version, {"until": until.isoformat()}))
        kill()
    if abandon:
        code, output, errors = stage.sweep("--abandon")
        assert (code, errors, stage.asked()) == (0, "", ["DELETE 1.0.0", "DELETE d1"])
        assert "deleted gallery-version rg1/g/i/1.0.0: it is still Creating, and abandoned" in output
        assert stage.there() == set() and journals(tmp_path) == []
        return
    code, output, errors = stage.sweep()
    assert (code, errors, stage.asked()) == (0, "", [])
    assert "left gallery-version rg1/g/i/1.0.0: it is still Creating" in output and "left disk rg1/d1" in output
    assert len(journals(tmp_path)) == 1
    poller.result()
    code, output, errors = stage.sweep()
    assert (code, errors, stage.asked()) == (0, "", ["DELETE d1"])
    assert "kept gallery-version rg1/g/i/1.0.0: it was published by a run that died" in output
    assert stage.there() == {"1.0.0"} and journals(tmp_path) == []


def test_a_version_that_failed_is_deleted_with_its_disk(stage: Stage, tmp_path: Path) -> None:
    stage.emulator.fault(operation="versions.create", code="InternalExecutionError")
    with living(stage) as (run, write, kill):
        disk = stage.disk("d1", stage.tags(run))
        version, poller = stage.version("1.0.0", disk, run)
        with pytest.raises(HttpResponseError):
            poller.wait()
        write(("disk", disk, {}), ("gallery-version", version, {}))
        kill()
    code, output, _ = stage.sweep()
    assert (code, stage.asked()) == (0, ["DELETE 1.0.0", "DELETE d1"]) and "its state is Failed" in output
    assert stage.there() == set() and journals(tmp_path) == []


def test_tags_of_other_machines(stage: Stage) -> None:
    """By their expiry alone; attached disks are let go only where they were made."""
    vm = stage.emulator.settings.vm_id
    stage.disk("expired", stage.tags("r1", host="other", hours=-1))
    stage.snapshot(
        "expired-too", stage.disk("fresh", stage.tags("r2", host="other")), stage.tags("r1", host="other", hours=-1)
    )
    stage.attach(stage.disk("attached", stage.tags("r3", host=vm, hours=-1)))
    stage.attach(stage.disk("wanted", stage.tags("r4", host="other", hours=-1)))
    stage.disk("mine", {"azchroot-expires": "2020-01-01T00:00:00Z", "purpose": "no run of ours"})
    code, output, errors = stage.sweep()
    assert (code, errors) == (0, "")
    assert stage.there() == {"fresh", "wanted", "mine"}
    assert "left disk rg1/wanted: it is attached to" in output and output.endswith("3 deleted, 1 detached, 1 left\n")


def test_a_sweep_on_another_machine(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lets go of what the machine has that made it."""
    found = metadata.machine()
    elsewhere = dataclasses.replace(found, vm_id="elsewhere", resource_id=found.resource_id.replace("vm1", "vm2"))
    monkeypatch.setattr(metadata, "machine", lambda **_: elsewhere)
    stage.attach(stage.disk("d1", stage.tags("r1", hours=-1)))
    stage.attach(stage.disk("d2", stage.tags("r2", hours=-1, host="another")))
    code, output, errors = stage.sweep()
    assert (code, errors, stage.asked()) == (0, "", ["POST attachDetachDataDisks", "DELETE d1"])
    assert stage.there() == {"d2"} and "left disk rg1/d2: it is attached to" in output


def test_a_sweep_that_is_in_no_azure(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription can be named; without it nothing is asked, unless a journal names something."""

    def none(**_: Any) -> Machine:
        raise UnavailableError("this is no Azure VM")

    monkeypatch.setattr(metadata, "machine", none)
    stage.disk("d1", stage.tags("r1", hours=-1))
    code, output, errors = stage.sweep()
    assert (code, output) == (0, "dead runs have left nothing\n") and "tags in Azure were not looked at" in errors
    with living(stage) as (run, write, kill):
        write(("disk", stage.disk("d2", stage.tags(run)), {}))
        kill()
    code, output, errors = stage.sweep("--subscription", stage.emulator.subscription_id)
    assert code == 0 and "what has not expired in Azure is left" in errors
    assert output.endswith("1 deleted, 1 left\n") and stage.there() == {"d2"}


def test_what_cannot_be_deleted_is_told_and_does_not_stop_the_rest(stage: Stage, tmp_path: Path) -> None:
    with living(stage) as (run, write, kill):
        disks = [stage.disk(name, stage.tags(run)) for name in ("d1", "d2", "d3")]
        write(*(("disk", disk, {}) for disk in disks))
        kill()
    stage.emulator.fault(
        operation="disks.delete", resource="*/d1", nth=1, code="InternalExecutionError", message="no luck"
    )
    stage.emulator.fault(call="DELETE disks", resource="*/d2", nth=1, status=403, code="AuthorizationFailed")
    code, output, errors = stage.sweep()
    assert code == 1 and output.endswith("1 deleted, 2 failed\n")
    assert "failed disk rg1/d1" in errors and "no luck" in errors and "AuthorizationFailed" in errors
    (found,) = journal.records()
    assert found.record is not None and [entry.id for entry in found.record.entries] == disks[:2]
    code, output, errors = stage.sweep()
    assert (code, errors) == (0, "") and output.endswith("2 deleted\n")
    assert stage.there() == set() and journals(tmp_path) == []


def test_a_disk_that_is_busy_is_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while it is still being made, or detached: 409."""
    with living(stage) as (run, write, kill):
        disk = stage.disk("d1", stage.tags(run))
        write(("disk", disk, {}))
        kill()
    stage.emulator.fault(call="DELETE disks", nth=1, status=409, code="OperationNotAllowed")
    code, output, _ = stage.sweep()
    assert (code, stage.there()) == (0, set()) and output.endswith("1 deleted\n")
    # for ever, it is told
    monkeypatch.setattr(removals, "PATIENCE", 1.0)
    stage.disk("d2", stage.tags("r", hours=-1))
    stage.emulator.fault(call="DELETE disks", status=409, code="OperationNotAllowed")
    code, _, errors = stage.sweep()
    assert code == 1 and "OperationNotAllowed" in errors


def test_a_disk_that_cannot_be_detached_is_not_deleted(stage: Stage) -> None:
    with living(stage) as (run, write, kill):
        disk = stage.disk("d1", stage.tags(run))
        stage.attach(disk)
        write(("disk", disk, {}), ("attachment", disk, {"vm": stage.emulator.vm_id}))
        kill()
    stage.emulator.fault(
        call="POST virtualMachines/attachDetachDataDisks", nth=1, status=403, code="AuthorizationFailed"
    )
    code, _, errors = stage.sweep()
    assert code == 1 and "AuthorizationFailed" in errors and "it was not tried" in errors
    assert stage.there() == {"d1"}
    assert stage.sweep()[0] == 0 and stage.there() == set()


def test_what_arrives_after_its_sender_has_died(stage: Stage) -> None:
    """The disk appears while the sweep looks."""
    with living(stage) as (run, write, kill):
        disk = stage.disk("d1", stage.tags(run))
        write(("disk", disk, {}))
        kill()
    stage.emulator.fault(call="GET disks", resource="*/d1", nth=1, status=404, code="ResourceNotFound")
    found = journal.records()
    assert len(list(found)) == 1
    assert stage.sweep()[0] == 0 and stage.there() == set()


def test_only_the_groups_in_question_where_nobody_may_list_all(stage: Stage) -> None:
    stage.disk("d1", stage.tags("r", hours=-1))
    subscription = f"/subscriptions/{stage.emulator.subscription_id}/providers/*"
    stage.emulator.fault(call="GET disks", resource=subscription, status=403, code="AuthorizationFailed")
    code, output, errors = stage.sweep()
    assert (code, errors) == (0, "") and output.endswith("1 deleted\n")


def test_tags_that_cannot_be_listed_are_a_failure_that_stops_nothing(stage: Stage) -> None:
    with living(stage) as (run, write, kill):
        write(("disk", stage.disk("d1", stage.tags(run)), {}))
        kill()
    stage.emulator.fault(call="GET snapshots", status=403, code="AuthorizationFailed")
    code, output, errors = stage.sweep()
    assert code == 1 and "listing the snapshots" in errors and output.endswith("1 deleted\n")


def test_a_journal_of_another_machine(stage: Stage, tmp_path: Path) -> None:
    """As in a state directory that was copied: its run may live there."""
    with living(stage, host="other") as (run, write, kill):
        write(("disk", stage.disk("d1", stage.tags(run, host="other")), {}))
        kill()
    code, output, _ = stage.sweep()
    assert (code, stage.there()) == (0, {"d1"}) and "it is of another machine, whose run may live until" in output
    assert len(journals(tmp_path)) == 1


def test_two_sweeps_at_once_do_not_meet(stage: Stage) -> None:
    with living(stage) as (run, write, kill):
        write(("disk", stage.disk("d1", stage.tags(run, hours=-1)), {}))
        kill()
    (found,) = journal.records()
    other = Journal.adopted(found.path)
    assert other is not None
    assert stage.sweep() == (0, "dead runs have left nothing\n", "")
    other.close()
    assert stage.sweep()[1].endswith("1 deleted\n")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_is_killed_is_finished_by_the_next(stage: Stage, tmp_path: Path, how: signal.Signals) -> None:
    with living(stage) as (run, write, kill):
        write(*(("disk", stage.disk(name, stage.tags(run)), {}) for name in ("d1", "d2")))
        kill()
    stage.emulator.fault(operation="disks.delete", resource="*/d1", nth=1, endless=True)
    code = "from pytest_azchroot import cli, machinery; machinery.find = list; cli.main(['sweep'])"
    sweep = subprocess.Popen([sys.executable, "-c", code], env=stage.emulator.environment, stdout=subprocess.DEVNULL)
    until(lambda: stage.there() == {"d1"})
    sweep.send_signal(how)
    assert sweep.wait(20) == -how
    code_, output, _ = stage.sweep()
    assert code_ == 0 and output.endswith("1 deleted\n")
    assert stage.there() == set() and journals(tmp_path) == []


def test_json(stage: Stage) -> None:
    with living(stage) as (run, write, kill):
        disk = stage.disk("d1", stage.tags(run))
        write(("disk", disk, {}))
        kill()
    code, output, _ = stage.sweep("--json", "--dry-run")
    (step,) = json.loads(output)["steps"]
    assert code == 0 and (step["action"], step["kind"], step["id"], step["run"]) == ("delete", "disk", disk, run)
    stage.emulator.fault(call="DELETE disks", nth=1, status=403, code="AuthorizationFailed")
    code, output, errors = stage.sweep("--json")
    assert code == 1 and errors == "" and "AuthorizationFailed" in json.loads(output)["steps"][0]["error"]
    code, output, _ = stage.sweep("--json")
    assert code == 0 and json.loads(output)["steps"][0]["error"] is None


def test_a_machine_without_identity_has_built_nothing_in_azure(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.emulator.fault(call="GET *token*", status=400, code="invalid_request")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    code, output, errors = stage.sweep()
    assert (code, output) == (0, "dead runs have left nothing\n") and "tags in Azure were not looked at" in errors
    code, _, errors = stage.sweep("--subscription", stage.emulator.subscription_id)
    assert code == 1
