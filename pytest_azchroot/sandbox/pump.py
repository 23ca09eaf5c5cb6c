"""Moving a command's input and output while it runs, in one thread and without a deadlock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections.abc import Callable, Sequence
from typing import Protocol

_BLOCK = 1 << 16


class Moves(Protocol):
    """What stands between a command and whoever watches it."""

    @property
    def descriptors(self) -> Sequence[int]:
        """What the holder gets: standard output, standard error and, where there is input, that."""

    def close_far_ends(self) -> None:
        """The holder has its own by now."""

    def register(self, poll: select.poll) -> None:
        """Ask for what there is to be moved."""

    def move(self, descriptor: int, poll: select.poll) -> None:
        """Move what is ready."""

    def drain(self) -> None:
        """Take what is still on the way from a command that has ended."""


class Pump:
    """The pipes of one command. Without content its standard input is empty."""

    def __init__(
        self,
        *,
        content: bytes | None,
        stdin: int | None,
        stdout: int | None,
        hear: Callable[[str, bytes], None] | None,
    ) -> None:
        self.chunks: list[tuple[str, bytes]] = []
        """``("stdout" | "stderr", bytes)`` in order of arrival."""
        self._hear = hear
        self._streams: dict[int, str] = {}
        self._far: list[int] = []
        self._content = memoryview(content or b"")
        self._input: int | None = None
        self.descriptors = [
            self._output("stdout") if stdout is None else stdout,
            self._output("stderr"),
        ]
        """What the command gets: standard output, standard error and, where there is input, that."""
        if stdin is not None:
            self.descriptors.append(stdin)
        elif content is not None:
            far, self._input = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._input, False)
            self._far.append(far)
            self.descriptors.append(far)

    def _output(self, name: str) -> int:
        near, far = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(near, False)
        self._streams[near] = name
        self._far.append(far)
        return far

    def __enter__(self) -> Pump:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_far_ends()
        self._end_input()
        for descriptor in self._streams:
            os.close(descriptor)

    def close_far_ends(self) -> None:
        """The holder has its own by now."""
        while self._far:
            os.close(self._far.pop())

    def register(self, poll: select.poll) -> None:
        """Ask for what there is to be moved."""
        for descriptor in self._streams:
            poll.register(descriptor, select.POLLIN)
        if self._input is not None:
            poll.register(self._input, select.POLLOUT)

    def move(self, descriptor: int, poll: select.poll) -> None:
        """Move what is ready."""
        if descriptor == self._input:
            self._feed(poll)
        elif not self._read(descriptor):
            poll.unregister(descriptor)

    def drain(self) -> None:
        """Take what is still in the pipes of a command that has ended. No more than a pipe holds: a daemon that it
        left behind may go on writing for ever."""
        for descriptor in self._streams:
            left = fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
            with contextlib.suppress(BlockingIOError):
                while left > 0 and (moved := self._read(descriptor, left)):
                    left -= moved

    def _read(self, descriptor: int, limit: int = _BLOCK) -> int:
        data = os.read(descriptor, min(limit, _BLOCK))
        if data:
            stream = self._streams[descriptor]
            self.chunks.append((stream, data))
            if self._hear is not None:
                self._hear(stream, data)
        return len(data)

    def _feed(self, poll: select.poll) -> None:
        assert self._input is not None
        try:
            written = os.write(self._input, self._content[:_BLOCK]) if self._content else 0
        except BrokenPipeError:  # the command reads no more, as `head` does
            written = len(self._content)
        except BlockingIOError:
            return
        self._content = self._content[written:]
        if not self._content:
            poll.unregister(self._input)
            self._end_input()

    def _end_input(self) -> None:
        if self._input is not None:
            os.close(self._input)
            self._input = None
