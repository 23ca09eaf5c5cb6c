"""HTTP/1.1 on a loopback address, a thread for each connection.

The standard library's server is fast enough if its writes are buffered and Nagle's algorithm is off: with its
defaults each call costs 44 ms, of delayed acknowledgements, instead of a quarter of one (measured).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from pytest_azchroot.errors import AzchrootError, UnavailableError

from .hooks import Reset
from .http import Request, Response, Stream

log = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024**2
"""Bytes of a request; the largest that a client has reason to send is a Put Page of 4 MiB."""
_IDLE = 300.0
"""Seconds after which a silent connection is closed."""

Answer = Callable[[Request], "Response | Reset"]


Wrap = Callable[[socket.socket], socket.socket]
"""Makes TLS of a new connection. It is called in the connection's own thread: a handshake may take its time there."""


class Tunnels(Protocol):
    """What makes the server a forward proxy, for hosts that it answers for itself."""

    @property
    def knows(self) -> Callable[[str], bool]:
        """Whether a host, with its port, is answered for."""

    def admits(self, target: str) -> str | None:
        """The host that requests within ``CONNECT target`` are for; None: refuse it."""

    def open(self, connection: socket.socket, host: str) -> tuple[socket.socket, str]:
        """Answer CONNECT: the connection within, and its scheme. In the connection's own thread."""


class Server:
    """Listens from :meth:`start` on; :meth:`stop` ends all connections and threads."""

    def __init__(
        self, address: str, port: int, answer: Answer, *, wrap: Wrap | None = None, tunnels: Tunnels | None = None
    ) -> None:
        if not ip_address(address).is_loopback and not address.startswith("169.254."):
            raise AzchrootError(f"the emulator does not listen on {address}", why="it is for this machine alone")
        self._address = (address, port)
        self._answer = answer
        self._wrap = wrap
        self._tunnels = tunnels
        self._server: _Listener | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where it listens; after :meth:`start` never 0."""
        return self._address[1]

    def start(self) -> None:
        """Listen.

        :raises UnavailableError: the address is taken.
        """
        try:
            self._server = _Listener(self._address, self._answer, self._wrap, self._tunnels)
        except OSError as error:
            what = "the emulator cannot listen on {}:{}".format(*self._address)
            raise UnavailableError(what, why=error.strerror) from error
        self._address = (self._address[0], self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="emulator", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close everything."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.end()
            self._server = None


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], answer: Answer, wrap: Wrap | None, tunnels: Tunnels | None) -> None:
        self.answer = answer
        self.wrap = wrap
        self.tunnels = tunnels
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, socket.socket] = {}
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        # The metadata service's address may be an interface's: let nobody in by that.
        if not ip_address(str(self.server_address[0])).is_loopback:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
        # Not HTTPServer's: it asks for the name of the address, which may go to a name server.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        self.track(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.pop(threading.current_thread(), None)

    def track(self, connection: socket.socket) -> None:
        """The connection of the thread that runs, to be ended with the server."""
        with self._lock:
            self._open[threading.current_thread()] = connection

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection ended", exc_info=True)

    def end(self) -> None:
        self.server_close()
        with self._lock:
            threads = dict(self._open)
        for connection in threads.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10.0)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "Microsoft-HTTPAPI/2.0"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = _IDLE
    server: _Listener

    def setup(self) -> None:
        self.authority = ""
        self.scheme = "http"
        if self.server.wrap is not None:
            self._use(self.server.wrap(self.request), "https")
        super().setup()

    def _use(self, connection: socket.socket, scheme: str) -> None:
        self.request, self.scheme = connection, scheme
        self.server.track(connection)

    def finish(self) -> None:
        super().finish()
        self.request.close()  # what TLS made of the connection that the server closes

    def version_string(self) -> str:
        """Without the word about Python that http.server adds."""
        return self.server_version

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

    def __getattr__(self, name: str) -> Any:
        """http.server looks for a method named after the request's: one serves all."""
        if name.startswith("do_"):
            return self._do
        raise AttributeError(name)

    def _do(self) -> None:
        body = self._body()
        if body is None:
            return
        request = self._request(body)
        if urlsplit(self.path).netloc and not (self.server.tunnels and self.server.tunnels.knows(request.host)):
            self._refuse(request.host)
            return
        answer = self.server.answer(request)
        if isinstance(answer, Reset):
            # RST instead of FIN (socket(7), SO_LINGER with a time of zero)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self._send(answer)

    def do_CONNECT(self) -> None:
        tunnels = self.server.tunnels
        host = tunnels.admits(self.path) if tunnels is not None else None
        if tunnels is None or host is None:
            self._refuse(self.path)
            return
        self._use(*tunnels.open(self.connection, host))
        self.authority = host
        super().setup()  # reader and writer of the connection within
        self.close_connection = False

    def _refuse(self, host: str) -> None:
        """Nothing is passed on, to nobody."""
        self.close_connection = True
        text = f"The emulator passes nothing on: it does not answer for {host}.\n"
        self._send(Response(403, {"Content-Type": "text/plain; charset=utf-8"}, text.encode()))

    def _request(self, body: bytes) -> Request:
        parts = urlsplit(self.path)
        absolute = bool(parts.scheme and parts.netloc)
        host = parts.netloc if absolute else self.headers.get("Host") or self.authority
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        return Request(
            method=self.command,
            scheme=parts.scheme if absolute else self.scheme,
            host=host,
            path=unquote(parts.path) or "/",
            query=parse_qsl(parts.query, keep_blank_values=True),
            headers=headers,
            body=body,
            client="{}:{}".format(*self.client_address[:2]),
        )

    def _body(self) -> bytes | None:
        """The request's body; None if it was refused, and that answered."""
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            return self._chunks()
        text = self.headers.get("Content-Length") or "0"
        if not text.isdigit() or int(text) > LARGEST_BODY:
            self.close_connection = True
            self._send(Response(413 if text.isdigit() else 400))
            return None
        return self.rfile.read(int(text))

    def _chunks(self) -> bytes | None:
        found = bytearray()
        while True:
            size = int(self.rfile.readline(64).split(b";")[0], 16)
            if len(found) + size > LARGEST_BODY:
                self.close_connection = True
                self._send(Response(413))
                return None
            found += self.rfile.read(size)
            self.rfile.readline(8)
            if size == 0:
                return bytes(found)

    def _send(self, answer: Response) -> None:
        self.send_response(answer.status)
        length = answer.body.length if isinstance(answer.body, Stream) else len(answer.body)
        bodiless = answer.status in {204, 304} or answer.status < 200
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if not bodiless:
            self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if not bodiless and self.command != "HEAD":
            if isinstance(answer.body, Stream):
                for piece in answer.body.chunks:
                    self.wfile.write(piece)
            else:
                self.wfile.write(answer.body)
        self.wfile.flush()
