"""testinfra over a sandbox: its ``host`` is the image, never the build machine.

Of testinfra only ``Host`` and ``BaseBackend`` are used. Import this module only where testinfra is wanted: it is not
part of the standard library that the keeper has.
"""

from __future__ import annotations

from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from .sandbox import Sandbox


class ImageBackend(BaseBackend):  # type: ignore[misc]
    """Runs testinfra's commands in the image, each with a clean environment and a time limit."""

    NAME = "azchroot"

    def __init__(self, sandbox: Sandbox, *, timeout: float | None) -> None:
        super().__init__(hostname=sandbox.device)
        self._sandbox = sandbox
        self._timeout = timeout
        # else testinfra asks a Python in the image, which need not be there
        self._encoding = "utf-8"

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        """Run a command by ``sh -c``; ``%s`` in it are quoted arguments.

        :raises CommandError: it took too long.
        """
        text = self.get_command(command, *args)
        done = self._sandbox.inside(["/bin/sh", "-c", text], check=False, timeout=self._timeout, output=_unheard)
        return self.result(done.code, self.encode(text), done.stdout_bytes, done.stderr_bytes)

    def encode(self, data: str) -> bytes:
        """Text as bytes; never fails."""
        return data.encode(errors="surrogateescape")

    def decode(self, data: bytes) -> str:
        """Bytes as text; what is not UTF-8 is replaced, for a check is about the rest."""
        return data.decode(errors="replace")


def make_host(sandbox: Sandbox, timeout: float | None) -> Host:
    """A fresh host for the image that is mounted in a sandbox.

    Fresh each time: a Host remembers which implementation fits its system, and ``Host.get_host`` remembers the host.

    :param timeout: seconds for each of its commands; None is no limit.
    """
    backend = ImageBackend(sandbox, timeout=timeout)
    host = Host(backend)
    backend.set_host(host)
    return host


def _unheard(stream: str, data: bytes) -> None:
    """testinfra's many small commands are not part of the live log."""
