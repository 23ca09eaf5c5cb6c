"""What commands write: shown as it comes where the user wants to watch, and kept for the report of the test."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pytest_azchroot.masking import Masker

logger = logging.getLogger("azchroot")

KEPT = 2_000_000
"""Characters kept for one phase of a test; of more, the end. A report is read by people."""


class CommandLog:
    """Takes the output of commands in pieces, hands it on in whole lines with secrets masked.

    :param show: called with each line as it comes (``-s``); None shows nothing.
    :param live: whether each line also goes to the logger ``azchroot`` (``log_cli``).
    """

    def __init__(self, show: Callable[[str], None] | None = None, *, live: bool = False) -> None:
        self.masker = Masker(())
        self.show = show
        self._live = live
        if live:  # else `log_cli = true` alone would show nothing: the root logger's level is WARNING
            logger.setLevel(logging.INFO)
        self._pending: dict[str, bytes] = {}
        self._kept: list[str] = []
        self._size = 0

    def write(self, stream: str, data: bytes) -> None:
        """Take a piece of output; a line is handed on when its end has come, or with the other stream's next one."""
        *lines, rest = (self._pending.pop(stream, b"") + data).split(b"\n")
        for line in lines:
            self._line(line)
        if rest:
            self._pending[stream] = rest

    def take(self) -> str:
        """What has been written since the last call, the unfinished lines too."""
        for stream in list(self._pending):
            self._line(self._pending.pop(stream))
        text = "".join(self._kept)
        self._kept.clear()
        self._size = 0
        return text if len(text) <= KEPT else f"[the first {len(text) - KEPT} characters left out]\n{text[-KEPT:]}"

    def _line(self, raw: bytes) -> None:
        line = self.masker.mask(raw.decode(errors="replace").rstrip("\r"))
        self._kept.append(line + "\n")
        self._size += len(line) + 1
        while self._size > 2 * KEPT:
            self._size -= len(self._kept.pop(0))
        if self.show:
            self.show(line + "\n")
        if self._live:
            logger.info("%s", line)
