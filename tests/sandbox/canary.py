"""Something of the build machine that no image may read or change."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pytest_azchroot.errors import AzchrootError

KNOBS = ("kernel/core_pattern", "kernel/modprobe", "kernel/printk", "vm/overcommit_memory", "net/ipv4/ip_forward")
"""Settings of the kernel below /proc/sys, of which the machine has one."""


@dataclass
class Canary:
    """A file with a known content and mode, its directory, and a process; and what was got of them in an image."""

    file: Path
    process: subprocess.Popen[bytes]
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    got: list[str] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        """Where the file is."""
        return self.file.parent

    def attempt(self, call: Callable[[], object]) -> object:
        """Do what ought not to work, and keep what came of it."""
        result: object = None
        try:
            result = call()
            self.got.append(str(getattr(result, "output", result)))
        except AzchrootError as error:
            self.got.append(str(error))
        return result

    def state(self) -> object:
        """Everything that an image could change, but for access times."""
        status = self.file.stat()
        traits = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns, status.st_ctime_ns)
        process = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return {
            "file": (self.file.read_text(), traits),
            "directory": (sorted(os.listdir(self.directory)), self.directory.stat().st_mode),
            "process": (
                self.process.poll(),
                process[0] not in "TtZX",
                process[15:17],
                os.sched_getaffinity(self.process.pid),
            ),
            "machine": (socket.gethostname(), [Path("/proc/sys", knob).read_text() for knob in KNOBS if _there(knob)]),
        }


def _there(knob: str) -> bool:
    return Path("/proc/sys", knob).exists()


@contextmanager
def watched(directory: Path) -> Iterator[Canary]:
    """A canary, unread and unchanged at the end."""
    directory.mkdir(mode=0o755)
    process = subprocess.Popen(["/bin/sleep", "1000"], stdout=subprocess.DEVNULL)
    try:
        canary = Canary(directory / "canary", process)
        canary.file.write_text(f"#!/bin/sh\necho {canary.token}\nexit\n{canary.token}:x:5:5::/:/bin/sh\n")
        canary.file.chmod(0o755)
        before = canary.state()
        yield canary
        assert canary.state() == before, "changed"
        assert not [text for text in canary.got if canary.token in text], "read"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
