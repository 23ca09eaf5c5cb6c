"""Attaching and detaching data disks, agreed among all builds of the host.

A LUN is used once, a machine's size allows so many disks, and Azure takes few changes of one machine. So whoever wants
a disk attached or detached writes a request down; who gets the machine's lock carries out all that wait (see
:mod:`.queue` and :mod:`.leader`). Sixteen builds that begin at once cost two or three calls.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_azchroot.clouds.azure import shared
from pytest_azchroot.clouds.azure.asking import Asking, Model, failure
from pytest_azchroot.clouds.azure.buckets import DISKS, OPERATIONS, READS, UPDATES, Budget, Limit
from pytest_azchroot.clouds.azure.client import quiet
from pytest_azchroot.clouds.azure.courses import Course, course
from pytest_azchroot.clouds.azure.leader import Leader, asked_wait
from pytest_azchroot.clouds.azure.luns import data_disks
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.queue import Answer, Failure, Queue, Request, What
from pytest_azchroot.clouds.azure.refusals import AzureError, CredentialError, OperationTimeoutError
from pytest_azchroot.clouds.azure.retries import pause
from pytest_azchroot.clouds.azure.sizes import Sizes
from pytest_azchroot.clouds.azure.underway import Following, Operations

if TYPE_CHECKING:
    from pytest_azchroot.clouds.azure.client import Azure

ATTACH_TIMEOUT = 600.0
DETACH_TIMEOUT = 600.0
_HURRY = 4.0
"""Seconds in which one who is about to be killed joins the others; CI gives ten for everything."""
_PATIENCE = 2.0
"""Seconds of waiting that need no explanation."""
_PAUSE = 0.02
_LONGEST = 0.25
_LOOK = 10.0
"""Seconds between two looks at the machine where nobody knows the operation."""


def nothing() -> None:
    """Go on."""


def never() -> bool:
    """Take the time that it takes."""
    return False


@dataclass(frozen=True)
class Room:
    """Data disks of the machine."""

    used: int
    limit: int | None
    """What its size allows; None where Azure does not say."""

    @property
    def left(self) -> int | None:
        """How many more can be attached."""
        return None if self.limit is None else max(0, self.limit - self.used)


class Attaching:
    """A disk that Azure has accepted to attach."""

    def __init__(self, lun: int, *, pause: float, look: Callable[[], None]) -> None:
        self.lun = lun
        self._pause = pause
        self._look = look
        self._next = time.monotonic() + pause

    def check(self) -> None:
        """See whether it has failed. Cheap: asks Azure seldom, and only if the machine's budget has a question left.

        :raises AzureError: the disk does not come; with Azure's code and words.
        """
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._pause
            self._look()


class Broker:
    """The data disks of the machine that we run on. Processes and threads may use it at the same time.

    :param directory: where the builds of the host meet; by default ``/run/azchroot/vm-VMID``.
    :param say: hears a line when something makes us wait.
    :raises UnavailableError: that directory cannot be used.
    """

    def __init__(
        self, azure: Azure, machine: Machine, *, directory: Path | None = None, say: Callable[[str], None] = quiet
    ) -> None:
        self._machine = machine
        self._say = say
        home = shared.private(directory or shared.home() / f"vm-{_identity(machine)}")
        self._lock = home / "lock"
        self._asking = Asking(azure, machine)
        self._queue = Queue(home / "queue")
        self._budget = Budget(home / "budget.json")
        self._operations = Operations(home / "operations.json", self._budget, self._asking.operation)
        self._sizes = Sizes(home / "sizes.json", self._asking.limit)
        self._detaching: dict[str, Following] = {}
        self._leader = Leader(
            self._asking,
            machine,
            self._queue,
            self._budget,
            self._operations,
            self._sizes,
            home / "ways.json",
        )

    def attach(
        self,
        disk_id: str,
        *,
        caching: str = "None",
        timeout: float = ATTACH_TIMEOUT,
        check: Callable[[], object] = nothing,
    ) -> Attaching:
        """Have a disk attached; returns when Azure has accepted it. One that is attached already keeps its LUN.

        :param caching: ``None``, ``ReadOnly``, ``ReadWrite``.
        :param timeout: seconds to wait for others, for Azure's rate limits, for what is in the way.
        :param check: called now and then meanwhile; what it raises ends the waiting.
        :raises AzureError: Azure refuses it, or there is no room.
        :raises OperationTimeoutError: something was in the way all the time; says what.
        """
        answer = self._asked("attach", disk_id, caching=caching, timeout=timeout, check=check)
        assert answer.lun is not None
        doing = f"attaching {_name(disk_id)} to {self._machine.name}"
        if answer.operation is None:
            return Attaching(answer.lun, pause=_LOOK, look=lambda: self._look_for(disk_id, doing))
        following = self._following(answer, disk_id, doing, lost=lambda: self._is_lost(disk_id))
        return Attaching(answer.lun, pause=_LONGEST, look=following.check)

    def detach(
        self, disk_id: str, *, timeout: float = DETACH_TIMEOUT, hurry: bool | Callable[[], bool] = False
    ) -> None:
        """Have a disk detached; returns when Azure has accepted it. One that is not attached is a success.

        :param hurry: we are about to be killed: wait for nobody for longer than a few seconds. Or what says so; it is
            asked now and then.
        :raises AzureError: Azure refuses it.
        :raises OperationTimeoutError: something was in the way all the time; says what.
        """
        hurries = hurry if callable(hurry) else lambda: hurry
        try:
            answer = self._asked("detach", disk_id, timeout=timeout, hurries=hurries)
        except OperationTimeoutError:
            if not hurries() or not self._budget.take(UPDATES, spare=True):
                raise
            # Somebody has the lock and does not come back. The call is about this disk alone, so it harms nobody.
            answer = Answer(operation=self._asking.change(attach=[], detach=[{"diskId": disk_id}]))
        doing = f"detaching {_name(disk_id)} from {self._machine.name}"
        self._detaching[disk_id.lower()] = self._following(answer, disk_id, doing, lost=lambda: False)

    def wait_detached(
        self, disk_id: str, *, timeout: float = DETACH_TIMEOUT, check: Callable[[], object] = nothing
    ) -> None:
        """Wait until a disk is attached no more, or is gone. Asks about the disk, which costs the machine nothing.

        :param check: called now and then; what it raises ends the waiting.
        :raises AzureError: detaching it has failed; with Azure's code and words.
        :raises OperationTimeoutError: it is still attached.
        """
        name, began = _name(disk_id), time.monotonic()
        trouble: AzureError | None = None
        while True:
            check()
            try:
                if self._budget.take(DISKS) and self._is_free(disk_id):
                    return
            except AzureError as error:
                if course(failure(error)) is not Course.LATER:
                    raise
                trouble = error
            if disk_id.lower() in self._detaching:
                self._detaching[disk_id.lower()].check()
            elapsed = time.monotonic() - began
            if elapsed > timeout:
                why = f"after {timeout:.0f} s" + ("" if trouble is None else f"; {trouble}")
                raise OperationTimeoutError(
                    f"the disk {name} is still attached to {self._machine.name}",
                    why=why,
                    hint="is something using its device? `azchroot sweep` detaches and deletes it later",
                )
            time.sleep(min(max(0.1 * elapsed, 0.2), 4.0, max(timeout - elapsed, 0.01)))

    def room(self) -> Room:
        """How many data disks the machine has, and may have. Asks Azure, for the limit once a day.

        :raises AzureError: it was refused.
        """
        model = self._model()
        return Room(len(data_disks(model.body)), self._sizes.limit(model.size))

    def may_ask(self, limit: Limit = OPERATIONS) -> bool:
        """Whether the host has a question left of those that Azure allows; then it has one less."""
        if self._budget.wait(limit) > 0 or not self._budget.take(OPERATIONS):
            return False
        return limit is OPERATIONS or self._budget.take(limit)

    # -- asking the others

    def _asked(
        self,
        what: What,
        disk_id: str,
        *,
        caching: str = "",
        timeout: float,
        check: Callable[[], object] = nothing,
        hurries: Callable[[], bool] = never,
    ) -> Answer:
        deadline, spare, pause = time.monotonic() + timeout, False, _PAUSE
        telling = _Telling(self._say, f"{what}ing {_name(disk_id)}")
        with self._queue.asked(what, disk_id, caching=caching) as request:
            while True:
                answer = self._queue.answered(request)
                if answer is not None:
                    return _good(answer)
                check()
                if not spare and hurries():
                    spare, deadline = True, min(deadline, time.monotonic() + _HURRY)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._late(request, timeout)
                obstacle = self._obstacle(request, spare=spare, timeout=left)
                if obstacle is None:
                    pause = _PAUSE
                    continue
                telling.because(obstacle)
                time.sleep(pause)
                pause = min(pause * 1.2, _LONGEST)

    def _obstacle(self, request: Request, *, spare: bool, timeout: float) -> str | None:
        """Lead a round; if that cannot be now, why not."""
        note = self._queue.note(request)
        if note.due > shared.now():
            return f"Azure to take it ({_words(note.failure)})"
        wait = max(self._budget.wait(UPDATES, spare=spare), self._budget.wait(READS, spare=spare))
        if wait > 0:
            return f"Azure's rate limit of {self._machine.name}"
        with shared.attempt(self._lock) as ours:
            if not ours:
                return f"process {shared.holder(self._lock)}, which changes the data disks of {self._machine.name}"
            if self._queue.answered(request) is None:
                self._leader.serve(request, spare=spare, timeout=timeout)
        return None

    def _late(self, request: Request, timeout: float) -> OperationTimeoutError:
        found = self._queue.note(request).failure
        doing = "attached to" if request.what == "attach" else "detached from"
        return OperationTimeoutError(
            f"the disk {_name(request.disk)} was not {doing} {self._machine.name} within {timeout:.0f} s",
            why=_words(found) if found else "other builds, or Azure's rate limits, were in the way",
            hint=found.hint if found else "run fewer builds at once on this machine",
            status=found.status if found else None,
            code=found.code if found else None,
        )

    # -- asking Azure

    def _following(self, answer: Answer, disk: str, doing: str, *, lost: Callable[[], bool]) -> Following:
        return Following(self._operations, answer, disk=disk, doing=doing, lost=lost)

    def _look_for(self, disk_id: str, doing: str) -> None:
        """Nobody knows the operation of a call whose answer was lost; then the machine itself is looked at.

        :raises AzureError: it does not have the disk any more.
        """
        if not self._budget.take(READS):
            return
        try:
            there = {each.key for each in data_disks(self._asking.read().body) if not each.leaving}
        except AzureError as error:
            if course(failure(error)) is Course.LATER:
                return
            raise
        if disk_id.lower() not in there:
            raise AzureError(f"{doing} failed", why="Azure has given it up, or somebody has detached it")

    def _is_lost(self, disk_id: str) -> bool:
        """Whether a disk did not come, as far as can be known now."""
        try:
            return self._budget.take(DISKS) and self._is_free(disk_id)
        except AzureError:  # the operation's own error is told, if the disk does not come
            return False

    def _is_free(self, disk_id: str) -> bool:
        disk = self._asking.disk(disk_id)
        return disk is None or str(disk.get("managedBy") or "").lower() != self._machine.resource_id.lower()

    def _model(self) -> Model:
        telling = _Telling(self._say, f"reading the virtual machine {self._machine.name}")
        for attempt in itertools.count():
            while not self._budget.take(READS):
                telling.because(f"Azure's rate limit of {self._machine.name}")
                time.sleep(_LONGEST)
            try:
                return self._asking.read()
            except CredentialError:
                raise
            except AzureError as error:
                wait = pause(method="GET", attempt=attempt, status=error.status, asked=asked_wait(error))
                if wait is None:
                    raise
                time.sleep(wait)
        raise AssertionError  # attempts end by a pause of None


class _Telling:
    """Says what is waited for, each reason once, when it has lasted."""

    def __init__(self, say: Callable[[str], None], what: str) -> None:
        self._say = say
        self._what = what
        self._began = time.monotonic()
        self._told: set[str] = set()

    def because(self, reason: str) -> None:
        """It is this now."""
        if time.monotonic() - self._began > _PATIENCE and reason not in self._told:
            self._told.add(reason)
            self._say(f"{self._what}: waiting for {reason}")


def _good(answer: Answer) -> Answer:
    """:raises AzureError: it is a failure."""
    found = answer.failure
    if found is not None:
        raise AzureError(found.what, why=found.why, hint=found.hint, status=found.status, code=found.code)
    return answer


def _name(disk_id: str) -> str:
    return disk_id.rsplit("/", 1)[-1]


def _words(found: Failure | None) -> str:
    return "it did not say why" if found is None else found.why or found.what


def _identity(machine: Machine) -> str:
    """Of the machine, fit for a name of a directory."""
    if re.fullmatch(r"[\w-]+", machine.vm_id):
        return machine.vm_id.lower()
    return hashlib.sha256(machine.resource_id.lower().encode()).hexdigest()[:32]
