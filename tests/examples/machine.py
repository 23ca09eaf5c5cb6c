"""A disk image started as a machine, by software emulation: slow, but it needs no privilege and no KVM."""

from __future__ import annotations

import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Half a minute is usual on two idle cores; a machine that is going to come up does so within this on a busy one.
PATIENCE = 600.0

TAIL = 40

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z0-9])|\x1b[78cM]|\r")

# What a console says when nobody has to wait for the time limit any more. Compare `consoleChecks` of CoreOS's kola.
_HOPELESS = re.compile(
    r"Kernel panic"
    r"|\bOops:"
    r"|\bBUG:"
    r"|EXT4-fs error"
    r"|ALERT!.*does not exist"
    r"|^\(initramfs\)"
    r"|^grub(?: rescue)?>"
    r"|error: no such (?:device|partition)"
    r"|No bootable device"
    r"|emergency mode"
    r"|\[FAILED\]"
    r"|\[DEPEND\]"
    r"|Failed to start"
    r"|ordering cycle",
    re.MULTILINE,
)


class NotUpError(AssertionError):
    """The machine did not do what was waited for. The message ends with what its console said last."""


@dataclass(frozen=True)
class Machine:
    """A running machine."""

    process: subprocess.Popen[bytes]
    log: Path
    """What its serial console has said."""
    port: int
    """The port of this host's loopback that leads to its port 80."""

    def console(self) -> str:
        """What the serial console has said, without the terminal's escape sequences."""
        return _ESCAPES.sub("", self.log.read_text(encoding="utf-8", errors="replace")) if self.log.exists() else ""

    def wait_for_line(self, pattern: str, *, patience: float = PATIENCE) -> str:
        """Wait until the console says something that matches, and return that line.

        :param patience: seconds after which it will not come any more.
        :raises NotUpError: it did not, or the console told of a failure before.
        """

        def look() -> str | None:
            found = re.search(pattern, self.console(), re.MULTILINE)
            return found and found.group()

        return self._wait(look, what=f"a line like {pattern!r}", patience=patience)

    def wait_for_page(self, path: str, *, patience: float = PATIENCE) -> str:
        """Wait until the machine's web server answers, and return the page.

        :raises NotUpError: it did not.
        """
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def fetch() -> str | None:
            try:
                with direct.open(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
                    return str(response.read().decode())
            except urllib.error.HTTPError as error:
                raise self._failure(f"the web server answered {error.code} for {path}") from error
            except OSError:  # nobody listens yet
                return None

        return self._wait(fetch, what=f"an answer for {path}", patience=patience)

    def _wait(self, look: Callable[[], T | None], *, what: str, patience: float) -> T:
        end = time.monotonic() + patience
        while True:
            # Ask before looking: what was said before the machine ended still counts.
            ended = self.process.poll()
            found = look()
            if found is not None:
                return found
            if hopeless := _HOPELESS.search(self.console()):
                raise self._failure(f"the console said {hopeless.group()!r} before {what}")
            if ended is not None:
                raise self._failure(f"the machine ended with code {ended} before {what}")
            if time.monotonic() > end:
                raise self._failure(f"{what} did not come in {patience:.0f} s")
            time.sleep(0.2)

    def _failure(self, what: str) -> NotUpError:
        tail = "\n".join(self.console().splitlines()[-TAIL:])
        return NotUpError(f"{what}; the end of its console:\n{tail}")


@contextmanager
def started(disk: Path, *, log: Path, format: str = "vpc") -> Iterator[Machine]:
    """Start a machine from a disk image, which stays as it is; end the machine on exit.

    :param log: where its serial console is written to.
    :param format: the image's, as QEMU calls it.
    """
    port = _free_port()
    command = [
        *("setpriv", "--pdeathsig", "KILL"),  # also when the test run is killed
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512"),
        *("-drive", f"file={disk},format={format},if=virtio,snapshot=on"),
        # restrict: the machine reaches nothing; only this port of the loopback leads into it.
        *("-nic", f"user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:80"),
        *("-display", "none", "-monitor", "none", "-serial", f"file:{log}", "-no-reboot"),
    ]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield Machine(process=process, log=log, port=port)
        finally:
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
