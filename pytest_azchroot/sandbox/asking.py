"""Asking the holder: numbered requests and their answers, and hearing a command while it runs."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.leaving import attached_to

from . import faults, wire
from .pump import Moves, Pump
from .wire import Message

Hear = Callable[[str, bytes], None]
"""Receives ``"stdout"`` or ``"stderr"`` and what has just arrived."""


class Requests:
    """One end of a channel to a holder. One request at a time; threads wait for each other."""

    def __init__(self, channel: wire.Channel) -> None:
        self._channel = channel
        self._lock = threading.RLock()
        self._last = 0

    def ask(self, operation: str, **arguments: Any) -> Any:
        """A request and its answer.

        :raises AzchrootError: what went wrong in the holder.
        """
        with self._lock:
            return self._answer(self._send(operation, arguments))

    def run(
        self,
        operation: str,
        arguments: Mapping[str, Any],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        content: bytes | None = None,
        timeout: float | None = None,
        hear: Hear | None = None,
    ) -> tuple[int | None, list[tuple[str, bytes]]]:
        """Start a child and hear it until it has ended, which its exit says and not the end of its output: a daemon
        keeps the pipes open.

        :param stdin: a descriptor to read from, instead of ``content``.
        :param stdout: a descriptor to write to, instead of being heard.
        :param timeout: seconds, after which all its processes are ended.
        :return: its exit code, None after a timeout, and what it wrote.
        :raises AzchrootError: it could not be started.
        """
        with Pump(content=content, stdin=stdin, stdout=stdout, hear=hear) as pump:
            ended = self.attend(operation, arguments, pump, timeout=timeout)
            return None if ended is None else ended["code"], pump.chunks

    def attend(
        self, operation: str, arguments: Mapping[str, Any], pump: Moves, *, timeout: float | None = None
    ) -> Message | None:
        """Start a child and move what it reads and writes until it has ended.

        :return: its ``code``, and the ``value`` of a task of ours; None after a timeout.
        :raises AzchrootError: it could not be started.
        """
        with self._lock:
            request = self._send(operation, arguments, pump.descriptors)
            pump.close_far_ends()
            deadline = None if timeout is None else time.monotonic() + timeout
            try:
                answer = self._hear(request, pump, deadline)
            except BaseException as error:
                # also for Ctrl-C, and for an error of the listener: the sandbox stays usable
                with attached_to(error):
                    self._end(request)
                raise
            if answer is None:
                self._end(request)
            pump.drain()
            return None if answer is None else self._value(answer)

    def _hear(self, request: int, pump: Moves, deadline: float | None) -> Message | None:
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        pump.register(poll)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = poll.poll(None if left is None else left * 1000)
            for descriptor, _ in ready:
                if descriptor != self._channel.fileno():
                    pump.move(descriptor, poll)
                elif (message := self._receive())["id"] == request:
                    return message
            if not ready and left == 0:
                return None

    def _end(self, request: int) -> None:
        """End all processes of a request."""
        self._answer(self._send("kill", {"target": request}))

    def _send(self, operation: str, arguments: Mapping[str, Any], descriptors: Sequence[int] = ()) -> int:
        self._last += 1
        message = {"id": self._last, "op": operation, "arguments": dict(arguments)}
        try:
            self._channel.send(message, descriptors)
        except wire.ClosedError:
            raise self._dead() from None
        return self._last

    def _answer(self, request: int) -> Any:
        # numbered, because an interrupted request leaves its answer in the socket
        while (message := self._receive())["id"] != request:
            pass
        return self._value(message)

    @staticmethod
    def _value(message: Message) -> Any:
        if "error" in message:
            raise faults.decode(message["error"])
        return message["ok"]

    def _receive(self) -> Message:
        try:
            return self._channel.receive()[0]
        except wire.ClosedError:
            raise self._dead() from None

    def _dead(self) -> SandboxError:
        """What to say when the holder is gone."""
        raise NotImplementedError
