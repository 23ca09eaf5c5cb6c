"""Where faults and throttles come in: before a request is answered, and when an operation begins.

One :class:`Hook` can do both. What it returns first wins; a plan of faults, rate limits, and a test's own function
are all hooks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from .errors import ArmError
from .http import Request, Response


@dataclass(frozen=True)
class Reset:
    """Close the connection at once, without an answer (RST)."""


@dataclass(frozen=True)
class Delay:
    """Answer, but so many seconds later."""

    seconds: float


@dataclass(frozen=True)
class OperationFault:
    """What shall go wrong with a long-running operation."""

    error: ArmError | None = None
    """It fails with this, and does nothing."""
    delay: float = 0.0
    """Seconds that it takes longer."""
    endless: bool = False
    """It never ends, and does nothing."""
    no_device: bool = False
    """It succeeds, but the device of an attached disk never appears."""


class Hook(Protocol):
    """Answers None where it has nothing to say."""

    def request(self, name: str, request: Request) -> Response | Reset | Delay | None:
        """:param name: the call's, as the log has it: ``PUT disks``, ``POST virtualMachines/attachDetachDataDisks``."""

    def operation(self, kind: str, resource: str) -> OperationFault | None:
        """:param kind: as in a profile: ``disks.create``."""


class Hooks:
    """Hooks in their order; more can be added at any time."""

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._hooks = list(hooks)

    def add(self, hook: Hook) -> None:
        """The hook is asked after those that are there."""
        self._hooks.append(hook)

    def remove(self, hook: Hook) -> None:
        """It is not asked any more."""
        self._hooks.remove(hook)

    def request(self, name: str, request: Request) -> Response | Reset | Delay | None:
        """The first thing that a hook says of a request."""
        answers = (hook.request(name, request) for hook in list(self._hooks))
        return next((answer for answer in answers if answer is not None), None)

    def operation(self, kind: str, resource: str) -> OperationFault:
        """The first thing that a hook says of an operation."""
        answers = (hook.operation(kind, resource) for hook in list(self._hooks))
        return next((answer for answer in answers if answer is not None), OperationFault())
