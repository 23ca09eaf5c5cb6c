"""The log of every call: one JSON object a line."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from .http import Request, Response, Stream

_AGENT = 120


class CallLog:
    """Appends to a file; lines of several threads do not mix."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._start = time.monotonic()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._file.close()

    def write(self, name: str, request: Request, answer: Response | None, *, began: float, request_id: str) -> None:
        """Note a call.

        :param answer: None where the connection was reset.
        :param began: ``time.monotonic()`` when the request had been read.
        """
        now = time.monotonic()
        line: dict[str, Any] = {
            "at": round(began - self._start, 4),
            "ms": round((now - began) * 1000, 2),
            "name": name,
            "method": request.method,
            "host": request.host,
            "path": request.path,
            "version": request.value("api-version"),
            "status": None if answer is None else answer.status,
            "sent": len(request.body),
            "received": _length(answer),
            "client": request.client,
            "agent": (request.header("User-Agent") or "")[:_AGENT],
            "id": request_id,
        }
        if answer is not None and isinstance(answer.body, bytes) and answer.body.startswith(b"{"):
            line |= _told(answer.body)
        with self._lock:
            if not self._file.closed:
                self._file.write(json.dumps(line) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All lines of the file, those of earlier emulators too."""
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


def _length(answer: Response | None) -> int:
    if answer is None:
        return 0
    return answer.body.length if isinstance(answer.body, Stream) else len(answer.body)


def _told(body: bytes) -> dict[str, Any]:
    """The state of an operation, or the code of an error."""
    found = json.loads(body)
    error = found.get("error")
    told = {"operation": found.get("status"), "error": error.get("code") if isinstance(error, dict) else None}
    return {name: value for name, value in told.items() if isinstance(value, str)}
