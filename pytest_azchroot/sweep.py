"""Removing what dead runs left: on this machine, and in Azure.

A run that holds the lock of its journal lives, and nothing of it is touched. Without the journal of a dead run that
names something in Azure, and off Azure's machines, nothing here loads Azure's SDKs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_azchroot import journal, machinery
from pytest_azchroot.clouds.azure import leftovers, metadata
from pytest_azchroot.errors import AzchrootError, UnavailableError
from pytest_azchroot.journal import Found, Journal, Record
from pytest_azchroot.leaving import Leaving
from pytest_azchroot.removal import Outcome, Removal

if TYPE_CHECKING:
    from pytest_azchroot.clouds.azure.machine import Machine
    from pytest_azchroot.clouds.azure.removals import Reach

_NO_TAGS = "tags in Azure were not looked at"
_LOOKING = 10.0
"""Seconds until a metadata service that only stumbles is given up."""


@dataclass(frozen=True)
class Order:
    """What a sweep shall do."""

    directory: Path | None = None
    """The state directory; default :func:`.journal.state_directory`."""
    dry_run: bool = False
    """Only look. Then steps are told that were not taken."""
    abandon: bool = False
    """Delete artifacts that are not complete, whose time has not passed."""
    subscription: str | None = None
    """Whose tags to look at; by default the machine's own."""


@dataclass
class Swept:
    """What became of a sweep."""

    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was not looked at, and why that is no mistake."""
    problems: list[AzchrootError] = field(default_factory=list)
    """What went wrong besides the outcomes."""

    @property
    def failed(self) -> bool:
        """Whether something was not removed that should have been."""
        return bool(self.problems) or any(each.error for each in self.outcomes)


def sweep(order: Order, *, heard: Callable[[Outcome], None], say: Callable[[str], None]) -> Swept:
    """Remove what dead runs left.

    :param heard: hears of each step when it has been taken.
    :param say: hears a line when something takes long.
    :raises JournalError: the state directory cannot be read.
    """
    swept = Swept()

    def took(outcome: Outcome) -> None:
        swept.outcomes.append(outcome)
        heard(outcome)

    _sweep_machine(order, swept, took)
    with Leaving() as stack:
        runs, living = _divided(order, swept, stack)
        for run in runs:
            _tell_unknown(run.record, swept, took)
        _sweep_azure(order, runs, living, swept=swept, took=took, say=say)
    return swept


# -- journals


@dataclass(frozen=True)
class _Run:
    """A dead run."""

    record: Record
    journal: Journal | None
    """Ours as long as the sweep lasts; None if it only looks."""


@dataclass(frozen=True)
class _Living:
    """The runs that are not to be touched."""

    runs: frozenset[str]
    keys: frozenset[str]
    """Of what they have written down."""


def _divided(order: Order, swept: Swept, stack: Leaving) -> tuple[list[_Run], _Living]:
    """The dead and the living; the journals of the dead are ours until the stack is left."""
    dead: list[_Run] = []
    living: list[Found] = []
    if not order.dry_run:
        journal.tidy(order.directory)
    for found in journal.records(order.directory):
        try:
            ours = None if found.alive or order.dry_run else Journal.adopted(found.path)
        except AzchrootError as error:
            swept.problems.append(error)
            continue
        if ours is not None:
            stack.callback(ours.close)
            dead.append(_Run(ours.record, ours))
        elif found.alive or not order.dry_run:  # not alive, and not ours: another sweep has been faster
            living.append(found)
        elif found.record is not None:
            dead.append(_Run(found.record, None))
        elif found.problem is not None:
            swept.problems.append(found.problem)
    entries = [entry for found in living if found.record is not None for entry in found.record.entries]
    keys = frozenset(leftovers.key(entry.id) for entry in entries)
    return dead, _Living(frozenset(found.path.stem for found in living), keys)


def _tell_unknown(record: Record, swept: Swept, took: Callable[[Outcome], None]) -> None:
    if record.damaged:
        swept.problems.append(
            AzchrootError(
                f"the journal of run {record.run} is damaged",
                why=f"lines that cannot be read: {record.damaged}",
                hint=f"look at it in {journal.state_directory() / 'journal'}, then remove it",
            )
        )
    for entry in record.entries:
        if entry.kind not in leftovers.KINDS:
            step = Removal("leave", entry.kind, entry.id, "", run=record.run, began=record.started, entry=entry.number)
            took(Outcome(step, AzchrootError(f"this version does not know how to release a {entry.kind}")))


# -- this machine


def _sweep_machine(order: Order, swept: Swept, took: Callable[[Outcome], None]) -> None:
    try:
        steps = machinery.find()
    except UnavailableError as error:
        swept.notes.append(f"{error.what}: {error.why}")
        return
    for step in steps:
        took(Outcome(step) if order.dry_run else machinery.remove(step))


# -- Azure


def _sweep_azure(
    order: Order,
    runs: Sequence[_Run],
    living: _Living,
    *,
    swept: Swept,
    took: Callable[[Outcome], None],
    say: Callable[[str], None],
) -> None:
    records = [run.record for run in runs if any(entry.kind in leftovers.KINDS for entry in run.record.entries)]
    machine = _machine(swept, needed=bool(records) or order.subscription is not None)
    if not records and machine is None and order.subscription is None:
        return
    with _reach(machine, say) as reach:
        try:
            seen, unseen = reach.look(records)
            for outcome in unseen:
                took(outcome)
        except AzchrootError as error:
            swept.problems.append(error)
            return
        tagged = _tagged(order, reach, machine, swept, needed=bool(records))
        context = leftovers.Context(
            now=datetime.now(timezone.utc),
            host=machine.vm_id if machine is not None else None,
            living=living.runs,
            spoken_for=living.keys,
            abandon=order.abandon,
        )
        due = [each for each in tagged if leftovers.is_due(each, context)]
        context = replace(context, machines=reach.machines([*seen.values(), *due]))
        steps = leftovers.plan(records, seen, tagged, context)
        journals = {run.record.run: run.journal for run in runs}
        for outcome in map(Outcome, steps) if order.dry_run else reach.carried_out(steps, seen):
            _write_down(outcome, journals.get(str(outcome.removal.run)), swept)
            took(outcome)


def _write_down(outcome: Outcome, ours: Journal | None, swept: Swept) -> None:
    step = outcome.removal
    if ours is None or outcome.error is not None or not step.ends or step.entry is None:
        return
    try:
        ours.forget(step.entry)
    except AzchrootError as error:
        swept.problems.append(error)


def _machine(swept: Swept, *, needed: bool) -> Machine | None:
    try:
        return metadata.machine(timeout=_LOOKING)
    except UnavailableError as error:
        told = "what has not expired in Azure is left, it may be another machine's" if needed else _NO_TAGS
        swept.notes.append(f"{told}: {error.what}")
        return None


@contextmanager
def _reach(machine: Machine | None, say: Callable[[str], None]) -> Iterator[Reach]:
    from pytest_azchroot.clouds.azure.removals import Reach  # noqa: PLC0415 - it brings Azure's SDKs, half a second

    reach = Reach(machine, say=say)
    try:
        yield reach
    finally:
        reach.close()


def _tagged(
    order: Order, reach: Reach, machine: Machine | None, swept: Swept, *, needed: bool
) -> list[leftovers.Resource]:
    """Disks and snapshots with our tags. A machine without any credential has built nothing in Azure."""
    from pytest_azchroot.clouds.azure.refusals import CredentialError  # noqa: PLC0415 - as above

    subscription = order.subscription or (machine.subscription_id if machine is not None else None)
    if subscription is None:
        return []
    groups = [machine.resource_group] if machine is not None and machine.subscription_id == subscription else []
    try:
        return reach.tagged(subscription, groups)
    except AzchrootError as error:
        if isinstance(error, CredentialError) and not needed and order.subscription is None:
            swept.notes.append(f"{_NO_TAGS}: {error.what}")
        else:
            swept.problems.append(error)
        return []
