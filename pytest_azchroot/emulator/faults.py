"""A plan of what shall go wrong: the nth call or operation of a kind.

A plan is a list of rules, in YAML or JSON::

    - {call: PUT disks, nth: 1, status: 429, code: TooManyRequests, retry_after: 2}
    - {call: "*", nth: 7, reset: true}
    - {call: GET virtualMachines, delay: 1.5}
    - {operation: disks.create, nth: 2, code: InternalExecutionError, message: no luck}
    - {operation: versions.create, endless: true}
    - {operation: virtualMachines.attachDetach, resource: "*/vm1", no_device: true}

``call`` is the call's name as the log has it, ``operation`` the kind as a profile has it; both, and ``resource``, may
have wildcards. A rule without ``nth`` is for every one. Rules count for themselves, in the order of arrival.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from .errors import ArmError
from .hooks import Delay, OperationFault, Reset
from .http import Request, Response
from .settings import SettingsError

_DEFAULT_STATUS = 500
_DEFAULT_CODE = "InternalServerError"
_DEFAULT_MESSAGE = "A fault, as planned."


@dataclass(frozen=True)
class Rule:
    """One fault. It is for calls or for operations."""

    call: str | None = None
    operation: str | None = None
    nth: int | None = None
    """The first is 1; None is every one."""
    resource: str = "*"
    """The path of a call, or the id that an operation is about."""
    status: int | None = None
    """Of a call's answer; of an operation that fails, what its Location answers then."""
    code: str | None = None
    message: str | None = None
    retry_after: int | None = None
    """Seconds."""
    reset: bool = False
    """The connection is closed without an answer."""
    delay: float = 0.0
    """Seconds."""
    endless: bool = False
    no_device: bool = False

    def __post_init__(self) -> None:
        if (self.call is None) == (self.operation is None):
            raise SettingsError("a fault is for a `call` or for an `operation`", why=repr(self))
        if self.call is None and self.reset:
            raise SettingsError("an operation has no connection to reset", why=repr(self))
        if self.operation is None and (self.endless or self.no_device):
            raise SettingsError("only an operation can be endless, or without a device", why=repr(self))

    @property
    def error(self) -> ArmError | None:
        """What is answered, or what the operation fails with; None where it only takes longer."""
        if self.status is None and self.code is None and self.message is None:
            return None
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        status, code = self.status or _DEFAULT_STATUS, self.code or _DEFAULT_CODE
        return ArmError(status, code, self.message or _DEFAULT_MESSAGE, headers=headers)

    @property
    def answer(self) -> Response | Reset | Delay | None:
        """What becomes of the call."""
        if self.reset:
            return Reset()
        error = self.error
        if error is not None:
            return error.response
        return Delay(self.delay) if self.delay else None

    @property
    def fault(self) -> OperationFault:
        """What becomes of the operation."""
        return OperationFault(self.error, self.delay, endless=self.endless, no_device=self.no_device)


class FaultPlan:
    """A hook that follows rules; the first that is due wins, and all that match count."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = list(rules)
        self._lock = threading.Lock()
        self._seen = [0] * len(self._rules)

    @classmethod
    def load(cls, path: Path) -> FaultPlan:
        """Read a plan.

        :raises SettingsError: it cannot be read, or is none.
        """
        names = {field.name for field in fields(Rule)}
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8")) or []
            if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
                raise SettingsError("a plan is a list of rules")
            for each in found:
                if unknown := set(each) - names:
                    raise SettingsError(
                        f"a rule has no {sorted(unknown)[0]!r}", hint=f"it has {', '.join(sorted(names))}"
                    )
            return cls(Rule(**each) for each in found)
        except (OSError, yaml.YAMLError, TypeError) as error:
            raise SettingsError(f"the fault plan {path} cannot be used", why=str(error)) from error
        except SettingsError as error:
            raise SettingsError(f"the fault plan {path} cannot be used", why=str(error)) from error

    def request(self, name: str, request: Request) -> Response | Reset | Delay | None:
        """Of :class:`.hooks.Hook`."""
        rule = self._due("call", name, request.path)
        return None if rule is None else rule.answer

    def operation(self, kind: str, resource: str) -> OperationFault | None:
        """Of :class:`.hooks.Hook`."""
        rule = self._due("operation", kind, resource)
        return None if rule is None else rule.fault

    def _due(self, what: str, name: str, resource: str) -> Rule | None:
        found = None
        with self._lock:
            for index, rule in enumerate(self._rules):
                if not _matches(getattr(rule, what), name) or not _matches(rule.resource, resource):
                    continue
                self._seen[index] += 1
                if found is None and rule.nth in {None, self._seen[index]}:
                    found = rule
        return found


def _matches(pattern: Any, text: str) -> bool:
    return pattern is not None and fnmatchcase(text.lower(), str(pattern).lower())
