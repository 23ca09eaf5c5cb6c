"""Finding the sandboxes of running builds, and going in from another terminal.

Nothing tells of a build but its own processes: no file outside of the sandbox could be left behind by one that died.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_azchroot.errors import SandboxError

from . import environment, layout, wire
from .asking import Requests
from .commands import additions, attendance, exit_code
from .confinement import Confinement
from .pump import Moves
from .wire import Message

HOLDER, KEEPER = "azchroot-holder", "azchroot-keeper"
"""How they call themselves (proc_pid_comm(5))."""
_PATIENCE = 2.0


@dataclass(frozen=True)
class Found:
    """A running build that lets visitors in."""

    holder: int
    session: int
    """The PID of the pytest that builds."""
    directory: Path
    """Of the image."""


def find(directory: Path) -> list[Found]:
    """The running builds of an image, by the PID of their session.

    :raises SandboxError: there are sandboxes that this user may not look into.
    """
    wanted = directory.resolve()
    builds = [found for holder in _holders() if (found := _about(holder)) is not None]
    return sorted((each for each in builds if each.directory == wanted), key=lambda each: each.session)


def _holders() -> Iterator[int]:
    for entry in sorted(filter(str.isdecimal, os.listdir("/proc")), key=int):
        with contextlib.suppress(OSError):  # it has ended
            if _is_holder(int(entry)):
                yield int(entry)


def _is_holder(pid: int) -> bool:
    """Whether a process is what it calls itself, which anybody can: who enters types there, and hands over descriptors.

    Only root starts sandboxes, by a keeper; and no process of an image makes another one.
    """
    # the children that it forks have its name too, for a moment
    if _name(pid) != HOLDER or _status(pid, "NSpid")[-1:] != ["1"] or {*_status(pid, "Uid")} != {"0"}:
        return False
    above = _parent(pid)
    if _name(above) != KEEPER or {*_status(above, "Uid")} != {"0"}:
        return False
    while (above := _parent(above)) > 1:
        if _name(above) == HOLDER:
            return False
    return True


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text("utf-8", errors="replace").strip()


def _status(pid: int, field: str) -> list[str]:
    """A field of proc_pid_status(5); empty if it is not there."""
    lines = Path(f"/proc/{pid}/status").read_text("utf-8", errors="replace").splitlines()
    return next((line.split()[1:] for line in lines if line.startswith(f"{field}:")), [])


def _about(holder: int) -> Found | None:
    try:
        about = json.loads(Path(_within(holder, layout.ABOUT)).read_text("ascii"))
        return Found(holder, _parent(_parent(holder)), Path(about["directory"]))
    except PermissionError as error:
        hint = "run it as root of the machine; in a container it takes CAP_SYS_PTRACE"
        raise SandboxError("running builds cannot be looked into", why=error.strerror, hint=hint) from error
    except (OSError, ValueError):  # it lets nobody in, has just begun, or has just ended
        return None


def _peer(end: socket.socket) -> int:
    """The PID of who listens there, as SO_PEERCRED of unix(7) has it."""
    return int(struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def _within(holder: int, path: str) -> str:
    return f"/proc/{holder}/root{path}"


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()[1])


class Visit(Requests):
    """A way into the sandbox of a build. What runs there for us ends with it, and with us."""

    def __init__(self, channel: wire.Channel, *, waiting: Callable[[], None]) -> None:
        super().__init__(channel)
        asked = self._send("hello", {})
        if not select.select([channel], [], [], _PATIENCE)[0]:
            waiting()
        facts: Message = self._answer(asked)
        self.shut: str | None = facts["shut"]
        """Why nobody can enter now."""
        self.covered: bool = facts["covered"]
        """Whether what is written goes to overlays."""
        self._stubs: bool = facts["stubs"]
        self._environment: Mapping[str, str] = facts["environment"]
        self._confinement = Confinement(**facts["confinement"])
        self.ended: str | None = None
        """Why the build has ended what ran here."""

    @classmethod
    @contextlib.contextmanager
    def begin(cls, found: Found, *, waiting: Callable[[], None] = lambda: None) -> Iterator[Visit]:
        """:param waiting: called if the build does not answer at once: it may be unmounting.
        :raises SandboxError: the build has ended.
        """
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            end.connect(_within(found.holder, layout.DOOR))
            if _peer(end) != found.holder:  # its PID is another's by now
                raise ConnectionRefusedError
        except OSError as error:
            end.close()
            raise SandboxError("the build has ended") from error
        channel = wire.Channel(end)
        try:
            yield cls(channel, waiting=waiting)
        finally:
            channel.close()

    def enter(
        self, command: Sequence[str], *, env: Mapping[str, str], streams: Moves, size: tuple[int, int] | None
    ) -> int:
        """As :meth:`.Commands.attend`: held as the commands of the build are.

        :raises SandboxError: nobody can enter now; or the build has ended.
        """
        own = additions(covered=self.covered, stubs=self._stubs)
        variables = environment.inside(own, self._environment, env)
        asked = attendance(command, variables, confinement=self._confinement, size=size)
        return exit_code(self.attend("enter", asked, streams))

    def _receive(self) -> Message:
        message = super()._receive()
        self.ended = message["ended"]
        return message

    def _end(self, request: int) -> None:
        """Closing the channel ends it."""

    def _dead(self) -> SandboxError:
        return SandboxError("the build has ended")
