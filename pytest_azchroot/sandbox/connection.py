"""The caller's end of a sandbox: starting the keeper, and ending everything."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from pytest_azchroot.errors import DiskError, SandboxError

from . import cgroup, environment, wire
from .asking import Requests
from .wire import Message

_PACKAGES = str(Path(__file__).resolve().parents[2])
# -S leaves site-packages out and -I the environment: nothing of the user's is imported by a process that is root
_BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop(1)); from pytest_azchroot.sandbox.keeper import main; main()"
_PATIENCE = 10.0
_END_OF_ERRORS = 4000


class Connection(Requests):
    """A running sandbox, as the caller has it."""

    def __init__(
        self,
        *,
        path: str,
        hostname: str,
        read_only: bool = False,
        metadata_service: bool = False,
        visitors: Message | None = None,
    ) -> None:
        """:param metadata_service: whether commands in the image reach it.
        :param visitors: what :class:`~.visitors.Visitors` tells them; None lets nobody in.
        """
        channel, theirs = wire.pair()
        super().__init__(channel)
        self.read_only = read_only
        self._holder: int | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in let_go
        self._group = None if metadata_service else cgroup.new()
        caller = os.pidfd_open(os.getpid())
        arguments = [_PACKAGES, str(theirs.fileno()), str(caller), self._group or ""]
        try:
            options = {"hostname": hostname, "read_only": read_only, "visitors": visitors}
            self._send_disk(path, {**options, "metadata_service": metadata_service, "group": self._group})
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP, *arguments],
                pass_fds=(theirs.fileno(), caller),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                cwd="/",
                # nothing of the caller's environment is where a command of the image could find it
                env={"PATH": environment.with_system_tools(os.environ.get("PATH", ""))},
            )
        finally:
            theirs.close()
            os.close(caller)
        try:
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
            self._channel.send(options, [disk])
        finally:
            os.close(disk)

    def _dead(self) -> SandboxError:
        code = self._keeper.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip()[-_END_OF_ERRORS:]
        return SandboxError("the sandbox has died", why=words or f"its keeper ended with {code}; was it killed?")

    # ---- ending

    def wait(self, *, patience: float) -> int:
        """The keeper's exit code.

        :raises subprocess.TimeoutExpired: it does not end.
        """
        return self._keeper.wait(patience)

    def let_go(self) -> None:
        """End everything without asking. Killing the keeper kills the holder, and with it all the rest."""
        self._keeper.kill()
        self._keeper.wait()
        self._channel.close()
        self._errors.close()
        if self._holder is not None:
            # it goes through the mounts on its way out
            select.select([self._holder], [], [], _PATIENCE)
            os.close(self._holder)
            self._holder = None
        if self._group is not None:
            cgroup.remove(self._group)

    @property
    def keeper(self) -> int:
        """The keeper's PID."""
        return self._keeper.pid

    @property
    def holder(self) -> int:
        """The holder's PID, as this process sees it."""
        return int(self.description["pid"])
