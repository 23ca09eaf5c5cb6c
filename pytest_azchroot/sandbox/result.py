"""What a command leaves behind: its output, its error, its survivors."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pytest_azchroot.errors import AzchrootError

_SHOWN_LINES = 30


@dataclass(frozen=True)
class Completed:
    """A command that has ended. Text is decoded with ``errors="replace"``."""

    command: str
    """As shown to people: an argv is quoted for the shell."""
    code: int
    """Exit code; negative is the signal that ended it."""
    duration: float
    """Seconds."""
    chunks: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    """``("stdout" | "stderr", bytes)`` in order of arrival."""

    @cached_property
    def stdout_bytes(self) -> bytes:
        """Standard output as it was written."""
        return b"".join(data for stream, data in self.chunks if stream == "stdout")

    @cached_property
    def stderr_bytes(self) -> bytes:
        """Standard error as it was written."""
        return b"".join(data for stream, data in self.chunks if stream == "stderr")

    @property
    def stdout(self) -> str:
        """Standard output."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error."""
        return self.stderr_bytes.decode(errors="replace")

    @property
    def output(self) -> str:
        """Both, in order of arrival."""
        return b"".join(data for _, data in self.chunks).decode(errors="replace")


class CommandError(AzchrootError):
    """A command failed or took too long. ``completed`` is what there is of it."""

    __module__ = "pytest_azchroot"  # as people import it, and as tracebacks should name it
    _colours = True

    def __init__(self, completed: Completed, *, timeout: float | None = None) -> None:
        self.completed = completed
        self.timeout = timeout
        ending = how_it_ended(completed.code) if timeout is None else f"timed out after {timeout:g} s"
        super().__init__(f"`{completed.command}` {ending}", why=_end_of(completed) or "it printed nothing")


def how_it_ended(code: int) -> str:
    """``exited with 3`` or ``was killed by SIGKILL``."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _end_of(completed: Completed) -> str:
    tail = b""
    for _, data in reversed(completed.chunks):
        tail = data + tail
        if tail.count(b"\n") > _SHOWN_LINES:
            break
    lines = tail.decode(errors="replace").rstrip().splitlines()
    shown = lines[-_SHOWN_LINES:]
    return "\n" + "\n".join(shown) if shown else ""


def as_shown(command: str | Sequence[str]) -> str:
    """A command as a person would type it."""
    return command if isinstance(command, str) else shlex.join(command)


@dataclass(frozen=True)
class Process:
    """A process that outlived its command."""

    pid: int
    """In the sandbox's PID namespace."""
    command: str


@dataclass(frozen=True)
class Unmounted:
    """What the strict unmount found and did."""

    survivors: tuple[Process, ...]
    """Processes that were still there, and were ended."""
    checked: tuple[str, ...]
    """``/dev/loop3p1 (ext4)``: what a read-only file system check found clean."""
    trimmed: tuple[tuple[str, int | None], ...] = ()
    """Node, and bytes that its file system discarded; None where it cannot."""


@dataclass(frozen=True)
class Sealed:
    """What the seal found and did."""

    unmounted: Unmounted
    device: str
    """The disk from here on, read-only: the same loop device, unless another program took it meanwhile."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """How long each part took."""


@dataclass(frozen=True)
class Write:
    """A change that went to an overlay, and not into the image."""

    path: str
    """In the image."""
    kind: str
    """``written``; ``touched``: mode, owner or times; ``deleted``; ``replaced``: a directory that was made anew."""
    count: int = 1
    """How many changes this stands for: the last one, of ``/``, for all that are not named."""
