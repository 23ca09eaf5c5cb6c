"""What was asked of Azure, and how long it took: where the time of a build went."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Call:
    """One HTTP request."""

    name: str
    """``PUT disks``, ``POST virtualMachines/attachDetachDataDisks``, ``GET DiskOperations``, ``GET token``."""
    status: int | None
    """None where nobody answered."""
    seconds: float


@dataclass(frozen=True)
class Wait:
    """A time in which somebody waited for an operation."""

    doing: str
    seconds: float


@dataclass(frozen=True)
class Sum:
    """Calls of one name."""

    name: str
    count: int
    seconds: float
    refused: int
    """How many were answered with an error, or not at all."""


class Calls:
    """Every HTTP request of a build; threads may share it.

    :param before: hears the name of each request before it is sent. What it raises, the request raises.
    :param after: hears each call when it has been answered, or has failed.
    """

    def __init__(
        self, *, before: Callable[[str], None] | None = None, after: Callable[[Call], None] | None = None
    ) -> None:
        self.before = before
        self.after = after
        self._lock: Final = threading.Lock()
        self._thread: Final = threading.local()
        self._calls: list[Call] = []
        self._waits: list[Wait] = []

    @contextmanager
    def asked(self, method: str, url: str) -> Iterator[Callable[[int], None]]:
        """Note a request, which is made inside; what is given takes the status of the answer."""
        name = call_name(method, url)
        if self.before is not None:
            self.before(name)
        status: list[int] = []
        began = time.monotonic()
        try:
            yield status.append
        finally:
            call = Call(name, status[-1] if status else None, time.monotonic() - began)
            with self._lock:
                self._calls.append(call)
            if self.after is not None:
                self.after(call)

    @contextmanager
    def waiting(self, doing: str) -> Iterator[None]:
        """Note that somebody waits for an operation inside. A wait within a wait of the same thread is no other."""
        if getattr(self._thread, "waits", False):
            yield
            return
        began, self._thread.waits = time.monotonic(), True
        try:
            yield
        finally:
            self._thread.waits = False
            with self._lock:
                self._waits.append(Wait(doing, time.monotonic() - began))

    def all(self) -> tuple[Call, ...]:
        """Every call so far, in the order in which they ended."""
        with self._lock:
            return tuple(self._calls)

    @property
    def count(self) -> int:
        """How many calls there were."""
        return len(self.all())

    @property
    def seconds(self) -> float:
        """How long they took; those at once count each."""
        return sum(call.seconds for call in self.all())

    @property
    def waits(self) -> tuple[Wait, ...]:
        """Every wait so far."""
        with self._lock:
            return tuple(self._waits)

    def summary(self) -> list[Sum]:
        """The calls by name, those that took the longest first."""
        by_name: dict[str, list[Call]] = {}
        for call in self.all():
            by_name.setdefault(call.name, []).append(call)
        sums = [
            Sum(
                name,
                count=len(calls),
                seconds=sum(call.seconds for call in calls),
                refused=sum(call.status is None or call.status >= 400 for call in calls),
            )
            for name, calls in by_name.items()
        ]
        return sorted(sums, key=lambda each: (-each.seconds, each.name))


def call_name(method: str, url: str) -> str:
    """What a request is for, without the names of resources: ``PUT galleries/images/versions``. Pure."""
    parts = [part for part in urlsplit(url).path.split("/") if part]
    lowered = [part.lower() for part in parts]
    if "providers" in lowered:
        types = parts[lowered.index("providers") + 2 :: 2]
        if [each.lower() for each in types[:1]] == ["locations"] and len(types) > 1:
            types = types[1:]
        return f"{method} {'/'.join(types)}"
    if lowered[:1] == ["subscriptions"]:
        return f"{method} {parts[-1] if len(parts) % 2 else parts[-2]}"
    return f"{method} {parts[-1] if parts else '/'}"


def resource_name(url: str) -> str:
    """The end of a request's path, for people: ``disks/x``, ``virtualMachines/vm1/attachDetachDataDisks``. Pure."""
    path = urlsplit(url).path.strip("/")
    parts = path.split("/")
    lowered = [part.lower() for part in parts]
    if "providers" in lowered:
        parts = parts[lowered.index("providers") + 2 :]
    return "/".join(parts)
