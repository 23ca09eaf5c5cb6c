"""What an emulator is told when it starts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from pytest_azchroot.errors import AzchrootError

Family = Literal["scsi", "nvme"]
Overlap = Literal["accept", "conflict"]

SUBSCRIPTION = "22222222-2222-2222-2222-222222222222"
TENANT = "33333333-3333-3333-3333-333333333333"
IMMEDIATE = 0.0


class SettingsError(AzchrootError):
    """The emulator was told something that cannot be."""


@dataclass(frozen=True)
class Profile:
    """How long operations take, in seconds, by their kind; ``*`` is any other. No entry: at once.

    Kinds are ``create``, ``update`` and ``delete`` of ``disks``, ``snapshots``, ``images``, ``galleries``,
    ``definitions`` and ``versions``, as in ``disks.create``; ``grant`` and ``revoke`` of ``disks`` and ``snapshots``;
    of ``virtualMachines`` also ``attachDetach`` and ``power``; and ``groups.delete``.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    request: float = 0.0
    """Before every answer: the network's round trip."""
    device_share: float = 0.8
    """Which part of a ``virtualMachines.attachDetach`` or ``update`` has passed when a device appears or goes."""
    detach_patience: float = 10.0
    """Seconds to wait for a device that somebody has open, before a detach fails."""

    def latency(self, kind: str) -> float:
        """Seconds that an operation of this kind takes."""
        return self.seconds.get(kind, self.seconds.get("*", IMMEDIATE))

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read a YAML or JSON file: ``{seconds: {disks.create: 2, "*": 0.1}, request: 0.05}``.

        :raises SettingsError: it cannot be read, or says something else.
        """
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            seconds = {str(kind): float(value) for kind, value in (found.pop("seconds", None) or {}).items()}
            return cls(seconds, **{name: float(value) for name, value in found.items()})
        except (OSError, yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
            raise SettingsError(f"the profile {path} cannot be used", why=str(error)) from error


@dataclass(frozen=True)
class PlatformImage:
    """A marketplace image, and the local disk image file that holds its bytes."""

    urn: str
    """``publisher:offer:sku:version``."""
    path: Path
    generation: str = ""
    """``V1`` or ``V2``; by default V2 where the sku says gen2."""
    architecture: str = "x64"

    def __post_init__(self) -> None:
        if len(self.urn.split(":")) != 4 or not all(self.urn.split(":")):
            raise SettingsError(f"{self.urn!r} names no platform image", hint="publisher:offer:sku:version")
        if not self.generation:
            generation = "V2" if "gen2" in self.sku.lower() else "V1"
            object.__setattr__(self, "generation", generation)

    @property
    def publisher(self) -> str:
        """The first part."""
        return self.urn.split(":")[0]

    @property
    def offer(self) -> str:
        """The second part."""
        return self.urn.split(":")[1]

    @property
    def sku(self) -> str:
        """The third part."""
        return self.urn.split(":")[2]

    @property
    def version(self) -> str:
        """The last part."""
        return self.urn.split(":")[3]


@dataclass(frozen=True)
class Machine:
    """The virtual machine that this machine plays: its disks become devices here."""

    group: str = "rg1"
    name: str = "vm1"
    size: str = "Standard_D4s_v5"
    zone: str | None = None
    vm_id: str | None = None
    """By default one of the emulator's directory: builds on one host that ask different emulators are on different
    machines, and share no rate limits."""


@dataclass(frozen=True)
class Settings:
    """All of it."""

    directory: Path
    """State and disks; made if it is not there. Starting again in it goes on where the last one ended."""
    images: tuple[PlatformImage, ...] = ()
    machine: Machine = Machine()
    location: str = "westus2"
    subscription: str = SUBSCRIPTION
    tenant: str = TENANT
    profile: Profile = Profile()
    retry_after: int | None = None
    """Seconds in Retry-After; None sends none, as was recorded from Azure."""
    devices: Path | None = None
    """Where links appear: ``/dev`` for clients with fixed paths. By default ``dev`` in :attr:`directory`."""
    family: Family = "scsi"
    prefix: str = "az"
    """Before the names of devices, so that they meet none of the machine's own: ``azsdc``, ``aznvme0n2``."""
    throttled: bool = False
    """Whether Azure's rate limits hold."""
    overlap: Overlap = "accept"
    """What a PUT or PATCH of a virtual machine meets while another update of it runs."""
    calls: Path | None = None
    """The log of every call. By default ``calls.jsonl`` in :attr:`directory`."""

    @property
    def machine_id(self) -> str:
        """The id of :attr:`machine`."""
        compute = f"/subscriptions/{self.subscription}/resourceGroups/{self.machine.group}/providers/Microsoft.Compute"
        return f"{compute}/virtualMachines/{self.machine.name}"

    @property
    def vm_id(self) -> str:
        """The unique id of :attr:`machine`."""
        return self.machine.vm_id or str(uuid.uuid5(uuid.NAMESPACE_URL, self.directory.absolute().as_uri()))

    @property
    def device_directory(self) -> Path:
        """Where links appear."""
        return self.directory / "dev" if self.devices is None else self.devices
