"""Long-running operations, as clients poll them.

An operation is stored before it begins. An emulator that is killed and started again begins anew what was running,
so an operation's effect must bear being repeated.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from pytest_azchroot.errors import AzchrootError

from . import errors
from .errors import ArmError
from .hooks import Hooks, OperationFault
from .http import Request, Response
from .settings import IMMEDIATE, Settings
from .state import Json, State

log = logging.getLogger(__name__)

_RECORD = "operation"
_GRACE = 0.5
"""Seconds that a poll waits for what takes no time by the profile: else a client's first poll comes a moment too early,
and its next one half a minute later."""
_KEPT = 1000
"""Operations that have ended and can still be asked for."""
RUNNING, SUCCEEDED, FAILED = "InProgress", "Succeeded", "Failed"

DISKS, COMPUTE, GALLERIES = "DiskOperations", "operations", "capsOperations"
"""The collections in which Azure keeps the operations of disks, virtual machines and images, and galleries."""


def now() -> str:
    """The time as Azure writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def _nothing(arguments: Json) -> None:
    pass


def _no_answer(arguments: Json) -> Json | None:
    return None


def _not_cared_for(arguments: Json, error: ArmError) -> None:
    pass


@dataclass(frozen=True)
class Work:
    """What operations of a kind do, given the arguments with which one was started."""

    effect: Callable[[Json], None] = _nothing
    """What takes time, outside of any transaction."""
    finish: Callable[[Json], Json | None] = _no_answer
    """What changes in the state with its success; returns what Location answers. Within the transaction."""
    failed: Callable[[Json, ArmError], None] = _not_cared_for
    """What changes in the state with its failure. Within the transaction."""
    late: bool = False
    """The effect comes after a part of the latency (:attr:`Profile.device_share`), not at once."""
    shown: bool = False
    """Whether the status shows the answer too, as ``properties.output``: disks and snapshots do."""


class Operations:
    """All operations, and a thread for each that runs."""

    def __init__(self, settings: Settings, state: State, hooks: Hooks) -> None:
        self._settings = settings
        self._state = state
        self._hooks = hooks
        self._works: dict[str, Work] = {}
        self._stop = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._ended: deque[str] = deque()

    def register(self, works: Mapping[str, Work]) -> None:
        """Say what operations do, by kind."""
        self._works.update(works)

    @property
    def kinds(self) -> list[str]:
        """What a profile can give latencies for."""
        return sorted(self._works)

    def resume(self) -> None:
        """Go on with what a killed emulator was doing."""
        with self._state.change():
            for name, record in self._state.records(_RECORD).items():
                if record["status"] == RUNNING:
                    self._start(name, record)
                else:
                    self._ended.append(name)

    def owner(self, name: str) -> str | None:
        """The id of the resource that an operation is about."""
        record = self._state.record(_RECORD, name)
        return None if record is None else str(record["resource"])

    def running(self) -> list[Json]:
        """The arguments of operations that have not ended."""
        return [each["arguments"] for each in self._state.records(_RECORD).values() if each["status"] == RUNNING]

    def close(self, patience: float = 30.0) -> None:
        """Stop: what runs stays as it is, for the next emulator."""
        self._stop.set()
        for thread in list(self._threads.values()):
            thread.join(patience)

    def submit(self, kind: str, resource: str, arguments: Json, *, segment: str, location: str | None = None) -> str:
        """Store an operation, and begin it when the change that runs has been made; returns its name.

        :param resource: the id that it is about.
        :param segment: :data:`DISKS`, :data:`COMPUTE` or :data:`GALLERIES`.
        """
        name = str(uuid.uuid4())
        fault = self._hooks.operation(kind, resource)
        record = {
            "kind": kind,
            "resource": resource,
            "arguments": {**arguments, "operation": name, **({"noDevice": True} if fault.no_device else {})},
            "segment": segment,
            "location": location or self._settings.location,
            "status": RUNNING,
            "started": now(),
        }
        self._state.put_record(_RECORD, name, record)
        self._state.after(lambda: self._start(name, record, fault))
        return name

    def wait(self, seconds: float) -> bool:
        """Sleep; returns whether to stop."""
        return self._stop.wait(seconds)

    # -- what clients see

    def headers(self, name: str, request: Request, *, location: bool = True) -> dict[str, str]:
        """Where to ask for an operation.

        :param location: whether there is a Location header: updates of virtual machines and galleries have none.
        """
        record = self._state.record(_RECORD, name) or {}
        base = (
            f"{request.base_url}/subscriptions/{self._settings.subscription}/providers/Microsoft.Compute/locations/"
            f"{record['location']}/{record['segment']}/{name}?p={uuid.uuid5(uuid.NAMESPACE_URL, name)}"
        )
        version = f"api-version={request.value('api-version') or ''}"
        found = {"Azure-AsyncOperation": f"{base}&{version}"}
        if location:
            found["Location"] = f"{base}&monitor=true&{version}"
        return {**found, **self._retry_after()}

    def answer(self, name: str, request: Request) -> Response:
        """GET of an operation: its status, or with ``monitor=true`` its result. Not within a change."""
        record = self._state.record(_RECORD, name)
        thread = self._threads.get(name)
        if record is not None and thread is not None and self._settings.profile.latency(record["kind"]) == IMMEDIATE:
            thread.join(_GRACE)
            record = self._state.record(_RECORD, name)
        if record is None:
            raise errors.no_operation(name)
        running = record["status"] == RUNNING
        if (request.value("monitor") or "").lower() == "true":
            return self._result(name, record, request)
        return Response.of_json(200, _status(name, record), self._retry_after() if running else None)

    def _result(self, name: str, record: Json, request: Request) -> Response:
        if record["status"] == RUNNING:
            return Response(202, self.headers(name, request))
        if record["status"] == FAILED:
            return Response.of_json(record["errorStatus"], {"error": record["error"]})
        if record.get("result") is None:
            return Response(204)
        return Response.of_json(200, record["result"])

    def _retry_after(self) -> dict[str, str]:
        seconds = self._settings.retry_after
        return {} if seconds is None else {"Retry-After": str(seconds)}

    # -- running them

    def _start(self, name: str, record: Json, fault: OperationFault | None = None) -> None:
        if fault is not None and fault.endless:
            return
        thread = threading.Thread(
            target=self._run, args=(name, record, fault or OperationFault()), name=f"operation {name}", daemon=True
        )
        self._threads[name] = thread
        thread.start()

    def _run(self, name: str, record: Json, fault: OperationFault) -> None:
        try:
            work, arguments = self._works[record["kind"]], record["arguments"]
            seconds = self._settings.profile.latency(record["kind"]) + fault.delay
            end = time.monotonic() + seconds
            if work.late and self.wait(seconds * self._settings.profile.device_share):
                return
            error = fault.error or self._try(lambda: work.effect(arguments))
            if self.wait(max(0.0, end - time.monotonic())):
                return
            if error is None:
                error = self._try(lambda: self._succeed(name, work, arguments))
            if error is not None:
                self._fail(name, work, arguments, error)
        finally:
            self._threads.pop(name, None)

    def _try(self, action: Callable[[], None]) -> ArmError | None:
        try:
            action()
        except ArmError as error:
            return error
        except (AzchrootError, OSError) as error:
            log.exception("an operation failed")
            return ArmError(500, "InternalServerError", f"An internal error occurred: {error}")
        except Exception as error:
            log.exception("an operation failed")
            return ArmError(500, "InternalExecutionError", f"An internal execution error occurred: {error!r}")
        return None

    def _succeed(self, name: str, work: Work, arguments: Json) -> None:
        with self._state.change():
            result = work.finish(arguments)
            self._end(name, {"status": SUCCEEDED, "result": result, "shown": work.shown and result is not None})

    def _fail(self, name: str, work: Work, arguments: Json, error: ArmError) -> None:
        ending = {"status": FAILED, "error": error.error, "errorStatus": error.status}
        try:
            with self._state.change():
                work.failed(arguments, error)
                self._end(name, ending)
        except Exception:  # it ends all the same: a client waits for it
            log.exception("a failure could not be noted")
            with self._state.change():
                self._end(name, ending)

    def _end(self, name: str, news: Json) -> None:
        record = self._state.record(_RECORD, name) or {}
        self._state.put_record(_RECORD, name, {**record, **news, "ended": now()})
        self._ended.append(name)
        while len(self._ended) > _KEPT:
            self._state.remove_record(_RECORD, self._ended.popleft())


def _status(name: str, record: Json) -> Json:
    found: Json = {"startTime": record["started"], "status": record["status"], "name": name}
    if "ended" in record:
        found["endTime"] = record["ended"]
    if record.get("shown"):
        found["properties"] = {"output": record["result"]}
    if "error" in record:
        found["error"] = record["error"]
    return found
