"""A long stage, shown while it lasts.

On a terminal: the stage and its running time behind what pytest has written of the line, gone when the stage ends. In
a log: a plain line when a stage has lasted a while, and again now and then, so that a CI job is seen to live.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from pytest_azchroot.report.timeline import seconds

PATIENCE = 2.0
"""Seconds that a stage may last unmentioned on a terminal: below this a person does not wonder."""

PATIENCE_OF_A_LOG = 5.0
"""The same for a log, where every mention stays."""

TICK = 1.0
"""Seconds between updates of the running time on a terminal."""

REMINDER = 60.0
"""Seconds between lines in a log."""

SAVE, RESTORE, CLEAR = "\x1b7", "\x1b8", "\x1b[K"
"""DECSC, DECRC and EL of the VT100: save and restore the cursor, clear to the end of the line."""


class Progress:
    """Shows stages on a file descriptor of its own, because pytest redirects stdout while a test runs.

    :param fd: where to write; it is not closed.
    :param terminal: whether it is a terminal that understands VT100 sequences.
    :param column: how far pytest has written on the current line.
    :param newline: called, from a thread of this object, after it has ended a line that pytest had begun.
    """

    def __init__(
        self,
        fd: int,
        *,
        terminal: bool,
        column: Callable[[], int],
        newline: Callable[[], None],
    ) -> None:
        self._fd = fd
        self._terminal = terminal
        self._column = column
        self._newline = newline
        self._ended: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def begin(self, image: str, stage: str) -> None:
        """A stage begins. It replaces one that has not ended."""
        self.end()
        self._ended = threading.Event()
        target = self._on_terminal if self._terminal else self._in_log
        self._thread = threading.Thread(target=target, args=(f"{image}: {stage}", self._ended), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The stage has ended; on a terminal its traces are gone when this returns."""
        if self._ended and self._thread:
            self._ended.set()
            self._thread.join()
        self._ended = self._thread = None

    def _on_terminal(self, text: str, ended: threading.Event) -> None:
        began, wait = time.monotonic(), PATIENCE
        while not ended.wait(wait):
            wait = TICK
            line = f"  {seconds(time.monotonic() - began)} {text}"
            room = os.get_terminal_size(self._fd).columns - self._column() - 1
            self._write(f"{SAVE}{line[: max(room, 0)]}{CLEAR}{RESTORE}")
        if wait == TICK:
            self._write(CLEAR)

    def _in_log(self, text: str, ended: threading.Event) -> None:
        began, wait = time.monotonic(), PATIENCE_OF_A_LOG
        while not ended.wait(wait):
            wait = REMINDER
            if self._column():
                self._write("\n")
                self._newline()
            self._write(f"{text}, {seconds(time.monotonic() - began)} so far\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the reader of the log is gone; that ends no build
            os.write(self._fd, text.encode(errors="replace"))
