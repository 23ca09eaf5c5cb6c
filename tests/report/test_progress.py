"""A long stage is shown while it lasts: on a real pseudo-terminal, and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import time
from collections.abc import Iterator

import pytest

from pytest_azchroot.report import progress
from pytest_azchroot.report.progress import CLEAR, RESTORE, SAVE, Progress


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE", "PATIENCE_OF_A_LOG", "TICK", "REMINDER"):
        monkeypatch.setattr(progress, name, 0.01)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.set_blocking(ours, False)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def shown(watcher: Progress, fd: int) -> str:
    """What is written from the beginning of a stage to its end."""
    watcher.begin("debian", "mount")
    text, deadline = "", time.monotonic() + 10
    while "debian: mount" not in text and time.monotonic() < deadline:
        time.sleep(0.01)
        text += read(fd)
    watcher.end()
    return text + read(fd)


def read(fd: int) -> str:
    try:
        return os.read(fd, 1 << 16).decode()
    except BlockingIOError:
        return ""


def test_on_a_terminal_it_stands_behind_the_line_and_vanishes(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    watcher = Progress(theirs, terminal=True, column=lambda: 10, newline=lambda: None)
    text = shown(watcher, ours)
    assert text.startswith(f"{SAVE}  0.0 s debian: mount{CLEAR}{RESTORE}")
    assert text.endswith(CLEAR)
    assert "\n" not in text


def test_on_a_terminal_it_never_wraps(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    watcher = Progress(theirs, terminal=True, column=lambda: 75, newline=lambda: None)
    watcher.begin("debian", "mount")
    time.sleep(0.1)
    watcher.end()
    drawn = read(ours).split(SAVE)[1].split(CLEAR)[0]
    assert len(drawn) <= 4


def test_in_a_log_it_is_a_line_of_its_own(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    ended: list[bool] = []
    watcher = Progress(theirs, terminal=False, column=lambda: 10, newline=lambda: ended.append(True))
    text = shown(watcher, ours)
    assert text.startswith("\ndebian: mount, 0.0 s so far\n")
    assert ended
    assert "\x1b" not in text


def test_a_short_stage_is_not_mentioned(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_OF_A_LOG", 60)
    ours, theirs = pipe
    watcher = Progress(theirs, terminal=False, column=lambda: 0, newline=lambda: None)
    watcher.begin("debian", "mount")
    watcher.end()
    assert read(ours) == ""


def test_a_reader_that_is_gone_ends_no_build() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    watcher = Progress(theirs, terminal=False, column=lambda: 0, newline=lambda: None)
    watcher.begin("debian", "mount")
    time.sleep(0.1)
    watcher.end()
    os.close(theirs)
