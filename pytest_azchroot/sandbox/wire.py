"""How the caller and the holder talk: one JSON object a datagram, with file descriptors beside it.

A SEQPACKET socket keeps the bounds of messages, carries descriptors, and reads as ended when the other side is
gone. A datagram is limited by the socket's buffer (208 KiB by default), so a longer message travels in a memfd.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

_DATAGRAM = 1 << 16
_DESCRIPTORS = 8
_IN_MEMFD = b"@"


class ClosedError(Exception):
    """The other side is gone."""


class Channel:
    """One end of the socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        """For poll(2)."""
        return self._socket.fileno()

    def close(self) -> None:
        """Let go; the other side reads :class:`ClosedError`."""
        self._socket.close()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """:raises ClosedError: the other side is gone."""
        payload = json.dumps(message).encode("ascii")
        try:
            if len(payload) <= _DATAGRAM:
                socket.send_fds(self._socket, [payload], list(descriptors))
                return
            carrier = os.memfd_create("message", os.MFD_CLOEXEC)
            with open(carrier, "wb") as file:
                file.write(payload)
                file.flush()
                socket.send_fds(self._socket, [_IN_MEMFD], [carrier, *descriptors])
        except (BrokenPipeError, ConnectionResetError):
            raise ClosedError from None

    def receive(self) -> tuple[Message, list[int]]:
        """Wait for a message and its descriptors.

        :raises ClosedError: the other side is gone.
        """
        try:
            payload, descriptors, _, _ = socket.recv_fds(self._socket, _DATAGRAM, _DESCRIPTORS)
        except ConnectionResetError:
            # The other side ended with a message of ours unread. The kernel says so once, and before it hands out
            # what that side had still to say.
            payload, descriptors, _, _ = socket.recv_fds(self._socket, _DATAGRAM, _DESCRIPTORS)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        if payload == _IN_MEMFD:
            with open(descriptors.pop(0), "rb") as file:
                file.seek(0)
                payload = file.read()
        if not payload:
            raise ClosedError
        message: Message = json.loads(payload)
        return message, list(descriptors)


def pair() -> tuple[Channel, socket.socket]:
    """A channel for this process and the plain socket to give to the other one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), theirs
