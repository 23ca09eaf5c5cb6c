"""Azure's rate limits: token buckets for each virtual machine, and for the subscription.

Sources: learn.microsoft.com, "Troubleshoot API throttling errors" (compute's limits for a virtual machine), and
"Understand how Azure Resource Manager throttles requests" (those of a subscription).
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from .errors import ArmError
from .hooks import OperationFault
from .http import Request, Response
from .paths import parse

Clock = Callable[[], float]


@dataclass(frozen=True)
class Limit:
    """A bucket: how many requests at once, and how many more a second."""

    group: str
    burst: int
    refill: float


PUT_MACHINE = Limit("PutVM", 12, 4 / 60)
UPDATE_MACHINE = Limit("UpdateVM", 12, 4 / 60)
GET_MACHINE = Limit("GetVM", 36, 12 / 60)
GET_OPERATION = Limit("GetOperation", 45, 15 / 60)
READS = Limit("reads", 250, 25)
WRITES = Limit("writes", 200, 10)
DELETES = Limit("deletes", 200, 10)

_MACHINE = {
    "PUT virtualmachines": PUT_MACHINE,
    "PATCH virtualmachines": UPDATE_MACHINE,
    "POST virtualmachines/attachdetachdatadisks": UPDATE_MACHINE,
    "GET virtualmachines": GET_MACHINE,
}
_SUBSCRIPTION = {"GET": READS, "HEAD": READS, "DELETE": DELETES}


@dataclass
class _Bucket:
    tokens: float
    at: float

    def take(self, limit: Limit, now: float) -> float:
        """Seconds to wait before there is a token; 0.0 where one was taken."""
        self.tokens = min(float(limit.burst), self.tokens + (now - self.at) * limit.refill)
        self.at = now
        if self.tokens < 1:
            return (1 - self.tokens) / limit.refill
        self.tokens -= 1
        return 0.0


class Throttles:
    """A hook that answers 429 when a bucket is empty.

    :param owner: the id of the resource that an operation is about, by the operation's name.
    """

    def __init__(self, *, owner: Callable[[str], str | None], clock: Clock = time.monotonic) -> None:
        self._owner = owner
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def request(self, name: str, request: Request) -> Response | None:
        """Of :class:`.hooks.Hook`."""
        path = parse(request.path)
        if path is None:
            return None
        limit, key = self._machine_limit(name, request)
        if limit is not None and (wait := self._take(limit, key)):
            return _too_many(limit, wait).response
        overall = _SUBSCRIPTION.get(request.method, WRITES)
        if wait := self._take(overall, str(path.subscription)):
            return _throttled(overall, str(path.subscription), wait).response
        return None

    def operation(self, kind: str, resource: str) -> OperationFault | None:
        """Of :class:`.hooks.Hook`."""
        return None

    def _machine_limit(self, name: str, request: Request) -> tuple[Limit | None, str]:
        path = parse(request.path)
        method, _, what = name.partition(" ")
        if path is None or path.group is None:
            if (method, what.lower()) != ("GET", "operations"):
                return None, ""
            owner = self._owner(request.path.rstrip("/").rsplit("/", 1)[-1]) or ""
            return (GET_OPERATION, owner.lower()) if "/virtualmachines/" in owner.lower() else (None, "")
        limit = _MACHINE.get(f"{method} {what.lower()}")
        return limit, path.key if path.whole else path.parent_id.lower()

    def _take(self, limit: Limit, key: str) -> float:
        with self._lock:
            now = self._clock()
            bucket = self._buckets.setdefault((limit.group, key), _Bucket(limit.burst, now))
            return bucket.take(limit, now)


def _too_many(limit: Limit, wait: float) -> ArmError:
    """aks-engine#3097."""
    now = datetime.now(timezone.utc).isoformat()
    told = {
        "operationGroup": limit.group,
        "startTime": now,
        "endTime": now,
        "allowedRequestCount": limit.burst,
        "measuredRequestCount": limit.burst + 1,
    }
    text = "The server rejected the request because too many requests have been received for this subscription."
    details = [{"code": "TooManyRequests", "target": limit.group, "message": json.dumps(told)}]
    return ArmError(429, "OperationNotAllowed", text, details=details, headers=_retry_after(wait))


def _throttled(limit: Limit, subscription: str, wait: float) -> ArmError:
    """azuredisk-csi-driver#773."""
    headers = _retry_after(wait)
    kind = limit.group.removesuffix("s")
    text = (
        f"Number of {kind} requests for subscription '{subscription}' exceeded the limit of '{limit.burst}' for time "
        f"interval '00:00:20'. Please try again after '{headers['Retry-After']}' seconds."
    )
    return ArmError(429, "SubscriptionRequestsThrottled", text, headers=headers)


def _retry_after(wait: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(wait)))}
