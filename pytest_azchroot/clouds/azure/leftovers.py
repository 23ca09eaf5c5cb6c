"""What dead runs left in Azure, and what to do about it: pure, from what journals and Azure say.

A run's journal tells what it may have made. That something was really made by it, and not by somebody else under the
same name, its tag ``azchroot-run`` says. What has no journal here is known by its tags, and is a leftover once
``azchroot-expires`` has passed; before, it may be a living run's of another machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from pytest_azchroot.journal import Open, Record
from pytest_azchroot.removal import Action, Removal

RUN_TAG = "azchroot-run"
HOST_TAG = "azchroot-host"
EXPIRES_TAG = "azchroot-expires"
DIGEST_TAG = "azchroot-digest"

ARTIFACTS = ("image", "gallery-version")
KINDS = ("disk", "snapshot", "attachment", "access", *ARTIFACTS)
"""Of journal entries that are about Azure."""

UNTIL, ABANDONED = "until", "abandoned"
"""Facts of the entry of an artifact: the time until which it may be on its way, ISO 8601; that its run gave it up."""
UNFINISHED = timedelta(days=1)
"""How long an artifact is waited for whose entry does not say it. The replication of a large version takes hours."""

_NOBODY = "nobody"
_NOT_THERE = "it is not there"
_NOT_OURS = "what has this name was not made by this run"
_FAILED = ("failed", "canceled")
_LENT = ("ActiveSAS", "ActiveSASFrozen", "ActiveUpload")
# learn.microsoft.com, REST reference of Disks, DiskState


@dataclass(frozen=True)
class Resource:
    """What Azure says of a disk, a snapshot, an image or a gallery version."""

    id: str
    kind: str
    state: str = "Succeeded"
    """``provisioningState``."""
    tags: Mapping[str, str] = field(default_factory=dict)
    attached: str | None = None
    """The id of the virtual machine that has the disk."""
    lent: bool = False
    """Whether somebody may read or write it by a signed URL."""
    sources: tuple[str, ...] = ()
    """The ids that an image or version is made of."""


@dataclass(frozen=True)
class Context:
    """Where and when a sweep is made."""

    now: datetime
    host: str | None
    """The unique id of this machine; None if it is no virtual machine of Azure."""
    living: frozenset[str] = frozenset()
    """Runs that live here."""
    spoken_for: frozenset[str] = frozenset()
    """Keys of what is in the journals of runs that live here."""
    machines: Mapping[str, str] = field(default_factory=dict)
    """Keys of virtual machines that have a disk in question, and their unique ids."""
    abandon: bool = False
    """Whether artifacts that are not complete are deleted at once."""


def key(id: str) -> str:
    """Ids are the same in any case."""
    return id.lower()


def resource(kind: str, body: Mapping[str, Any]) -> Resource:
    """Read what Azure says."""
    properties: Mapping[str, Any] = body.get("properties") or {}
    return Resource(
        str(body["id"]),
        kind,
        state=str(properties.get("provisioningState") or ""),
        tags={str(name).lower(): str(value) for name, value in (body.get("tags") or {}).items()},
        attached=body.get("managedBy") or None,
        lent=properties.get("diskState") in _LENT,
        sources=tuple(_sources(properties.get("storageProfile") or {})),
    )


def _sources(storage: Mapping[str, Any]) -> Iterator[str]:
    disks = [storage, *(storage.get(name) for name in ("osDisk", "osDiskImage"))]
    for disk in [*disks, *(storage.get("dataDisks") or ()), *(storage.get("dataDiskImages") or ())]:
        for name in ("source", "managedDisk", "snapshot"):
            if disk and (id_ := (disk.get(name) or {}).get("id")):
                yield str(id_)


def is_made_of(found: Resource, disk: str) -> bool:
    """Whether an artifact is made of a disk, as far as Azure says. Its tags do not tell: where one is there already,
    to ask for it once more may change them, and nothing else."""
    return not found.sources or key(disk) in map(key, found.sources)


def plan(
    records: Sequence[Record], seen: Mapping[str, Resource | None], tagged: Iterable[Resource], context: Context
) -> list[Removal]:
    """What to do, in the order in which to do it.

    :param records: of dead runs.
    :param seen: what their entries name, by :func:`key`: None is not there. An entry whose thing is not in it is left
        out.
    :param tagged: disks and snapshots with tags of ours, wherever they come from.
    """
    cases = [
        _Case(record, entry, seen[key(entry.id)])
        for record in records
        for entry in record.entries
        if entry.kind in KINDS and key(entry.id) in seen
    ]
    artifacts = [(case, _artifact(case, context)) for case in cases if case.entry.kind in ARTIFACTS]
    needed = {
        key(source): case.entry.id
        for case, step in artifacts
        if step.action == "leave" and case.found is not None
        for source in case.found.sources
    }
    known = _Known(context, needed, frozenset(case.attachment for case in cases if case.entry.kind == "attachment"))
    steps = [step for _, step in artifacts]
    for case in cases:
        if case.entry.kind not in ARTIFACTS:
            steps += _of_entry(case, known)
    named = {key(entry.id) for record in records for entry in record.entries} | context.spoken_for
    for found in tagged:
        if key(found.id) not in named:
            steps += _of_tags(found, known)
    return sorted(_each_once(steps), key=phase)


def is_due(found: Resource, context: Context) -> bool:
    """Whether something that no journal here names is a leftover by its tags."""
    expires = _moment(found.tags.get(EXPIRES_TAG))
    run = found.tags.get(RUN_TAG)
    return run is not None and run not in context.living and expires is not None and expires <= context.now


# -- what an entry means


@dataclass(frozen=True)
class _Case:
    record: Record
    entry: Open
    found: Resource | None
    """What its id names."""

    @property
    def attachment(self) -> tuple[str, str, str]:
        """Which run has attached what to which machine."""
        return self.record.run, key(self.entry.id), key(self.entry.facts.get("vm", ""))

    def step(self, action: Action, reason: str, *, vm: str | None = None) -> Removal:
        """A step that ends the entry, or leaves it."""
        run, entry = self.record, self.entry
        return Removal(action, entry.kind, entry.id, reason, run=run.run, began=run.started, entry=entry.number, vm=vm)

    @property
    def made(self) -> bool:
        """Whether what is there was made by this run."""
        found, disk = self.found, self.entry.facts.get("disk")
        if found is None or found.tags.get(RUN_TAG) != self.record.run:
            return False
        return disk is None or is_made_of(found, disk)

    def foreign(self, until: datetime | None, context: Context) -> Removal | None:
        """The step if the journal is another machine's: nobody here knows whether its run lives."""
        if self.record.host == context.host or (until is not None and until <= context.now):
            return None
        then = "" if until is None else f" until {_told(until)}"
        return self.step("leave", f"it is of another machine, whose run may live{then}")


@dataclass(frozen=True)
class _Known:
    context: Context
    needed: Mapping[str, str]
    """Keys of what artifacts are being made of, and the ids of those."""
    attachments: frozenset[tuple[str, str, str]]
    """Of :attr:`_Case.attachment`."""


def _artifact(case: _Case, context: Context) -> Removal:
    if case.found is None:
        return case.step("forget", _NOT_THERE)
    if not case.made:
        return case.step("forget", _NOT_OURS)
    state, facts = case.found.state, case.entry.facts
    undone = bool(facts.get(ABANDONED))
    if state.lower() == "succeeded" and not undone:
        return case.step("keep", "it was published by a run that died")
    until = _moment(facts.get(UNTIL)) or case.entry.at + UNFINISHED
    if foreign := case.foreign(until, context):
        return foreign
    if undone:
        return case.step("delete", "the run had given it up, and died while it deleted it")
    return case.step(*_unfinished(state, until, context))


def _unfinished(state: str, until: datetime, context: Context) -> tuple[Action, str]:
    if state.lower() == "updating":
        return "leave", "it was published, and is being changed since"
    if state.lower() in _FAILED:
        return "delete", f"it was not made: its state is {state}"
    if until <= context.now:
        return "delete", f"it is still {state}, and was given until {_told(until)}"
    if context.abandon:
        return "delete", f"it is still {state}, and abandoned"
    return "leave", f"it is still {state}, and given until {_told(until)}; --abandon deletes it"


def _of_entry(case: _Case, known: _Known) -> Iterator[Removal]:
    found, context = case.found, known.context
    if found is None:
        yield case.step("forget", _NOT_THERE)
    elif not case.made:
        yield case.step("forget", _NOT_OURS)
    elif foreign := case.foreign(_moment(found.tags.get(EXPIRES_TAG)), context):
        yield foreign
    elif case.entry.kind == "access":
        yield case.step("revoke" if found.lent else "forget", "a run that died had access to it")
    elif case.entry.kind == "attachment":
        yield _attachment(case, found)
    else:
        ours = found.attached is None or (case.record.run, key(found.id), key(found.attached)) in known.attachments
        yield from _emptied(found, case.step("delete", "left by a run that died"), known, ours=ours)


def _attachment(case: _Case, found: Resource) -> Removal:
    if found.attached is None:
        return case.step("forget", "it is not attached", vm=case.entry.facts.get("vm"))
    if key(found.attached) != case.attachment[2]:
        return case.step("forget", f"it was not this run that attached it to {found.attached}")
    return case.step("detach", "attached by a run that died", vm=found.attached)


def _of_tags(found: Resource, known: _Known) -> Iterator[Removal]:
    if is_due(found, known.context):
        reason = f"it expired at {found.tags[EXPIRES_TAG]}, as its tag says"
        step = Removal("delete", found.kind, found.id, reason, run=found.tags[RUN_TAG])
        yield from _emptied(found, step, known, ours=found.attached is None)


def _emptied(found: Resource, step: Removal, known: _Known, *, ours: bool) -> Iterator[Removal]:
    """The deletion of a disk or snapshot, and what has to be before.

    :param ours: it is attached nowhere, or by the run that made it.
    """
    vm = found.attached
    if key(found.id) in known.needed:
        yield replace(step, action="leave", reason=f"{known.needed[key(found.id)]} is being made of it")
        return
    # A run attaches its disks to its own machine: another machine has it because somebody wants it.
    if vm and not ours and known.context.machines.get(key(vm)) != (found.tags.get(HOST_TAG) or _NOBODY):
        yield replace(step, action="leave", reason=f"it is attached to {vm}, which is not where it was made")
        return
    if vm:
        yield replace(step, action="detach", kind="attachment", vm=vm, entry=None)
    if found.lent:
        yield replace(step, action="revoke", kind="access", entry=None)
    yield step


# -- words and order


def _each_once(steps: Sequence[Removal]) -> Iterator[Removal]:
    """A step that an entry asks for is not needed for another's sake."""
    asked = {(step.action, key(step.id)) for step in steps if step.entry is not None}
    for step in steps:
        if step.entry is not None or (step.action, key(step.id)) not in asked:
            yield step


def phase(step: Removal) -> int:
    """Access and attachments keep a disk from being deleted; what is made of a disk goes before it."""
    if step.action != "delete":
        return {"revoke": 0, "detach": 1}.get(step.action, 5)
    return {"disk": 3, "snapshot": 4}.get(step.kind, 2)


def _moment(text: str | None) -> datetime | None:
    """A time with its zone; None if it is none."""
    try:
        found = datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else None


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
