"""The keeper's process, as its caller has it: started before there is a disk, because that takes Python a while."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from . import cgroup, environment, wire

_PACKAGES = str(Path(__file__).resolve().parents[2])
# -S leaves site-packages out and -I the environment: nothing of the user's is imported by a process that is root
_BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop(1)); from pytest_azchroot.sandbox.keeper import main; main()"
_END_OF_ERRORS = 4000


class Starting:
    """A keeper and its holder, which wait for their first message. They die with this process from the start.

    :param metadata_service: whether commands in the image will reach it.
    """

    def __init__(self, *, metadata_service: bool = False) -> None:
        self.channel, theirs = wire.pair()
        self.metadata_service = metadata_service
        self.group = None if metadata_service else cgroup.new()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in let_go
        caller = os.pidfd_open(os.getpid())
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP),
                    *(_PACKAGES, str(theirs.fileno()), str(caller), self.group or ""),
                ],
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

    @property
    def pid(self) -> int:
        """The keeper's."""
        return self._process.pid

    def wait(self, *, patience: float | None = None) -> int:
        """The keeper's exit code.

        :raises subprocess.TimeoutExpired: it does not end.
        """
        began = time.monotonic()
        if self._process.poll() is None:
            # Popen.wait looks, and sleeps for up to 50 ms between two looks
            with suppress(ProcessLookupError):
                ended = os.pidfd_open(self.pid)
                select.select([ended], [], [], patience)
                os.close(ended)
        # One that is traced has ended before its parent may know.
        return self._process.wait(None if patience is None else max(0.0, patience + began - time.monotonic()))

    def last_words(self) -> str:
        """What the keeper and the holder have written to their standard error, the end of it."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-_END_OF_ERRORS:]

    def end(self) -> None:
        """Kill the keeper, and with it all the rest. May be called again."""
        self._process.kill()
        self._process.wait()
        self.channel.close()
        self._errors.close()
