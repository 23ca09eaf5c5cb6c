"""A person at a terminal, in front of pytest."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROMPT = r"\(Pdb\) "
PATIENCE = 60.0
_BECOME = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); import pytest; sys.exit(pytest.main())"
"""pytest, which takes its terminal for the one that Ctrl-C comes from."""
_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[78=>]|\r")


class Person:
    """Reads what appears, types, and looks at the state of the terminal."""

    def __init__(self, ours: int, process: subprocess.Popen[bytes]) -> None:
        self._ours = ours
        self.process = process
        self.raw = ""
        """Everything that appeared, as it came."""
        self._read = 0

    @property
    def seen(self) -> str:
        """Everything that appeared, without styles."""
        return _STYLE.sub("", self.raw)

    def waits_for(self, pattern: str) -> str:
        """Read on until a pattern appears; returns what came before it."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.compile(pattern).search(self.seen, self._read)):
            left = deadline - time.monotonic()
            if left <= 0 or not self._more(left):
                raise AssertionError(f"{pattern!r} did not appear:\n{self.seen[self._read :]}")
        before = self.seen[self._read : found.start()]
        self._read = found.end()
        return before

    def waits(self, seconds: float) -> None:
        """Look on for a while."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._more(left)

    def _more(self, patience: float) -> bool:
        if not select.select([self._ours], [], [], patience)[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says when nobody has the other end
                raise
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)

    def types(self, line: str) -> None:
        """Type a line."""
        os.write(self._ours, f"{line}\n".encode())

    def asks(self, line: str) -> str:
        """Type a line at a prompt; returns what appears until the next prompt, without the line itself."""
        self.types(line)
        return self.waits_for(PROMPT).removeprefix(line).strip()

    def interrupts(self) -> None:
        """Press Ctrl-C."""
        os.write(self._ours, b"\x03")

    def leaves(self) -> int:
        """Read until pytest has ended; returns its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            self._more(0.05)
        while self._more(0):
            pass
        return self.process.wait(1)


@contextmanager
def in_front_of(directory: Path, *args: str, is_killed: bool = False) -> Iterator[Person]:
    """Start pytest on a terminal. In the end the terminal has to be as it was.

    :param is_killed: so that nobody can put the terminal back.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("=4H", 40, 120, 0, 0))  # a new one is 0 columns wide
    before = termios.tcgetattr(theirs)
    environment = {name: value for name, value in os.environ.items() if name != "PY_COLORS"}  # pytester sets it
    process = subprocess.Popen(
        [sys.executable, "-c", _BECOME, "-p", "no:randomly", "-p", "no:cacheprovider", *args],
        cwd=directory,
        env={**environment, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    try:
        yield Person(ours, process)
        assert process.poll() is not None, "pytest still runs"
        assert is_killed or termios.tcgetattr(theirs) == before, "the terminal is not as it was"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(ours)
        os.close(theirs)
