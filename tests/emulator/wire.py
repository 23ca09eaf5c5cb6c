"""What the SDK hides: requests and answers as they are."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pytest_azchroot.emulator.emulator import Emulator


@dataclass(frozen=True)
class Answer:
    """An answer, read whole. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in the body."""
        found: dict[str, Any] = self.json["error"]
        return found


def ask(
    emulator: Emulator,
    method: str,
    target: str,
    body: object = None,
    *,
    headers: dict[str, str] | None = None,
    token: str | None = "token",
) -> Answer:
    """One request on a connection of its own.

    :param target: a path below the subscription's resource provider, a path, or a URL.
    :param body: bytes, or what JSON can say.
    """
    parts = urlsplit(target)
    path = parts.path if parts.path.startswith("/") else f"{compute_path(emulator)}/{parts.path}"
    query = parts.query if parts.netloc or "api-version" in parts.query else f"{parts.query}&api-version=2024-01-01"
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    sent = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection(urlsplit(emulator.url).netloc, timeout=30)
    try:
        connection.request(method, f"{path}?{query}", data, {**sent, **(headers or {})})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    finally:
        connection.close()


def compute_path(emulator: Emulator) -> str:
    """Of the machine's resource group."""
    settings = emulator.settings
    return f"/subscriptions/{settings.subscription}/resourceGroups/{settings.machine.group}/providers/Microsoft.Compute"
