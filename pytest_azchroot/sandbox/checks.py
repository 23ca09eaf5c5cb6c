"""What must hold before an image may be published: nobody uses it, and its file systems are clean."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from pytest_azchroot.disk.fsck import CHECKERS, Checker
from pytest_azchroot.errors import DirtyImageError, UnavailableError

from . import busy, environment
from .faults import BusyError

if TYPE_CHECKING:
    from .sandbox import Sandbox

_UNUSED_PATIENCE = 10.0
_POLL = 0.01


class Checks:
    """The strict part of unmounting."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def require_checker(self, kind: str | None) -> None:
        """Say before the first step what would be missing after the last.

        :raises UnavailableError: the tool that checks this kind of file system is not installed.
        """
        checker = CHECKERS.get(kind or "")
        path = environment.outside(os.environ)["PATH"]
        if checker is not None and shutil.which(checker.command[0], path=path) is None:
            what = f"{checker.command[0]} is not installed; an image with {kind} cannot be checked without it"
            raise UnavailableError(what, hint=f"apt-get install {checker.package}")

    def strictly(self, operation: str) -> Any:
        """A request that unmounts something.

        :raises DirtyImageError: something is in use; by whom.
        """
        try:
            return self._sandbox.ask(operation)
        except BusyError as error:
            holders = [error.why] if error.why else []
            holders += busy.users(error.devices)
            dirty = DirtyImageError(error.what, why=_listed(holders))
            dirty.later = error.later
            raise dirty from None  # it says all of the first one, and who

    def wait_until_unused(self) -> None:
        """A mount namespace whose last process has ended lets go of its mounts a moment later.

        :raises DirtyImageError: a partition stays in use.
        """
        deadline = time.monotonic() + _UNUSED_PATIENCE
        while nodes := self._sandbox.ask("in_use"):
            if time.monotonic() > deadline:
                devices = [os.stat(node).st_rdev for node in nodes if os.path.exists(node)]
                numbers = {f"{os.major(device)}:{os.minor(device)}" for device in devices}
                holders = busy.users(devices) + busy.namespaces_with(numbers)
                raise DirtyImageError(f"{', '.join(nodes)} stay in use after the unmount", why=_listed(holders))
            time.sleep(_POLL)

    def file_systems(self) -> tuple[str, ...]:
        """Check each file system of a known kind.

        :return: the clean ones, ``/dev/loop3p1 (ext4)``.
        :raises DirtyImageError: one is not clean; its checker's words.
        """
        checked = []
        for found in self._sandbox.filesystems():
            checker = CHECKERS.get(found.type or "")
            if checker is not None:
                self.require_checker(found.type)
                self._check(checker, found.node, found.type or "")
                checked.append(f"{found.node} ({found.type})")
        return tuple(checked)

    def _check(self, checker: Checker, node: str, kind: str) -> None:
        done = self._sandbox.outside(checker.argv(node), check=False, output=_unheard)
        if done.code != 0:
            why = f"`{done.command}` exited with {done.code}\n{done.output.strip()[-2000:]}"
            raise DirtyImageError(f"the file system on {node} ({kind}) is not clean", why=why)


def _unheard(stream: str, data: bytes) -> None:
    """A check's words are shown only if it fails."""


def _listed(holders: list[str]) -> str:
    return "".join(f"\n  {holder}" for holder in holders) if holders else "nobody who can be named"
