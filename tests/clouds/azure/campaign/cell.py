"""One cell of the campaign: a build to which one thing happens, what it says, what it leaves, and what a sweep does.

It runs in a process, and a network, of its own.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pytest_azchroot import machinery
from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.hooks import OperationFault, Reset
from pytest_azchroot.emulator.http import Request, Response
from pytest_azchroot.emulator.isolation import no_way_out
from pytest_azchroot.emulator.operations import RUNNING
from pytest_azchroot.emulator.settings import Settings
from pytest_azchroot.sweep import Order, Swept, sweep

from . import ground, remains
from .faults import OF_CALLS, OF_OPERATIONS
from .moments import Moment, Watch
from .victim import Result, build, hurry, image_yaml

KILLS = ("killed before", "killed after")
"""Before Azure has got the call, and when it has done what it was asked and nobody knows."""
PATIENCE = 60.0
"""Seconds for a build to end by itself."""
_ATTACH = "POST virtualMachines/attachDetachDataDisks"
_WRITES = {
    "PUT disks": "disk",
    "PUT images": "image",
    "PUT galleries/images/versions": "gallery-version",
    _ATTACH: "attachment",
}
"""Calls, and what the journal calls what they make."""
_UNDER_WAY = 2.0
"""Seconds that an operation takes longer whose client is killed."""
_PASSING = ("500", "429", "reset")
"""Faults after which asking once more helps: the build has to end well."""
_RELEASES = ("DELETE ", "disks.delete", f"{_ATTACH}#2", "operation virtualMachines.attachDetach#2", "GET disks#2")
"""Parts of moments without which nothing may be left by a build to which one thing happened, even before a sweep."""
_SECRET = re.compile(r"eyJ[\w-]{5,}|[?&]sig=|[Bb]earer \S{8}")
_OURS = re.compile(r"Traceback|pytest_azchroot/\S+\.py", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """What happens, and when. Nothing: the build is recorded."""

    moment: Moment | None
    event: str = ""
    """A fault, or one of :data:`KILLS`."""

    def __str__(self) -> str:
        return "nothing" if self.moment is None else f"{self.moment}: {self.event}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """What ``str`` made."""
        if text == "nothing":
            return cls(None)
        moment, _, event = text.rpartition(": ")
        return cls(Moment.parse(moment), event)


@dataclass
class Outcome:
    """What became of it."""

    cell: str
    ending: str = ""
    """``published``, ``published, with an error``, ``failed``, ``killed``."""
    reached: bool = False
    """Whether the moment came."""
    seconds: float = 0.0
    moments: list[str] = field(default_factory=list)
    error: str = ""
    """What the build said."""
    left: list[str] = field(default_factory=list)
    """Before a sweep."""
    swept: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.cell}: {self.ending}{'' if self.reached else ' (the moment did not come)'}, {self.seconds:.1f} s"
        ]
        lines += [f"  PROBLEM {each}" for each in self.problems]
        lines += [f"  it said: {line}" for line in self.error.splitlines()]
        lines += [f"  left: {each}" for each in self.left]
        return "\n".join([*lines, *(f"  swept: {each}" for each in self.swept)])


class _Child:
    """A build in a process of its own, which waits until it is told where Azure is."""

    def __init__(self, directory: Path, mark: str, name: str) -> None:
        self._result = directory / f"{name}.json"
        self._said = directory / f"{name}.txt"
        told, self._tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._tell)
            self._run(told, directory, mark)
        os.close(told)
        self._handle = os.pidfd_open(self.pid)
        self.killed = False

    def _run(self, told: int, directory: Path, mark: str) -> None:
        try:
            with open(told) as file:
                environment = json.loads(file.readline())
            if environment is not None:
                out = os.open(self._said, os.O_WRONLY | os.O_CREAT, 0o600)
                os.dup2(out, 1)
                os.dup2(out, 2)
                os.environ.update(environment)
                os.environ["PATH"] += f":{directory}"  # by which its processes are known
                hurry(directory / "state")
                result = build(directory / "images" / "web", mark)
                self._result.write_text(json.dumps(asdict(result)))
                sys.stderr.flush()
        finally:
            os._exit(0)

    def go(self, environment: dict[str, str] | None) -> None:
        """Build; or end, without an environment."""
        os.write(self._tell, json.dumps(environment).encode() + b"\n")
        os.close(self._tell)

    def kill(self) -> None:
        """At once."""
        self.killed = True
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> Result | None:
        """Wait for it; what it says, if it comes to that."""
        if not select.select([self._handle], [], [], PATIENCE)[0]:
            os.kill(self.pid, signal.SIGKILL)
            self.killed = False
        os.waitpid(self.pid, 0)
        os.close(self._handle)
        return Result(**json.loads(self._result.read_text())) if self._result.exists() else None

    @property
    def said(self) -> str:
        """On its standard streams."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""


class _Trial:
    def __init__(self, cell: Cell, told: Settings, directory: Path) -> None:
        self.cell = cell
        self.outcome = Outcome(str(cell))
        self._directory = directory
        self._state = directory / "state"
        self._over = False
        self._assembly = ground.copied(told, directory / "azure")
        self._emulator: Emulator = self._assembly.emulator
        self._group = f"/subscriptions/{told.subscription}/resourceGroups/rg1/providers/Microsoft.Compute"
        self._mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
        self._journaling: list[str] = []

    def run(self) -> Outcome:
        began = time.monotonic()
        image = self._directory / "images" / "web"
        image.mkdir(parents=True)
        destination = {"image_resource_id": f"{self._group}/images/web", "shared_image_destination": ground.GALLERY}
        (image / "image.yaml").write_text(image_yaml(source=f"{ground.URN}:latest", **destination))
        self._child = _Child(self._directory, self._mark, "first")  # before there are threads
        again = _Child(self._directory, self._mark, "second")
        self._watch = Watch(self._emulator, before=self._before, after=self._after, begins=self._begins)
        with self._emulator:
            environment = ground.environment(self._assembly)
            os.environ.update(environment)
            self._child.go(environment)
            result = self._child.ended()
            self._over = True
            self.outcome.problems += [*self._judged(result), *self._journaling]
            self.outcome.moments = [str(each) for each in self._watch.moments]
            self._recover()
            sent = any(entry.facts.get("sent") for entry in remains.entries(self._state))
            again.go(environment if sent else None)
            taken_up = again.ended()
            if sent:
                self.outcome.problems += self._taken_up(taken_up)
            self.outcome.problems += self._swept(result, taken_up)
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    # -- what happens

    def _due(self, moment: Moment) -> bool:
        if self._over or self.cell.moment is None:
            return False
        fault = OF_CALLS.get(self.cell.event)
        due = moment == self.cell.moment and not self.outcome.reached
        due = due or (
            fault is not None and fault.always and self.outcome.reached and moment.name == self.cell.moment.name
        )
        self.outcome.reached = self.outcome.reached or due
        return due

    def _before(self, moment: Moment, request: Request) -> Response | Reset | None:
        if moment.name in _WRITES and not self._over:
            self._look_at_journal(moment, request)
        if self._child.killed and not self._over:
            return Reset()
        fault = OF_CALLS.get(self.cell.event)
        if self.cell.event == KILLS[0] and self._due(moment):
            self._child.kill()
            return Reset()
        return fault.answer if fault is not None and not fault.done and self._due(moment) else None

    def _after(self, moment: Moment, request: Request) -> Response | Reset | None:
        fault = OF_CALLS.get(self.cell.event)
        if self.cell.event == KILLS[1] and self._due(moment):
            self._child.kill()
            return Reset()
        return fault.answer if fault is not None and fault.done and self._due(moment) else None

    def _begins(self, moment: Moment) -> OperationFault | None:
        if self.cell.event == KILLS[1] and self._watch.call == self.cell.moment and not self._over:
            return OperationFault(delay=_UNDER_WAY)  # it runs still when the sweep comes
        fault = OF_OPERATIONS.get(self.cell.event)
        return fault if fault is not None and self._due(moment) else None

    def _look_at_journal(self, moment: Moment, request: Request) -> None:
        entries = remains.entries(self._state)
        known = {entry.id.lower() for entry in entries if entry.kind == _WRITES[moment.name]}
        asked = [request.path]
        if moment.name == _ATTACH:
            asked = [each["diskId"] for each in json.loads(request.body).get("dataDisksToAttach", [])]
        self._journaling += [
            f"{moment} came before {each} was in the journal" for each in asked if each.lower() not in known
        ]

    # -- what it leaves

    def _judged(self, result: Result | None) -> Iterator[str]:
        emulator = self._emulator
        self.outcome.left = [*remains.temporary(emulator), *(each.id for each in remains.artifacts(emulator))]
        if result is None:
            self.outcome.ending = "killed" if self._child.killed else "it did not end"
            if not self._child.killed:
                yield f"it did not end: {self._child.said}"
        elif result.error is None:
            self.outcome.ending = "published"
        else:
            self.outcome.ending = "published, with an error" if result.artifacts else "failed"
            self.outcome.error = result.error["text"]
            yield from _unclear(result.error)
        yield from remains.unwritten(emulator, self._state)
        yield from self._broken_promises(result)
        if match := _OURS.search(self._child.said):
            yield f"it wrote {match.group()}: {self._child.said}"
        if result is not None and result.artifacts:
            yield from self._unpublished()
            yield from self._untold(remains.temporary(emulator))
        elif result is not None:
            yield from (f"it is published all the same: {each}" for each in self._kept_quiet())
            yield from self._untold(self.outcome.left)
        yield from self._on_machine()

    def _broken_promises(self, result: Result | None) -> Iterator[str]:
        """What is stricter than that a sweep removes it."""
        event, moment = self.cell.event, str(self.cell.moment)
        passes = event in ("", *_PASSING) or (event == "409" and moment.startswith("DELETE"))
        if self.outcome.ending != "published" and passes:
            yield "it could have been published"
        once = event in ("409", "lost", "failed", "conflict")
        if result is not None and once and not any(part in moment for part in _RELEASES):
            yield from (f"it left {each}" for each in remains.temporary(self._emulator))
        for entry in remains.entries(self._state):
            if entry.facts.get("sent") and entry.facts["disk"] not in remains.temporary(self._emulator):
                yield f"{entry.id} is being made, and its disk is gone"

    def _kept_quiet(self) -> list[str]:
        """Complete artifacts of a build that failed; but for those that are sent, and those of which it says itself
        that they may be there, and that its journal gives up: where Azure does not even say what is there."""
        entries = remains.entries(self._state)
        if any(entry.facts.get("sent") for entry in entries):
            return []
        told = {
            entry.id.lower()
            for entry in entries
            if entry.facts.get("abandoned") and "may be there" in self.outcome.error
        }
        complete = [
            each for each in remains.artifacts(self._emulator) if each.properties["provisioningState"] == "Succeeded"
        ]
        return [each.id for each in complete if each.key not in told]

    def _untold(self, left: list[str]) -> Iterator[str]:
        if left and "azchroot sweep" not in self.outcome.error:
            yield f"it does not say that something is left: {', '.join(left)}"

    def _unpublished(self) -> Iterator[str]:
        yield from remains.misstated(self._emulator, self._mark)
        count = len(remains.artifacts(self._emulator))
        if count != 2:
            yield f"there are {count} artifacts"

    def _on_machine(self) -> Iterator[str]:
        deadline = time.monotonic() + 10
        while (found := remains.on_machine(self._directory)) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield from found

    def _recover(self) -> None:
        """Azure comes to itself: what never ended ends."""
        operations = self._emulator.azure.operations
        for name, record in self._emulator.azure.state.records("operation").items():
            if record["status"] == RUNNING and name not in operations._threads:
                operations._start(name, record)

    def _taken_up(self, result: Result | None) -> Iterator[str]:
        if result is None or result.error is not None or len(result.artifacts) != 2:
            yield f"the next run does not take up what was sent: {result}"
        else:
            yield from self._unpublished()

    def _swept(self, result: Result | None, taken_up: Result | None) -> Iterator[str]:
        hurry(self._state)
        first, second = self._sweep(), self._sweep()
        self.outcome.swept = [f"{each.removal.action} {each.removal.kind} {each.removal.id}" for each in first.outcomes]
        yield from (f"the sweep says {each}" for each in _troubles(first))
        yield from (f"the second sweep says {each}" for each in _troubles(second))
        done = [each.removal for each in second.outcomes]
        yield from (f"the second sweep found {each.action} {each.kind} {each.id}" for each in done)
        yield from (f"left after the sweep: {each}" for each in remains.temporary(self._emulator))
        yield from (f"in a journal after the sweep: {each}" for each in remains.entries(self._state))
        yield from remains.misstated(self._emulator, self._mark)
        published = bool((result and result.artifacts) or (taken_up and taken_up.artifacts))
        if result is not None and not published:
            yield from (f"it failed, and there is {each.id}" for each in remains.artifacts(self._emulator))
        if published:
            yield from self._unpublished()

    def _sweep(self) -> Swept:
        return sweep(Order(abandon=True), heard=lambda outcome: None, say=lambda line: None)


def _troubles(swept: Swept) -> Iterator[str]:
    yield from (str(each.error) for each in swept.outcomes if each.error is not None)
    yield from (str(each) for each in swept.problems)


def _unclear(error: dict[str, Any]) -> Iterator[str]:
    """What is missing in an error, or should not be in it."""
    yield from (f"the error does not say {part}" for part in ("what", "why", "hint") if not error[part])
    if match := _OURS.search(error["text"]):
        yield f"the error has {match.group()}"
    if match := _SECRET.search(error["text"]):
        yield f"the error has a secret: {match.group()}"


def run(cell: Cell, told: Settings, directory: Path) -> Outcome:
    """Try it. In a process that may be thrown away."""
    directory.mkdir()
    machinery.find = list  # of this machine, whose other builds may run
    with no_way_out():
        return _Trial(cell, told, directory).run()


def cells(moments: Iterable[str]) -> Iterator[Cell]:
    """All that can happen at the moments of a recorded build."""
    for moment in map(Moment.parse, moments):
        for event in _events(moment):
            yield Cell(moment, event)


def _events(moment: Moment) -> Iterator[str]:
    if moment.name.startswith("operation "):
        attaches = moment == Moment("operation virtualMachines.attachDetach", "1")
        yield from (each for each in OF_OPERATIONS if attaches or each != "no device")
        return
    changes = not moment.name.startswith(("GET", "poll"))
    yield from (each for each, fault in OF_CALLS.items() if changes or not fault.done)
    yield from KILLS
