"""What goes in and comes out of every handler of the emulator, without a word about sockets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

JSON_TYPE = "application/json; charset=utf-8"


@dataclass(frozen=True)
class Request:
    """One HTTP request, read whole.

    `path` is percent-decoded and without the query. `query` keeps order and repeated names, both percent-decoded.
    `headers` has lower-case names; of a repeated header the values are joined by ", ". `host` is what the client
    meant to reach (Host header, or the authority of an absolute or tunnelled request), with its port if one was
    given. `client` is the peer's "address:port".
    """

    method: str
    scheme: str
    host: str
    path: str
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    client: str = ""

    @property
    def base_url(self) -> str:
        """Scheme and authority, as the client wrote them: what absolute URLs in answers start with."""
        return f"{self.scheme}://{self.host}"

    def values(self, name: str) -> list[str]:
        """All values of a query parameter; its name is compared without case."""
        return [value for key, value in self.query if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """The first value of a query parameter, None where it is absent."""
        return next(iter(self.values(name)), None)

    def header(self, name: str) -> str | None:
        """A header's value by its name in any case, None where it is absent."""
        return self.headers.get(name.lower())


@dataclass(frozen=True)
class Stream:
    """A body that is not held in memory: its length in bytes, and its pieces."""

    length: int
    chunks: Iterable[bytes]


@dataclass(frozen=True)
class Response:
    """One HTTP answer. `headers` are written as they are; the server adds Date, Content-Length and the request id."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Stream = b""

    @classmethod
    def of_json(cls, status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
        """An answer with a JSON body."""
        return cls(status, {"Content-Type": JSON_TYPE, **(headers or {})}, json.dumps(value).encode())
