"""The emulator as a forward proxy: clients with fixed endpoints need nothing but `HTTPS_PROXY` and its certificate.

What they mean is a name; the emulator answers for it itself, and connects to nobody. Every other name is refused.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable

from . import imds, login
from .http import Request, Response
from .tls import HANDSHAKE_PATIENCE, Authority

MANAGEMENT = "management.azure.com"

HOSTS = (MANAGEMENT, imds.ADDRESS, *login.HOSTS, "localhost")
"""Names that are answered for, beside loopback addresses."""

_DISK_BLOB = re.compile(r"md-[a-z0-9-]+(\.z\d+)?\.(blob\.core\.windows|blob\.storage\.azure)\.net")
"""The names to which access grants point: no other storage account is here."""

_TLS_HANDSHAKE = b"\x16"  # RFC 8446, 5.1: the type of a record with a ClientHello


def is_known(host: str) -> bool:
    """Whether the emulator answers for a host, given with or without a port."""
    name = host_name(host)
    if name in HOSTS or _DISK_BLOB.fullmatch(name):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def refuse(request: Request) -> Response | None:
    """The answer to a request for any other host; None lets it pass.

    It is for a proxy's clients, and for a web page that has its own name lead to this machine (DNS rebinding).
    """
    if is_known(request.host):
        return None
    text = f"The emulator answers for Azure alone, and passes nothing on: it does not know the host '{request.host}'.\n"
    return Response(403, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())


class Proxy:
    """Opens tunnels that end here: :class:`.server.Tunnels`.

    :param authority: certifies the names that clients ask for.
    :param knows: whether a host, with its port, is answered for.
    """

    def __init__(self, authority: Authority, *, knows: Callable[[str], bool] = is_known) -> None:
        self._authority = authority
        self.knows = knows

    def admits(self, target: str) -> str | None:
        """The host for which requests within `CONNECT target` are, unless they say another; None: refuse it."""
        host, _, port = target.rpartition(":")
        if not host or not port.isdecimal() or not self.knows(target):
            return None
        return host if port in ("80", "443") else target

    def open(self, connection: socket.socket, host: str) -> tuple[socket.socket, str]:
        """Let a client in that was admitted: the connection to speak HTTP on, and its scheme.

        Which one it is the client decides by what it says first. Do this in the connection's own thread.

        :raises OSError: the client has gone or says nothing, or TLS fails; the connection is the caller's to close.
        """
        connection.sendall(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        patience = connection.gettimeout()
        connection.settimeout(HANDSHAKE_PATIENCE)
        is_tls = connection.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE
        connection.settimeout(patience)
        return (self._authority.wrap(connection, host=host_name(host)), "https") if is_tls else (connection, "http")


def host_name(host: str) -> str:
    """A host without port and brackets, in lower case, without the dot of the root."""
    name = host.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".") if name.count(":") <= 1 else name
