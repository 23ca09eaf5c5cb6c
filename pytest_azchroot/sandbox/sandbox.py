"""The sandbox: where an image is mounted, changed, read, and closed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pytest_azchroot.disk import loop
from pytest_azchroot.errors import SandboxError
from pytest_azchroot.leaving import afterwards

from .asking import Hear
from .checks import Checks
from .confinement import Confinement
from .connection import Connection
from .mounting import Mounting
from .starting import Starting

_CLOSE_PATIENCE = 15.0
_FREE_PATIENCE = 15.0

_CONFINED = Confinement()


class Sandbox(Mounting):
    """An image's disk in namespaces of its own. Whoever dies - this process, the keeper, the holder - everything
    here is gone with it: processes, mounts, loop device, partitions.

    Its methods are called from one thread at a time; others wait.
    """

    def __init__(
        self, connection: Connection, *, output: Hear | None, variables: Mapping[str, str], confinement: Confinement
    ) -> None:
        super().__init__(connection, output=output, variables=variables, confinement=confinement)
        self._closed = False
        self._checks = Checks(self)

    @classmethod
    @contextmanager
    def start(
        cls,
        path: Path,
        *,
        hostname: str,
        output: Callable[[str, bytes], None] | None = None,
        environment: Mapping[str, str] | None = None,
        confinement: Confinement = _CONFINED,
        read_only: bool = False,
        label: Path | None = None,
        starting: Starting | None = None,
    ) -> Iterator[Sandbox]:
        """Make a sandbox around a disk image file or a block device. Leaving it without :meth:`close` aborts it.

        :param hostname: what commands see as the name of the machine.
        :param output: receives ``"stdout"`` or ``"stderr"`` and bytes, while a command runs.
        :param environment: variables for every command, inside and outside.
        :param confinement: how commands inside are held.
        :param read_only: nothing can be written to the disk, not even by a mount that replays a journal.
        :param label: the directory of the image, by which visitors find it (:mod:`.visiting`); None lets nobody in.
        :param starting: what has been started for it alone, for the same ``confinement.metadata_service``.
        :raises UnavailableError: namespaces, loop devices or tools are missing here.
        :raises DiskError: the disk cannot be opened, or another program uses it.
        """
        about = {"environment": dict(environment or {}), "confinement": asdict(confinement)}
        visitors = None if label is None else {"directory": str(label.resolve()), **about}
        connection = Connection(
            starting or Starting(metadata_service=confinement.metadata_service),
            path=os.path.abspath(path),
            hostname=hostname,
            read_only=read_only,
            visitors=visitors,
        )
        sandbox = cls(connection, output=output, variables=environment or {}, confinement=confinement)
        with afterwards(sandbox.abort):
            yield sandbox

    @property
    def holder(self) -> int:
        """The PID of the holder on this machine: ``nsenter -t`` enters its namespaces."""
        return self._connection.holder

    @property
    def keeper(self) -> int:
        """The PID of the keeper on this machine."""
        return self._connection.keeper

    @property
    def reaches_metadata(self) -> str | None:
        """Why commands in the image may reach the metadata service of this VM; None if they do not."""
        why: str | None = self._connection.description["reaches_metadata"]
        return why

    def close(self) -> None:
        """Let go of the disk, strictly: it is unbound when this returns.

        :raises SandboxError: the image is still mounted, or the device is still in use.
        """
        self.ask("close")
        try:
            code = self._connection.wait(patience=_CLOSE_PATIENCE)
        except subprocess.TimeoutExpired:
            raise SandboxError("the sandbox did not end") from None
        if code != 0:
            raise SandboxError("the sandbox did not end well", why=f"its keeper ended with {code}")
        self._closed = True
        self._connection.let_go()
        self._wait_until_free()

    def abort(self) -> None:
        """End everything at once and wait until the kernel has cleaned up; the disk is not fit for use then. Does
        nothing after :meth:`close`.

        :raises SandboxError: the disk is still in use after a while.
        """
        if self._closed:
            return
        self._closed = True
        self._connection.let_go()
        self._wait_until_free()

    def _wait_until_free(self) -> None:
        for name, backing in {**self._loops, self.device.removeprefix("/dev/"): self._backing}.items():
            if backing is not None and not loop.wait_until_free(name, backing, patience=_FREE_PATIENCE):
                why = "something outside the sandbox has it"
                raise SandboxError(f"/dev/{name} is still bound to {backing}", why=why)
