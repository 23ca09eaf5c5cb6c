"""The calls of a build, by names that are the same in every run; and what shall happen at one of them.

``PUT disks#1`` is the first call of that name. Questions about an operation are one name, however many there are:
``poll disks.create#1:first``, ``:middle``, ``:last``, the last being the one that hears that it has ended.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pytest_azchroot.emulator.arm import call_name
from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.errors import ArmError
from pytest_azchroot.emulator.hooks import OperationFault, Reset
from pytest_azchroot.emulator.http import Request, Response
from pytest_azchroot.emulator.operations import RUNNING
from pytest_azchroot.emulator.state import Json

_COLLECTIONS = ("GET DiskOperations", "GET operations", "GET capsOperations")
MANY = ("GET disks",)
"""Calls that are made until something is so: their number tells of the machine's speed."""


@dataclass(frozen=True)
class Moment:
    """A call, or an operation."""

    name: str
    """``PUT disks``, ``poll disks.create#1``, ``operation disks.create``."""
    which: str
    """The how manieth; ``first``, ``middle``, ``last`` of polls."""

    def __str__(self) -> str:
        return f"{self.name}#{self.which}"

    @classmethod
    def parse(cls, text: str) -> Moment:
        """What ``str`` made."""
        return cls(*text.rsplit("#", 1))


class Naming:
    """Names calls and operations as they come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self._polls: dict[str, str] = {}

    def operation(self, kind: str) -> Moment:
        """An operation that begins."""
        return self._counted(f"operation {kind}")

    def call(self, request: Request, operation: Json | None) -> Moment:
        """A call that arrives.

        :param operation: that it asks about.
        """
        if operation is None:
            moment = self._counted(call_name(request))
            return Moment(moment.name, "2") if moment.name in MANY and int(moment.which) > 2 else moment
        name = request.path.rstrip("/").rsplit("/", 1)[-1]
        if name not in self._polls:
            self._polls[name] = str(self._counted(f"poll {operation['kind']}"))
        nth = int(self._counted(self._polls[name]).which)
        if operation["status"] != RUNNING:
            return Moment(self._polls[name], "last")
        return Moment(self._polls[name], "first" if nth == 1 else "middle")

    def _counted(self, name: str) -> Moment:
        with self._lock:
            self._seen[name] += 1
            return Moment(name, str(self._seen[name]))


Answer = Response | Reset


class Watch:
    """Stands at an emulator's door: names what comes, and lets something happen at one moment.

    :param before: asked with each call; what it returns is the answer.
    :param after: asked with each call that has been answered by the emulator; the same.
    :param begins: asked with each operation.
    """

    def __init__(
        self,
        emulator: Emulator,
        *,
        before: Callable[[Moment, Request], Answer | None] = lambda moment, request: None,
        after: Callable[[Moment, Request], Answer | None] = lambda moment, request: None,
        begins: Callable[[Moment], OperationFault | None] = lambda moment: None,
    ) -> None:
        self.moments: list[Moment] = []
        """Each once, in the order in which they came first."""
        self._emulator = emulator
        self._before, self._after, self._begins = before, after, begins
        self._naming = Naming()
        self._now = threading.local()
        self._answer = emulator._answer
        vars(emulator)["_answer"] = self.answer  # before it listens
        emulator.hooks.add(self)

    def answer(self, request: Request) -> Answer:
        """In place of the emulator's own."""
        moment = self._naming.call(request, self._operation(request))
        self._note(moment)
        self._now.moment = moment
        answer = self._before(moment, request)
        if answer is None:
            answer = self._answer(request)
            answer = self._after(moment, request) or answer
        return answer

    def request(self, name: str, request: Request) -> None:
        """Of the emulator's hooks."""

    def operation(self, kind: str, resource: str) -> OperationFault | None:
        """Of the emulator's hooks."""
        moment = self._naming.operation(kind)
        self._note(moment)
        return self._begins(moment)

    @property
    def call(self) -> Moment | None:
        """The call that this thread answers."""
        found: Moment | None = getattr(self._now, "moment", None)
        return found

    def _note(self, moment: Moment) -> None:
        if moment not in self.moments:
            self.moments.append(moment)

    def _operation(self, request: Request) -> Json | None:
        if call_name(request) not in _COLLECTIONS:
            return None
        return self._emulator.azure.state.record("operation", request.path.rstrip("/").rsplit("/", 1)[-1])


def refusal(status: int, *, retry_after: int | None = None) -> Response:
    """What Azure answers in trouble."""
    codes = {409: "Conflict", 429: "TooManyRequests"}
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return ArmError(status, codes.get(status, "InternalServerError"), "A fault, as planned.", headers=headers).response
