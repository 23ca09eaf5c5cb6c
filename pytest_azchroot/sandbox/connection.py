"""The caller's end of a sandbox: handing it the disk, and ending everything."""

from __future__ import annotations

import os
import select
from contextlib import suppress

from pytest_azchroot.errors import DiskError, SandboxError

from . import cgroup, wire
from .asking import Requests
from .starting import Starting
from .wire import Message

_PATIENCE = 10.0


class Connection(Requests):
    """A running sandbox, as the caller has it. It owns what was started, from here on."""

    def __init__(
        self,
        started: Starting,
        *,
        path: str,
        hostname: str,
        read_only: bool = False,
        visitors: Message | None = None,
    ) -> None:
        """:param visitors: what :class:`~.visitors.Visitors` tells them; None lets nobody in."""
        super().__init__(started.channel)
        self.read_only = read_only
        self._started = started
        self._holder: int | None = None
        options = {"hostname": hostname, "read_only": read_only, "visitors": visitors}
        try:
            self._send_disk(path, {**options, "metadata_service": started.metadata_service, "group": started.group})
            self.description: Message = self._answer(0)
            try:
                self._holder = os.pidfd_open(self.description["pid"])
            except ProcessLookupError:
                raise self._dead() from None
        except BaseException:
            self.let_go()
            raise

    def _send_disk(self, path: str, options: Message) -> None:
        """The first message. It is not an argument: commands in the image can read the command line of their PID 1.

        The disk is opened here, because a file without a name is called ``/proc/PID/fd/N``, which means nothing in
        the sandbox's own ``/proc``.
        """
        try:
            disk = os.open(path, (os.O_RDONLY if options["read_only"] else os.O_RDWR) | os.O_CLOEXEC)
        except OSError as error:
            raise DiskError(f"the disk {path} cannot be opened", why=error.strerror) from error
        try:
            with suppress(wire.ClosedError):  # it could not start, and its own words about that are still to be read
                self._channel.send(options, [disk])
        finally:
            os.close(disk)

    def _dead(self) -> SandboxError:
        code = self._started.wait()
        why = self._started.last_words() or f"its keeper ended with {code}; was it killed?"
        return SandboxError("the sandbox has died", why=why)

    # ---- ending

    def wait(self, *, patience: float) -> int:
        """The keeper's exit code.

        :raises subprocess.TimeoutExpired: it does not end.
        """
        return self._started.wait(patience=patience)

    def let_go(self) -> None:
        """End everything without asking. Killing the keeper kills the holder, and with it all the rest."""
        self._started.end()
        if self._holder is not None:
            # it goes through the mounts on its way out
            select.select([self._holder], [], [], _PATIENCE)
            os.close(self._holder)
            self._holder = None
        if self._started.group is not None:
            cgroup.remove(self._started.group)

    @property
    def keeper(self) -> int:
        """The keeper's PID."""
        return self._started.pid

    @property
    def holder(self) -> int:
        """The holder's PID, as this process sees it."""
        return int(self.description["pid"])
