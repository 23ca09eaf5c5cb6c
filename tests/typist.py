"""Somebody at a terminal: types, reads, and looks at what state the terminal is in."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PATIENCE = 60.0


class Typist:
    """A process on a terminal of its own."""

    def __init__(self, pid: int, master: int) -> None:
        self.pid = pid
        self._master = master
        self._read = 0
        self.seen = ""
        self._status: int | None = None

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> str:
        """Read until this was shown, after what was waited for before; all between."""
        deadline = time.monotonic() + _PATIENCE
        while text not in self.seen[self._read :]:
            if not self._read_more(deadline - time.monotonic()):
                raise AssertionError(f"{text!r} was not shown, but {self.seen[self._read :]!r}")
        at = self.seen.index(text, self._read)
        between, self._read = self.seen[self._read : at], at + len(text)
        return between

    def _read_more(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], max(seconds, 0))[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the process has ended
            data = b""
        self.seen += data.decode(errors="replace")
        return bool(data)

    def run(self, command: str) -> str:
        """Type a command for a shell, and wait for its end; what it printed."""
        self.type(f"{command}; echo e'n'd\n")
        self.wait_for("\r\n")  # the echo of what was typed
        return self.wait_for("end\r\n").replace("\r\n", "\n")

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def modes(self) -> list[Any]:
        """What the terminal does with what goes through it (termios(3))."""
        return termios.tcgetattr(self._master)

    def is_raw(self) -> bool:
        return not self.modes()[3] & termios.ICANON

    def end(self) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        deadline = time.monotonic() + _PATIENCE
        while self._read_more(min(1.0, deadline - time.monotonic())) or not self._has_ended():
            assert time.monotonic() < deadline, f"it does not end: {self.seen[self._read :]!r}"
        assert self._status is not None
        return os.waitstatus_to_exitcode(self._status)

    def _has_ended(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is not None

    def hang_up(self) -> None:
        """Close the terminal's window."""
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        if not self._has_ended():
            os.kill(self.pid, 9)
            _, self._status = os.waitpid(self.pid, 0)
        if self._master >= 0:
            os.close(self._master)


@contextmanager
def typing(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Typist]:
    """Start a command on a new terminal of 24 lines and 80 columns."""
    pid, master = pty.fork()
    if pid == 0:
        try:
            os.chdir(cwd or ".")
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            os.execve(argv[0], [str(part) for part in argv], {**os.environ, "TERM": "vt100", **(env or {})})
        finally:
            os._exit(127)
    typist = Typist(pid, master)
    try:
        yield typist
    finally:
        typist.close()


def azchroot(*arguments: str | Path) -> list[str | Path]:
    """The command line of the command."""
    return [sys.executable, "-m", "pytest_azchroot.cli", *arguments]
