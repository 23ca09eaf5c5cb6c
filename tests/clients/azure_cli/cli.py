"""azure-cli, as PyPI has it, pointed at an emulator by environment variables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_azchroot.emulator.isolation import no_way_out
from tests.emulator.conftest import settled

ROOT = Path(__file__).parents[3]
AZ = Path(os.environ.get("AZCHROOT_AZ", ROOT / ".venv-azure-cli/bin/az"))
"""Installed by ``make azure-cli``, in an environment of its own: it has several hundred dependencies."""

TIMEOUT = 120.0
"""Seconds for a command. It takes one; where the emulator keeps it waiting, it would ask again after 30."""


class CommandError(Exception):
    """What az printed when it failed."""


@dataclass(frozen=True)
class Cli:
    """az, on one emulator; its logins are below a directory."""

    told: dict[str, Any]
    """The emulator's description of itself."""
    directory: Path
    login: str = "machine"
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, line: str, *more: str | Path) -> Any:
        """Run a command; its words are parted by blanks, those of ``more`` are whole. Returns what it answered.

        ``{compute}`` stands for the resource provider in the machine's group, ``{vm}`` for the machine.

        :raises CommandError: it failed.
        """
        words = [word.format(compute=self.compute, vm=self.told["vm"]) for word in line.split()]
        done = self._run([*words, *map(str, more), "--output", "json"])
        if done.returncode != 0:
            raise CommandError(done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def mistake(self, line: str, *more: str) -> str:
        """What a command says that has to fail."""
        try:
            answer = self(line, *more)
        except CommandError as error:
            return " ".join(str(error).split())
        raise AssertionError(f"az {line} should have failed, and answered {answer}")

    def as_(self, login: str, **environment: str) -> Cli:
        """With another login, which is to be made."""
        return Cli(self.told, self.directory, login, environment)

    @property
    def compute(self) -> str:
        """The resource provider's part of ids in the machine's group."""
        return str(self.told["vm"]).rpartition("/virtualMachines/")[0]

    def link(self, lun: int) -> Path:
        """Of an attached disk."""
        return Path(self.told["devices"]) / f"disk/azure/scsi1/lun{lun}"

    def _run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            **self.told["environment"],
            "HOME": str(self.directory),
            "AZURE_CONFIG_DIR": str(self.directory / self.login),
            "AZURE_CORE_ONLY_SHOW_ERRORS": "1",
            "AZURE_CORE_NO_COLOR": "1",
            **self.environment,
        }
        with no_way_out():
            return subprocess.run(
                [AZ, *words], env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[dict[str, Any]]:
    """``azchroot emulator``, while it is needed; yields its description."""
    command = [sys.executable, "-m", "pytest_azchroot.cli", "emulator", "--port", "0", "--tls-port", "0"]
    with no_way_out():
        process = subprocess.Popen([*command, *options, directory], stdout=subprocess.DEVNULL)
    try:
        description = directory / "environment.json"
        settled(lambda: (directory / "environment.sh").exists() or process.poll() is not None)
        assert process.poll() is None
        yield json.loads(description.read_text(encoding="utf-8"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
