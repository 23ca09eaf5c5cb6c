"""What stands between a command in the image and the terminal or the pipes of the person who watches it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import tty
from collections.abc import Iterator, Sequence
from typing import Any

_BLOCK = 1 << 16
_ON_THE_WAY = 1 << 20
"""Bytes; more than a terminal or a pipe holds. What is still written when the command has ended may have no end."""


def size_of(terminal: int) -> tuple[int, int]:
    """Rows and columns."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


class Screen:
    """A terminal here, and one in the sandbox. Everything typed goes there, Ctrl-C too, and so do changes of its size.

    Nothing of this terminal is passed in: who has a descriptor of it can type into it (TIOCSTI).
    """

    def __init__(self, *, keyboard: int, screen: int) -> None:
        self._keyboard = keyboard
        self._screen = screen
        self._near, self._far = socket.socketpair()
        self.descriptors: Sequence[int] = [self._far.fileno()] * 3
        """In place of standard streams: where the other terminal's end is to be sent to."""
        self._master: int | None = None
        self._typed = b""
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: list[Any] | None = None

    def __enter__(self) -> Screen:
        signal.signal(signal.SIGWINCH, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            with contextlib.suppress(termios.error):  # it has been hung up
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._before)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        self._hang_up()
        self.close_far_ends()
        self._near.close()
        os.close(self._woken)
        os.close(self._wake)

    def close_far_ends(self) -> None:
        """The holder has its own by now."""
        self._far.close()

    def register(self, poll: select.poll) -> None:
        """Ask for what there is to be moved."""
        poll.register(self._near, select.POLLIN)
        poll.register(self._woken, select.POLLIN)

    def move(self, descriptor: int, poll: select.poll) -> None:
        """Move what is ready."""
        if descriptor == self._near.fileno():
            poll.unregister(self._near)
            self._begin(poll)
        elif descriptor == self._woken:
            os.read(self._woken, _BLOCK)
            self._resize()
        elif descriptor == self._keyboard:
            self._type(poll)
        elif descriptor == self._master:
            if self._typed:
                self._feed(poll)
            if (data := _taken(descriptor)) == b"":
                poll.unregister(descriptor)
            _write(self._screen, data or b"")

    def drain(self) -> None:
        """Show what is still on the way from a command that has ended."""
        left = _ON_THE_WAY
        while self._master is not None and left > 0 and (data := _taken(self._master)):
            _write(self._screen, data)
            left -= len(data)

    def _begin(self, poll: select.poll) -> None:
        """The other terminal is there: from here on this one is only a way to it."""
        data, descriptors, _, _ = socket.recv_fds(self._near, 64, 1)
        if not data:  # there will be none; the answer says why
            return
        self._master = descriptors[0]
        os.set_blocking(self._master, False)
        self._before = termios.tcgetattr(self._keyboard)
        tty.setraw(self._keyboard, termios.TCSADRAIN)
        self._resize()
        poll.register(self._master, select.POLLIN)
        poll.register(self._keyboard, select.POLLIN)

    def _resize(self) -> None:
        if self._master is not None:
            with contextlib.suppress(OSError):  # either has been hung up
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", *size_of(self._screen), 0, 0))

    def _type(self, poll: select.poll) -> None:
        poll.unregister(self._keyboard)  # until it has gone through
        self._typed = _read(self._keyboard)
        if self._typed:
            self._feed(poll)
        elif self._master is not None:
            poll.unregister(self._master)
            self._hang_up()

    def _feed(self, poll: select.poll) -> None:
        assert self._master is not None
        try:
            self._typed = self._typed[os.write(self._master, self._typed) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads any more
            self._typed = b""
        poll.register(self._master, select.POLLIN | (select.POLLOUT if self._typed else 0))
        if not self._typed:
            poll.register(self._keyboard, select.POLLIN)

    def _hang_up(self) -> None:
        if self._master is not None:
            os.close(self._master)
            self._master = None


class Pipes:
    """Standard streams that are no terminal. Bytes are handed on; the command does not get the descriptors, by which
    it could write to a file that it is meant to read."""

    def __init__(self, *, stdin: int, stdout: int, stderr: int) -> None:
        out, far_out = os.pipe2(os.O_CLOEXEC)
        err, far_err = os.pipe2(os.O_CLOEXEC)
        far_in, self._into = os.pipe2(os.O_CLOEXEC)
        self._from = stdin
        self._streams = {out: stdout, err: stderr}
        self._read = b""
        for near in (out, err, self._into):
            os.set_blocking(near, False)
        self.descriptors: Sequence[int] = [far_out, far_err, far_in]
        """Standard output, standard error, standard input."""
        self._far = [*self.descriptors]
        self._open = {out, err, self._into}

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_far_ends()
        for descriptor in [*self._open]:
            self._close(descriptor)

    def close_far_ends(self) -> None:
        """The holder has its own by now."""
        while self._far:
            os.close(self._far.pop())

    def register(self, poll: select.poll) -> None:
        """Ask for what there is to be moved."""
        for near in self._streams:
            poll.register(near, select.POLLIN)
        poll.register(self._from, select.POLLIN)

    def move(self, descriptor: int, poll: select.poll) -> None:
        """Move what is ready."""
        if descriptor == self._from:
            poll.unregister(self._from)  # until it has gone through
            self._read = _read(self._from)
            if self._read:
                poll.register(self._into, select.POLLOUT)
            else:
                self._close(self._into)
        elif descriptor == self._into:
            self._feed(poll)
        elif not self._pass(descriptor, _taken(descriptor)):
            poll.unregister(descriptor)
            self._close(descriptor)

    def drain(self) -> None:
        """Hand on what is still in the pipes."""
        for near in self._streams:
            left = _ON_THE_WAY
            while left > 0 and near in self._open and (data := _taken(near)) and self._pass(near, data):
                left -= len(data)

    def _feed(self, poll: select.poll) -> None:
        try:
            self._read = self._read[os.write(self._into, self._read) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the command reads no more, as `head` does
            poll.unregister(self._into)
            self._close(self._into)
            return
        if not self._read:
            poll.unregister(self._into)
            poll.register(self._from, select.POLLIN)

    def _pass(self, near: int, data: bytes | None) -> bool:
        """:return: whether there may be more to come."""
        try:
            _write(self._streams[near], data or b"")
        except BrokenPipeError:  # nobody hears it: let the command know
            return False
        return data != b""

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)


def _read(descriptor: int) -> bytes:
    """Empty at the end, which a terminal that was hung up, or that nobody has open any more, tells by EIO."""
    try:
        return os.read(descriptor, _BLOCK)
    except OSError as error:
        if error.errno not in {errno.EIO, errno.EISDIR}:  # a directory has nothing to read either
            raise
        return b""


def _taken(descriptor: int) -> bytes | None:
    """None if there is nothing now."""
    try:
        return _read(descriptor)
    except BlockingIOError:
        return None


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # our caller's pipe may be one that does not block
            select.select([], [descriptor], [])


def fill() -> None:
    """Put something in the place of standard streams that are closed, before a file of ours takes one."""
    while (descriptor := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


@contextlib.contextmanager
def streams(*, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> Iterator[Screen | Pipes]:
    """What fits: a terminal if what is typed and what is shown are on one, else pipes."""
    if os.isatty(stdin) and os.isatty(stdout):
        with Screen(keyboard=stdin, screen=stdout) as screen:
            yield screen
    else:
        with Pipes(stdin=stdin, stdout=stdout, stderr=stderr) as pipes:
            yield pipes
