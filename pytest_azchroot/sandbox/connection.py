"""The caller's end: starting the keeper, asking the holder, and hearing a command while it runs."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pytest_azchroot.errors import DiskError, SandboxError

from . import environment, faults, wire
from .pump import Pump
from .wire import Message

Hear = Callable[[str, bytes], None]
"""Receives ``"stdout"`` or ``"stderr"`` and what has just arrived."""

_PACKAGES = str(Path(__file__).resolve().parents[2])
# -S leaves site-packages out and -I the environment: nothing of the user's is imported by a process that is root
_BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop(1)); from pytest_azchroot.sandbox.keeper import main; main()"
_PATIENCE = 10.0
_END_OF_ERRORS = 4000


class Connection:
    """A running sandbox, as the caller has it. One request at a time; threads wait for each other."""

    def __init__(self, *, path: str, hostname: str, read_only: bool = False) -> None:
        self._lock = threading.RLock()
        self._holder: int | None = None
        self._last = 0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in let_go
        self._channel, theirs = wire.pair()
        caller = os.pidfd_open(os.getpid())
        arguments = [_PACKAGES, str(theirs.fileno()), str(caller)]
        try:
            self._send_disk(path, hostname=hostname, read_only=read_only)
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP, *arguments],
                pass_fds=(theirs.fileno(), caller),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                cwd="/",
                # nothing of the caller's environment is where a command of the image could find it
                env={"PATH": environment.with_system_tools(os.environ.get("PATH", ""))},
            )
        finally:
            theirs.close()
            os.close(caller)
        try:
            self.description: Message = self._answer(0)
            self._holder = os.pidfd_open(self.description["pid"])
        except BaseException:
            self.let_go()
            raise

    def _send_disk(self, path: str, *, hostname: str, read_only: bool) -> None:
        """The first message. It is not an argument: commands in the image can read the command line of their PID 1.

        The disk is opened here, because a file without a name is called ``/proc/PID/fd/N``, which means nothing in
        the sandbox's own ``/proc``.
        """
        try:
            disk = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except OSError as error:
            raise DiskError(f"the disk {path} cannot be opened", why=error.strerror) from error
        try:
            self._channel.send({"hostname": hostname, "read_only": read_only}, [disk])
        finally:
            os.close(disk)

    # ---- requests

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
        with self._lock, Pump(content=content, stdin=stdin, stdout=stdout, hear=hear) as pump:
            request = self._send(operation, arguments, pump.descriptors)
            pump.close_far_ends()
            deadline = None if timeout is None else time.monotonic() + timeout
            try:
                answer = self._hear(request, pump, deadline)
            except BaseException:
                # also for Ctrl-C, and for an error of the listener: the sandbox stays usable
                with contextlib.suppress(SandboxError):  # a dead sandbox has no processes; the first error counts
                    self._end(request)
                raise
            if answer is None:
                self._end(request)
                pump.drain()
                return None, pump.chunks
            pump.drain()
            return self._value(answer)["code"], pump.chunks

    def _hear(self, request: int, pump: Pump, deadline: float | None) -> Message | None:
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
        code = self._keeper.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip()[-_END_OF_ERRORS:]
        return SandboxError("the sandbox has died", why=words or f"its keeper ended with {code}; was it killed?")

    # ---- ending

    def wait(self, *, patience: float) -> int:
        """The keeper's exit code.

        :raises subprocess.TimeoutExpired: it does not end.
        """
        return self._keeper.wait(patience)

    def let_go(self) -> None:
        """End everything without asking. Killing the keeper kills the holder, and with it all the rest."""
        self._keeper.kill()
        self._keeper.wait()
        self._channel.close()
        self._errors.close()
        if self._holder is not None:
            # it goes through the mounts on its way out
            select.select([self._holder], [], [], _PATIENCE)
            os.close(self._holder)
            self._holder = None

    @property
    def keeper(self) -> int:
        """The keeper's PID."""
        return self._keeper.pid

    @property
    def holder(self) -> int:
        """The holder's PID, as this process sees it."""
        return int(self.description["pid"])
