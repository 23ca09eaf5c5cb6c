"""Operations of the virtual machine that have been begun: asked about sparingly, and once for all processes.

One call attaches the disks of many builds, so they wait for one operation. Whose turn it is, and what was heard, stands
in a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_azchroot.clouds.azure import shared
from pytest_azchroot.clouds.azure.asking import Progress, failure
from pytest_azchroot.clouds.azure.buckets import POLLS, Budget
from pytest_azchroot.clouds.azure.courses import Course, course, names
from pytest_azchroot.clouds.azure.queue import Answer, Failure
from pytest_azchroot.clouds.azure.refusals import AzureError

_FIRST, _GROWTH, _CEILING = 2.0, 1.5, 15.0
"""Seconds before the first question, how the pauses grow, and the longest. Attaching takes 6 s or so (recorded)."""
_GRACE = 15.0
"""Seconds that a disk may still need after an operation has failed that was for other disks, too."""
_KEPT = 3600.0
_DENIED, _FORGOTTEN = 429, 404


class Operations:
    """What the host knows of the machine's operations."""

    def __init__(self, path: Path, budget: Budget, ask: Callable[[str], Progress]) -> None:
        self._path = path
        self._budget = budget
        self._ask = ask

    def begun(self, url: str, *, ended: bool = False) -> None:
        """Azure has accepted it."""
        now = shared.now()
        with shared.changing(self._path) as content:
            for key in [key for key, each in content.items() if now - each["at"] > _KEPT]:
                del content[key]
            content.setdefault(_key(url), {"at": now, "next": now + _FIRST, "pause": _FIRST, "ended": ended})

    def check(self, url: str, doing: str) -> bool:
        """Whether it has succeeded. Asks Azure only if it is time, and allowed.

        :raises AzureError: it has failed.
        """
        known: dict[str, Any] | None = shared.read(self._path).get(_key(url))
        if known is None:
            self.begun(url)
            return False
        if known["ended"]:
            return _succeeded(known, doing)
        if known["next"] > shared.now() or not self._turn(url):
            return False
        try:
            heard = self._ask(url)
        except AzureError as error:
            if error.status == _DENIED:
                self._budget.empty(POLLS, 60)
            if course(failure(error)) in {Course.LATER, Course.NOT_WE} or error.status == _FORGOTTEN:
                return False  # the device and the disk tell, too; a timeout of the caller's ends it
            raise
        if not heard.ended:
            return False
        found = {"ended": True, "failure": None if heard.failure is None else asdict(heard.failure)}
        with shared.changing(self._path) as content:
            content[_key(url)] = known | found
        return _succeeded(found, doing)

    def _turn(self, url: str) -> bool:
        now = shared.now()
        with shared.changing(self._path) as content:
            known = content.get(_key(url))
            if known is None or known["ended"] or known["next"] > now or not self._budget.take(POLLS):
                return False
            pause = min(known["pause"] * _GROWTH, _CEILING)
            content[_key(url)] = {**known, "next": now + pause, "pause": pause}
            return True


class Following:
    """What one who asked for a part of an operation makes of it.

    :param lost: says whether the part was not done, after the operation has failed.
    """

    def __init__(
        self, operations: Operations, answer: Answer, *, disk: str, doing: str, lost: Callable[[], bool]
    ) -> None:
        self._operations = operations
        self._answer = answer
        self._disk = disk
        self._doing = doing
        self._lost = lost
        self._failed: float | None = None

    def check(self) -> None:
        """Where others have a part in it, its failure may be theirs: then ours may yet come.

        :raises AzureError: it has failed, for our sake or for nobody's by name.
        """
        if self._answer.operation is None:
            return
        try:
            self._operations.check(self._answer.operation, self._doing)
        except AzureError as error:
            first = self._failed is None
            self._failed = self._failed or shared.now()
            if self._answer.together == 1 or names(error.why or "", self._disk) or (first and self._lost()):
                raise
            if shared.now() - self._failed > _GRACE:
                raise


def _key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:24]


def _succeeded(known: dict[str, Any], doing: str) -> bool:
    if not known.get("failure"):
        return True
    found = Failure(**known["failure"])
    raise AzureError(f"{doing} failed", why=found.why, hint=found.hint, code=found.code)
