"""Those who come from another terminal to look into a build: how they are let in, seen off, and told apart from what
tests leave behind. Runs in the holder.

They knock at a socket in the sandbox's own tmpfs, which the build machine's root finds by ``/proc/PID/root`` and
nothing in the image does. Beside it a file says which directory's image is built. Both end with the sandbox.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_azchroot.errors import SandboxError

from . import faults, layout, process, wire
from .process import Child
from .result import Process
from .wire import Message

Enter = Callable[..., Child]
"""Starts a command for a visitor: takes what hears its answer, descriptors, and what the visitor asks for."""


@dataclass
class Visitor:
    """One who has knocked."""

    channel: wire.Channel
    runs: bool = False
    """Whether something was started for him."""
    covered: bool = False
    """Whether that is in an overlay."""
    ended: str | None = None
    """Why it had to end."""

    def answer(self, request: int, answer: Message) -> None:
        """Say something to him, if he is still there."""
        with contextlib.suppress(wire.ClosedError, OSError):
            self.channel.send({"id": request, "ended": self.ended, **answer})


class Visitors:
    """All of them."""

    def __init__(self, about: Message, *, poll: select.poll, facts: Callable[[], Message], enter: Enter) -> None:
        """:param about: what everybody may know from the start; ``directory`` is the image's.
        :param facts: what is so by now.
        """
        self._about = about
        self._poll = poll
        self._facts = facts
        self._enter = enter
        self.changing = 0
        """How many have entered while what they write was written into the image."""
        self._here: dict[int, Visitor] = {}
        self._running: dict[int, Visitor] = {}
        """By PID of the child that sees to it. It may take a moment longer than the visitor stays."""
        self._shut: str | None = "it is not mounted yet"
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.bind(layout.DOOR)
        self._door.listen()
        poll.register(self._door, select.POLLIN)
        with open(layout.ABOUT, "w", encoding="ascii") as file:
            json.dump({"directory": about["directory"]}, file)

    def serve(self, descriptor: int) -> None:
        """Something is ready; what is not of a visitor is left alone."""
        if descriptor == self._door.fileno():
            self._knock()
        elif descriptor in self._here:
            self._hear(self._here[descriptor])

    def _knock(self) -> None:
        connection, _ = self._door.accept()
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if pid != 0:  # of this PID namespace: a bind of the user's has brought the socket into the image
            connection.close()
            return
        visitor = Visitor(wire.Channel(connection))
        self._here[visitor.channel.fileno()] = visitor
        self._poll.register(visitor.channel.fileno(), select.POLLIN)

    def _hear(self, visitor: Visitor) -> None:
        try:
            message, descriptors = visitor.channel.receive()
            request, operation, arguments = message["id"], message["op"], message["arguments"]
        except Exception:  # gone, or somebody else's program: nobody who knocks ends the build
            self._leave(visitor)
            return
        try:
            self._do(visitor, request, operation, arguments, descriptors)
        except Exception as error:
            visitor.answer(request, {"error": faults.encode(error)})
        finally:
            for each in descriptors:
                os.close(each)

    def _do(
        self, visitor: Visitor, request: int, operation: str, arguments: dict[str, Any], descriptors: Sequence[int]
    ) -> None:
        if operation == "hello":
            visitor.answer(request, {"ok": {**self._about, **self._facts(), "shut": self._shut}})
        elif self._shut is not None:
            raise SandboxError("nobody can enter the image now", why=self._shut)
        elif operation == "enter" and descriptors and not visitor.runs:
            visitor.runs, visitor.covered = True, self._facts()["covered"]
            self.changing += not visitor.covered
            child = self._enter(lambda answer: visitor.answer(request, answer), descriptors, **arguments)
            self._running[child.pid] = visitor

    def _leave(self, visitor: Visitor) -> None:
        """He is gone, perhaps by kill -9: what runs for him ends, and nobody waits for it."""
        self._poll.unregister(visitor.channel.fileno())
        del self._here[visitor.channel.fileno()]
        visitor.channel.close()
        for pid, each in self._running.items():
            if each is visitor:
                os.kill(pid, signal.SIGTERM)  # not reaped yet, so still his
                os.kill(pid, signal.SIGCONT)  # what he ran may have stopped it

    # ---- for the build

    def ended(self, pid: int) -> None:
        """A child of the holder has ended."""
        self._running.pop(pid, None)

    def processes(self) -> list[int]:
        """Those of visitors, without the children of the holder that see to them."""
        return self._below(self._running)

    def _below(self, pids: Iterable[int]) -> list[int]:
        return [each for pid in pids for each in process.below(pid)]

    def admit(self) -> None:
        """From here on visitors may enter."""
        self._shut = None

    def dismiss(self, why: str, *, covered: bool, reap: Callable[[], None]) -> list[Process]:
        """Let nobody in any more, and end what visitors run.

        :param covered: only what runs in an overlay.
        :return: what that was.
        :raises SandboxError: a process does not end.
        """
        self._shut = why
        going = {pid for pid, visitor in self._running.items() if visitor.covered or not covered}
        for pid in going:
            self._running[pid].ended = why
        found = process.shown(self._below(going))
        process.end(lambda: [each for pid in going & self._running.keys() for each in process.family(pid)], reap)
        return found
