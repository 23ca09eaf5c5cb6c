"""A network of its own for a test, with a metadata service in it."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000

SERVED = (
    ("169.254.169.254", 80),
    ("168.63.129.16", 80),
    ("168.63.129.16", 32526),
    ("168.63.129.16", 53),
    ("127.0.0.1", 80),
    ("192.0.2.7", 80),
)
"""Where somebody answers, by TCP and by UDP."""


@contextmanager
def own_network() -> Iterator[None]:
    """This thread, and what it starts, sees nothing but a loopback device with addresses that are elsewhere else."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _libc.unshare(_CLONE_NEWNET) == 0
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for address in sorted({address for address, _ in SERVED} - {"127.0.0.1"}):
            subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
        yield
    finally:
        assert _libc.setns(before, _CLONE_NEWNET) == 0
        os.close(before)


@contextmanager
def serving() -> Iterator[None]:
    """Answer ``token`` at each address to whoever connects or sends something."""
    with ExitStack() as stack:
        for address in SERVED:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                server = socket.socket(socket.AF_INET, kind)
                server.bind(address)
                if kind == socket.SOCK_STREAM:
                    server.listen()
                thread = threading.Thread(target=_serve, args=(server,), daemon=True)
                thread.start()
                stack.callback(_stop, server, thread)
        yield


def _serve(server: socket.socket) -> None:
    while True:
        try:
            if server.type == socket.SOCK_STREAM:
                with server.accept()[0] as connected:
                    connected.sendall(b"token")
            else:
                server.sendto(b"token", server.recvfrom(100)[1])
        except ConnectionError:  # who asked has gone
            continue
        except OSError:
            return


def _stop(server: socket.socket, thread: threading.Thread) -> None:
    if server.type == socket.SOCK_STREAM:
        server.shutdown(socket.SHUT_RDWR)
    else:
        # a datagram wakes it, and then its socket is no more
        server.settimeout(0.001)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
            wake.sendto(b"", server.getsockname())
    thread.join(10)
    server.close()
