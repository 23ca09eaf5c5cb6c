"""An Azure for a client with fixed endpoints, within namespaces of its own: ``python -m tests.clients.serve FILE``.

The file is a :class:`Plan` in JSON. This changes mounts and addresses of the namespaces that it runs in, and
begins with a look whether these are the machine's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pytest_azchroot.emulator.assembly import Accounts, assembled
from pytest_azchroot.emulator.emulator import Endpoint
from pytest_azchroot.emulator.faults import FaultPlan, Rule
from pytest_azchroot.emulator.imds import ADDRESS, DOCUMENTED, NO_LIMITS
from pytest_azchroot.emulator.settings import Family, Overlap, PlatformImage, Profile, Settings
from pytest_azchroot.emulator.tenant import Application

CLIENT = "55555555-5555-5555-5555-555555555555"
SECRET = "s3cret~of.the-application"
HOSTS = ("management.azure.com", "login.microsoftonline.com", "login.windows.net")
READY = "ready"


@dataclass(frozen=True)
class Plan:
    """What kind of Azure it is."""

    directory: str
    images: dict[str, str]
    """URN → image file."""
    prefix: str
    """Of names in ``/dev``, which all namespaces share."""
    seconds: dict[str, float] = field(default_factory=dict)
    request: float = 0.0
    retry_after: int | None = None
    """Seconds that answers ask clients to wait; None: they say nothing."""
    overlap: Overlap = "accept"
    family: Family = "scsi"
    faults: list[dict[str, Any]] = field(default_factory=list)
    limited: bool = False
    """Whether the metadata service has its rate limits."""

    def write(self, path: Path) -> None:
        """For :func:`main`."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @property
    def settings(self) -> Settings:
        """Of the emulator."""
        return Settings(
            Path(self.directory),
            images=tuple(PlatformImage(urn, Path(path)) for urn, path in self.images.items()),
            profile=Profile(self.seconds, request=self.request),
            retry_after=self.retry_after,
            devices=Path("/dev"),
            family=self.family,
            prefix=self.prefix,
            overlap=self.overlap,
        )


def main(path: str) -> None:
    """Serve until the standard input ends: it is held open by whoever wants this."""
    plan = Plan(**json.loads(Path(path).read_text(encoding="utf-8")))
    _furnish(Path(plan.directory))
    application = Application(CLIENT, "99999999-9999-9999-9999-999999999999", [SECRET])
    assembly = assembled(
        plan.settings,
        accounts=Accounts(applications=[application]),
        limits=DOCUMENTED if plan.limited else NO_LIMITS,
        tls_port=443,
        more=[Endpoint(ADDRESS, 80)],
        hooks=[FaultPlan(Rule(**each) for each in plan.faults)],
    )
    with assembly.emulator as emulator:
        print(READY, emulator.url, flush=True)
        sys.stdin.read()


def _furnish(directory: Path) -> None:
    """Loopback, with the address of the metadata service, and files that only clients within see."""
    assert os.getpid() == 1, "this is for a namespace of its own"
    directory.mkdir(parents=True, exist_ok=True)
    hosts = directory / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"127.0.0.1 {host}\n" for host in HOSTS), encoding="utf-8")
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"],
        ["mount", "--bind", str(hosts), "/etc/hosts"],
        ["mount", "-t", "tmpfs", "tmpfs", "/dev/disk"],
        ["mount", "-t", "tmpfs", "tmpfs", "/mnt"],
    ):
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
