"""The emulator's server with any answer behind it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

from pytest_azchroot.emulator.http import Request, Response
from pytest_azchroot.emulator.proxy import Proxy, refuse
from pytest_azchroot.emulator.server import Server
from pytest_azchroot.emulator.tls import Authority


class Served:
    """A running server on loopback: plain and a proxy, or with TLS.

    :ivar requests: all that arrived, in order.
    """

    def __init__(
        self, answer: Callable[[Request], Response], authority: Authority, address: tuple[str, int], tls: bool
    ) -> None:
        self._answer = answer
        self._host = address[0]
        self.requests: list[Request] = []
        self.url_scheme = "https" if tls else "http"
        wrap, tunnels = (authority.wrap, None) if tls else (None, Proxy(authority))
        self.server = Server(*address, self._noted, wrap=wrap, tunnels=tunnels)

    def _noted(self, request: Request) -> Response:
        refused = refuse(request)
        if refused is not None:
            return refused
        self.requests.append(request)
        return self._answer(request)

    @property
    def address(self) -> tuple[str, int]:
        return self._host, self.server.port

    @property
    def authority(self) -> str:
        return f"{self._host}:{self.server.port}"

    @property
    def url(self) -> str:
        return f"{self.url_scheme}://{self.authority}"

    @property
    def asked(self) -> list[str]:
        """Method, host and path of all that arrived."""
        return [f"{each.method} {each.host}{each.path}" for each in self.requests]


@contextlib.contextmanager
def serving(
    answer: Callable[[Request], Response],
    authority: Authority,
    *,
    address: tuple[str, int] = ("127.0.0.1", 0),
    tls: bool = False,
) -> Iterator[Served]:
    """A server, while it is needed."""
    served = Served(answer, authority, address, tls)
    served.server.start()
    try:
        yield served
    finally:
        served.server.stop()


def exchange(address: tuple[str, int], sent: bytes) -> bytes:
    """What a server answers to raw bytes, until it closes."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))
