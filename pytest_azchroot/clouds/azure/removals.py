"""A sweep's business with Azure: what is there, and the steps of a plan."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

from pytest_azchroot.clouds.azure import credentials, environments
from pytest_azchroot.clouds.azure.broker import Broker
from pytest_azchroot.clouds.azure.client import Azure, quiet
from pytest_azchroot.clouds.azure.environments import Environment
from pytest_azchroot.clouds.azure.leftovers import KINDS, RUN_TAG, Resource, key, phase, resource
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.pace import Pace
from pytest_azchroot.clouds.azure.refusals import AzureError, CredentialError, explained
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.journal import Open, Record
from pytest_azchroot.removal import Outcome, Removal
from pytest_azchroot.spec.azure_ids import ResourceId, parse_resource_id
from pytest_azchroot.spec.model import ImageSpec

ENVIRONMENT, METADATA_HOST = "environment", "metadata_host"
"""Facts of an entry that say which Azure it is in; without them it is the machine's own."""

PATIENCE = 300.0
"""Seconds for which something is tried again that is busy."""
_TIMEOUT = 900.0
"""Seconds for an operation to end."""
_IN_FLIGHT = 1.0
"""Seconds in which a request arrives whose sender is dead."""
_AT_ONCE = 8
_PAUSE, _LONGEST = 0.5, 10.0
_OF_A_MACHINE = Pace(1.0, 15.0, 0.15, first=1.0)
# a virtual machine allows 15 questions a minute: learn.microsoft.com, "Compute throttling limits"
_FORBIDDEN = 403
_TYPES = {
    "microsoft.compute/disks": ("disk", "disks"),
    "microsoft.compute/snapshots": ("snapshot", "snapshots"),
    "microsoft.compute/images": ("image", "images"),
    "microsoft.compute/galleries/images/versions": ("gallery-version", "gallery_image_versions"),
    "microsoft.compute/virtualmachines": ("virtual machine", "virtual_machines"),
}


@dataclass(frozen=True)
class _Thing:
    """An id, and where the SDK has its operations."""

    id: ResourceId
    kind: str
    operations: Any

    @property
    def path(self) -> tuple[str, ...]:
        """The first arguments of its operations."""
        return self.id.resource_group, *self.id.names

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.kind} {self.id.names[-1]}"

    def get(self) -> Mapping[str, Any]:
        """:raises AzureError: it is not there, or nobody lets us look at it."""
        with explained(f"looking for the {self.name}"):
            found: Mapping[str, Any] = self.operations.get(*self.path)
            return found


def _thing(azure: Azure, id: str) -> _Thing:
    """:raises AzchrootError: the id is none of Azure's, or of something else."""
    try:
        parts = parse_resource_id(id)
        kind, operations = _TYPES[parts.kind.lower()]
    except (ValueError, KeyError) as error:
        raise AzchrootError(f"{id} is the id of nothing that a build makes") from error
    return _Thing(parts, kind, getattr(azure.compute(parts.subscription_id), operations))


class Reach:
    """Ways to everything that journals name: there may be several Azures.

    :param patience: seconds; default :data:`PATIENCE`.
    """

    def __init__(
        self, machine: Machine | None, *, patience: float | None = None, say: Callable[[str], None] = quiet
    ) -> None:
        self._machine = machine
        self._patience = PATIENCE if patience is None else patience
        self._say = say
        self._lock = threading.Lock()
        self._azures: dict[str, Azure] = {}
        self._brokers: dict[Azure, Broker] = {}
        self._of: dict[str, Azure] = {}

    def close(self) -> None:
        """Let go of all connections."""
        for azure in self._azures.values():
            azure.close()

    # -- what is there

    def look(self, records: Sequence[Record]) -> tuple[dict[str, Resource | None], list[Outcome]]:
        """What entries name, by key, and entries that cannot be looked at.

        :raises CredentialError: nobody gives us a token.
        """
        entries = [(record, entry) for record in records for entry in record.entries if entry.kind in KINDS]
        seen: dict[str, Resource | None] = {}
        outcomes: list[Outcome] = []

        def one(record: Record, entry: Open) -> Resource | AzchrootError | None:
            try:
                found = self._found(entry)
                age = (datetime.now(timezone.utc) - entry.at).total_seconds()
                if found is None and age < _IN_FLIGHT:
                    time.sleep(_IN_FLIGHT - max(age, 0.0))
                    found = self._found(entry)
                return found
            except CredentialError:
                raise
            except AzchrootError as error:
                return error

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = list(pool.map(lambda case: one(*case), entries))
        for (record, entry), answer in zip(entries, answers, strict=True):
            if isinstance(answer, AzchrootError):
                step = Removal(
                    "leave", entry.kind, entry.id, "it cannot be looked at", run=record.run, began=record.started
                )
                outcomes.append(Outcome(step, answer))
            else:
                seen[key(entry.id)] = answer
        for outcome in outcomes:
            seen.pop(key(outcome.removal.id), None)
        return seen, outcomes

    def tagged(self, subscription: str, groups: Iterable[str] = ()) -> list[Resource]:
        """Disks and snapshots with tags of ours.

        :param groups: resource groups to look into if nobody lets us look into the whole subscription.
        :raises AzureError: we may not, or have no credential.
        """
        with self._lock:
            azure = self._azure({})
        compute = azure.compute(subscription)
        found: dict[str, Resource] = {}
        for kind, operations in (("disk", compute.disks), ("snapshot", compute.snapshots)):
            for body in _listed(f"listing the {kind}s of subscription {subscription}", operations, list(groups)):
                each = resource(kind, body)
                if RUN_TAG in each.tags:
                    found[key(each.id)] = each
                    self._of[key(each.id)] = azure
        return list(found.values())

    def machines(self, found: Iterable[Resource | None]) -> dict[str, str]:
        """The unique ids of the virtual machines that have these disks, by key; without those that nobody lets us look
        at."""
        ids = {key(each.attached): each for each in found if each is not None and each.attached is not None}
        result: dict[str, str] = {}
        for id, disk in ids.items():
            if self._machine is not None and id == key(self._machine.resource_id):
                result[id] = self._machine.vm_id
                continue
            try:
                body = _thing(self._of[key(disk.id)], str(disk.attached)).get()
            except AzchrootError:
                continue  # it counts as somebody's: its disk is left, and that is told
            result[id] = str((body.get("properties") or {}).get("vmId") or "")
        return result

    def _found(self, entry: Open) -> Resource | None:
        with self._lock:
            azure = self._of[key(entry.id)] = self._azure(entry.facts)
        thing = _thing(azure, entry.id)
        try:
            return resource(thing.kind, thing.get())
        except AzureError as error:
            if error.is_missing:
                return None
            raise

    def _azure(self, facts: Mapping[str, str]) -> Azure:
        environment = self._environment(facts)
        if environment.resource_manager not in self._azures:
            credential = credentials.credential(ImageSpec(cloud="azure"), self._machine, environment)
            self._azures[environment.resource_manager] = Azure(credential, environment=environment, say=self._say)
        return self._azures[environment.resource_manager]

    def _environment(self, facts: Mapping[str, str]) -> Environment:
        spec = ImageSpec(
            cloud="azure", metadata_host=facts.get(METADATA_HOST), cloud_environment_name=facts.get(ENVIRONMENT)
        )
        return environments.environment(spec, self._machine)

    # -- the steps

    def carried_out(self, steps: Sequence[Removal], seen: Mapping[str, Resource | None]) -> Iterator[Outcome]:
        """Carry out a plan. A step that fails keeps those from being tried that need it, and no others."""
        failed: dict[str, AzchrootError] = {}
        vms = {(key(step.id), key(step.vm)) for step in steps if step.vm}
        for _, group in groupby(steps, phase):
            together = list(group)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                outcomes = list(pool.map(lambda step: self._outcome(step, vms, failed), together))
            for outcome in outcomes:
                if outcome.error is not None:
                    found = seen.get(key(outcome.removal.id))
                    for id in (outcome.removal.id, *(found.sources if found else ())):
                        failed.setdefault(key(id), outcome.error)
                yield outcome

    def _outcome(self, step: Removal, vms: set[tuple[str, str]], failed: Mapping[str, AzchrootError]) -> Outcome:
        if step.action not in {"revoke", "detach", "delete"}:
            return Outcome(step)
        if earlier := failed.get(key(step.id)):
            return Outcome(step, AzchrootError("it was not tried", why=earlier.what))
        try:
            self._insist(step, vms)
        except AzchrootError as error:
            return Outcome(step, error)
        return Outcome(step)

    def _insist(self, step: Removal, vms: set[tuple[str, str]]) -> None:
        """Carry out a step as soon as Azure is not busy with the thing. What is gone needs nothing."""
        deadline, pause = time.monotonic() + self._patience, _PAUSE
        while True:
            try:
                self._do(step)
                return
            except AzureError as error:
                if error.is_missing:
                    return
                if not error.is_busy or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST)
            if step.action == "delete" and step.kind == "disk":
                self._let_go(step, vms)

    def _let_go(self, step: Removal, vms: set[tuple[str, str]]) -> None:
        """Detach a disk whose attaching was under way when it was looked at."""
        vm = resource("disk", _thing(self._of[key(step.id)], step.id).get()).attached
        if vm is not None and (key(step.id), key(vm)) in vms:
            self._detach(step.id, vm)

    def _do(self, step: Removal) -> None:
        if step.action == "detach":
            self._detach(step.id, str(step.vm))
            return
        azure = self._of[key(step.id)]
        thing = _thing(azure, step.id)
        call, doing = thing.operations.begin_delete, f"deleting the {thing.name}"
        if step.action == "revoke":
            call, doing = thing.operations.begin_revoke_access, f"revoking access to the {thing.name}"
        azure.begin(doing, call, *thing.path).wait(_TIMEOUT)

    def _detach(self, disk: str, vm: str) -> None:
        azure = self._of[key(disk)]
        if self._machine is not None and key(vm) == key(self._machine.resource_id):
            broker = self._broker(azure, self._machine)
            broker.detach(disk, timeout=self._patience)
            broker.wait_detached(disk, timeout=self._patience)
            return
        thing = _thing(azure, vm)
        call, body = thing.operations.begin_attach_detach_data_disks, {"dataDisksToDetach": [{"diskId": disk}]}
        doing = f"detaching {disk.rpartition('/')[2]} from the {thing.name}"
        azure.begin(doing, call, *thing.path, body, pace=_OF_A_MACHINE).wait(_TIMEOUT)

    def _broker(self, azure: Azure, machine: Machine) -> Broker:
        with self._lock:
            if azure not in self._brokers:
                self._brokers[azure] = Broker(azure, machine, say=self._say)
            return self._brokers[azure]


def _listed(doing: str, operations: Any, groups: Sequence[str]) -> list[Mapping[str, Any]]:
    try:
        with explained(doing):
            return list(operations.list())
    except AzureError as error:
        if error.status != _FORBIDDEN or not groups:
            raise
    with explained(doing):
        return [each for group in groups for each in operations.list_by_resource_group(group)]
