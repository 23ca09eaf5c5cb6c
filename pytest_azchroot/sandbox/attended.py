"""A command that a person watches: on a terminal of the sandbox or on pipes, with an end for all that it has started.
Runs in a child of the holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from . import process, syscalls
from .command import Command, run_inside

Size = Sequence[int]
"""Rows and columns."""


class _EndedError(BaseException):
    """Whoever watches is gone, or the image closes."""


def run(command: Command, *, root: str, last_capability: int, size: Size | None) -> int:
    """Run a command in the image, and then end whatever it has left.

    Until this returns, all that descends from the command descends from this process: what detaches itself becomes
    its child and not the holder's (PR_SET_CHILD_SUBREAPER of prctl(2)).

    :param size: of the terminal that is made for it; its other end goes to the socket on standard input. None leaves
        the standard streams as they are.
    :return: its exit code; negative is a signal.
    """
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    try:
        signal.signal(signal.SIGTERM, _ended)
        code = _wait(_start(command, root=root, last_capability=last_capability, size=size))
    except _EndedError:
        code = -signal.SIGHUP
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # an interactive shell ignores TERM; HUP is what it gets when its terminal goes
        myself = os.getpid()
        process.end(lambda: process.below(myself), _reap, first=signal.SIGHUP)
    return code


def _ended(number: int, frame: FrameType | None) -> NoReturn:
    raise _EndedError


def _start(command: Command, *, root: str, last_capability: int, size: Size | None) -> process.Child:
    terminal = None if size is None else _make_terminal(size)

    def become() -> None:
        if terminal is not None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # it leads a session by now
        run_inside(command, root=root, last_capability=last_capability)

    streams = (0, 1, 2) if terminal is None else (terminal,) * 3
    child = process.start(become, stdin=streams[0], stdout=streams[1], stderr=streams[2])
    # the command alone has them: their other ends shall see when it lets go
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for descriptor in {0, 1, 2, *streams}:
        os.dup2(null, descriptor)
    return child


def _make_terminal(size: Size) -> int:
    """A terminal in the sandbox's own /dev/pts, where the image finds it too; the end to write on is sent away."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    with socket.socket(fileno=os.dup(0)) as end:
        socket.send_fds(end, [b"terminal"], [master])
    os.close(master)
    return slave


def _wait(child: process.Child) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child.pid:
            child.result()  # why it could not be executed
            return os.waitstatus_to_exitcode(status)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
