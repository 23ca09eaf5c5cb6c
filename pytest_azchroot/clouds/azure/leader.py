"""What the holder of the machine's lock does: everybody's requests, with one call.

A round reads the machine, decides, and asks Azure once. It leaves nothing behind that a next leader would need: one
that is killed, at any point, has either changed the machine, which the next one reads, or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_azchroot.clouds.azure import fallback, shared
from pytest_azchroot.clouds.azure.asking import Asking, Json, Model, failure
from pytest_azchroot.clouds.azure.buckets import READS, UPDATES, Budget
from pytest_azchroot.clouds.azure.courses import Course, blamed, course, for_one, pause, taken_lun, told_limit
from pytest_azchroot.clouds.azure.luns import Plan, data_disks, planned
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.pace import retry_after
from pytest_azchroot.clouds.azure.queue import Answer, Failure, Note, Queue, Request
from pytest_azchroot.clouds.azure.refusals import AzureError
from pytest_azchroot.clouds.azure.sizes import Sizes
from pytest_azchroot.clouds.azure.underway import Operations

_MANY = 429
_MINUTE = 60.0
_DAY = 86400.0


@dataclass(frozen=True)
class Leader:
    """All that a round needs."""

    asking: Asking
    machine: Machine
    queue: Queue
    budget: Budget
    operations: Operations
    sizes: Sizes
    ways: Path
    """Where it is written down that the machine has no ``attachDetachDataDisks``."""

    def serve(self, own: Request, *, spare: bool, timeout: float) -> None:
        """One round. Requests that it does not answer stay, with a note.

        :param own: of who leads.
        :param spare: take a token of the margin, if there is no other.
        :param timeout: seconds for a change that has to be waited for.
        """
        batch = self._batch(own)
        if not batch or self.budget.wait(UPDATES, spare=spare) or not self.budget.take(READS, spare=spare):
            return
        try:
            model = self.asking.read()
        except AzureError as error:
            self._unread(error, [request for request, _ in batch], own)
            return
        batch = self._batch(own)  # with those that came meanwhile
        plan = self._planned(model, batch)
        for request, answer in plan.answers:
            self.queue.answer(request, answer)
        for request, found in plan.later:
            self._postpone(request, found)
        plan = self._living(plan)
        if plan.requests and self.budget.take(UPDATES, spare=spare):
            self._change(model, plan, own, timeout=timeout)

    def _batch(self, own: Request) -> list[tuple[Request, Note]]:
        """What may go into one call."""
        noted = [(request, self.queue.note(request)) for request in self.queue.waiting()]
        now = shared.now()
        due = [each for each in noted if each[1].due <= now and (not each[1].alone or each[0].id == own.id)]
        return [each for each in due if each[1].group == due[0][1].group]  # empty where nothing is due

    def _planned(self, model: Model, batch: Sequence[tuple[Request, Note]]) -> Plan:
        limit = self.sizes.known(model.size)
        return planned(data_disks(model.body), batch, limit=limit, machine=self.machine.name, size=model.size)

    def _living(self, plan: Plan) -> Plan:
        """Without those whose owner has gone meanwhile."""
        return Plan(
            attach=[each for each in plan.attach if self.queue.lives(each[0])],
            detach=[each for each in plan.detach if self.queue.lives(each)],
        )

    # -- asking

    def _change(self, model: Model, plan: Plan, own: Request, *, timeout: float) -> None:
        try:
            url = self._sent(model, plan, timeout=timeout)
        except AzureError as error:
            self._refused(error, model, plan.requests, own)
            return
        if url is not None:
            self.operations.begun(url)
        luns = {request.id: lun for request, lun in plan.attach}
        for request in plan.requests:
            self.queue.answer(request, Answer(luns.get(request.id), url, len(plan.requests)))

    def _sent(self, model: Model, plan: Plan, *, timeout: float) -> str | None:
        """The operation's address; None where there is nothing to wait for any more."""
        if not self._is_old():
            attach: list[Json] = [
                {"diskId": request.disk, "lun": lun, "caching": request.caching, "deleteOption": "Detach"}
                for request, lun in plan.attach
            ]
            return self.asking.change(attach=attach, detach=[{"diskId": disk} for disk in _disks(plan.detach)])
        wanted = fallback.goal(model.data_disks, attach=plan.attach, detach={request.key for request in plan.detach})
        fallback.replaced(self.asking, self.budget, model, wanted, timeout=timeout)
        return None

    def _is_old(self) -> bool:
        since = shared.read(self.ways).get("old")
        return since is not None and shared.now() - since < _DAY

    # -- being refused

    def _unread(self, error: AzureError, requests: Sequence[Request], own: Request) -> None:
        found = failure(error)
        if error.status == _MANY:
            self.budget.empty(READS, asked_wait(error) or _MINUTE / 4)
        for request in requests:
            if course(found) is Course.LATER:
                self._postpone(request, found, asked=asked_wait(error))
            elif request.id == own.id:
                self.queue.answer(request, Answer(failure=found))
            else:
                self._leave(request, found)

    def _refused(self, error: AzureError, model: Model, requests: Sequence[Request], own: Request) -> None:
        found = failure(error)
        way = course(found)
        if error.status == _MANY:
            self.budget.empty(UPDATES, asked_wait(error) or _MINUTE / 4)
        if way is Course.OTHER_WAY and not self._is_old():
            with shared.changing(self.ways) as content:
                content["old"] = shared.now()
        elif way is Course.FULL and told_limit(found) != self.sizes.known(model.size):
            self.sizes.learn(model.size, told_limit(found) or 0)
        elif way is Course.PICK_AGAIN:
            for request in requests:
                self._pick_again(request, found)
        elif way is Course.NOT_WE:
            self._divide_by_owner(requests, found, own)
        elif way is Course.LATER and not for_one(found):
            for request in requests:
                self._postpone(request, found, asked=asked_wait(error))
        else:
            self._judge(requests, found, asked=asked_wait(error))

    def _judge(self, requests: Sequence[Request], found: Failure, *, asked: float | None) -> None:
        """It is for one disk's sake. If nobody knows whose, halve the call."""
        guilty = requests[0] if len(requests) == 1 else blamed(found, requests)
        if guilty is None:
            half = len(requests) // 2
            for part in (requests[:half], requests[half:]):
                for request in part:
                    self._remember(request, found, group=part[0].id)
        elif course(found) is Course.LATER:
            self._postpone(guilty, found, asked=asked)
        else:
            self.queue.answer(guilty, Answer(failure=found))

    def _divide_by_owner(self, requests: Sequence[Request], found: Failure, own: Request) -> None:
        for request in requests:
            if request.id != own.id:
                self._leave(request, found)
            elif len(requests) > 1:
                self._remember(request, found, group=request.id)
            else:
                self.queue.answer(request, Answer(failure=found))

    def _leave(self, request: Request, found: Failure) -> None:
        """To its owner, whose credential may be a better one."""
        note = self.queue.note(request)
        self.queue.remember(request, replace(note, alone=True, group=request.id, failure=found))

    def _pick_again(self, request: Request, found: Failure) -> None:
        note, lun = self.queue.note(request), taken_lun(found)
        avoid = [*note.avoid, *([] if lun is None or lun in note.avoid else [lun])]
        self.queue.remember(request, replace(note, avoid=avoid, attempts=note.attempts + 1, failure=found))

    def _postpone(self, request: Request, found: Failure, *, asked: float | None = None) -> None:
        note = self.queue.note(request)
        due = shared.now() + pause(note.attempts, asked)
        self.queue.remember(request, replace(note, due=due, attempts=note.attempts + 1, failure=found))

    def _remember(self, request: Request, found: Failure, *, group: str) -> None:
        self.queue.remember(request, replace(self.queue.note(request), group=group, failure=found))


def _disks(requests: Sequence[Request]) -> list[str]:
    """Each once."""
    return list({request.key: request.disk for request in requests}.values())


def asked_wait(error: AzureError) -> float | None:
    """Seconds that an answer asks to wait by ``Retry-After``."""
    response = getattr(error.__cause__, "response", None)
    return retry_after(getattr(response, "headers", None) or {})
