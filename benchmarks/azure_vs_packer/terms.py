"""The terms of the contest: how long Azure takes, what is to be reached, and what nobody can be faster than. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pytest_azchroot.emulator.settings import Profile

IMAGE, VERSION = "image", "version"
"""What is published: a managed image, a version of a gallery image. As :mod:`tests.clients.packer` calls them."""

PROFILE = Profile(
    {
        "disks.create": 2,
        "disks.delete": 0.5,
        "images.create": 5,
        "snapshots.create": 2,
        "snapshots.delete": 0.5,
        "snapshots.revoke": 0.5,  # not zero: whether Packer pauses for a whole quantum would be a coin flip
        "versions.create": 8,
        "virtualMachines.attachDetach": 3,
        "virtualMachines.update": 3,  # Packer attaches and detaches by a PUT of the machine
    },
    request=0.003,
)
"""Seconds. Azure's own vary widely (an attach was seen to take 6.4 s, a gallery version more than eight minutes); these
are short, so that what a client adds is not lost in them."""


@dataclass(frozen=True)
class Terms:
    """One kind of contest."""

    name: str
    retry_after: int | None
    """Seconds that Azure's answers ask clients to wait; None: they say nothing, as was recorded from Azure."""
    ratios: Mapping[str, float]
    """The most that our wall time may be of Packer's, by what is published."""
    distance: float | None = None
    """The most that our wall time may be of the critical path. None: nobody is held to it."""


PLAIN = Terms("no Retry-After", None, MappingProxyType({IMAGE: 0.75, VERSION: 0.5}), distance=1.15)
HINTED = Terms("Retry-After: 1", 1, MappingProxyType({IMAGE: 1.05, VERSION: 0.9}))
SERIES: Mapping[str, Terms] = MappingProxyType({"plain": PLAIN, "hinted": HINTED})


@dataclass(frozen=True)
class CriticalPath:
    """What must come one after the other, whoever asks for it, were nothing else to do."""

    parts: tuple[float, float, float, float]
    """Seconds for the disk, the device, publication and detach, and the deletion."""
    formula: str

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(self.parts)


def critical_path(profile: Profile, published: str) -> CriticalPath:
    """Of a build from a platform image.

    The device can be used before its attach is reported; the detach runs beside the publishing, for which the disk need
    not be detached; the disk can be deleted when both have ended.

    :param published: :data:`IMAGE` or :data:`VERSION`.
    """
    attach = profile.latency("virtualMachines.attachDetach")
    create, device = profile.latency("disks.create"), attach * profile.device_share
    publish, delete = profile.latency(f"{published}s.create"), profile.latency("disks.delete")
    parts = (create, device, max(publish, attach), delete)
    terms = f"disk {create:g} + device {device:g} + max({published} {publish:g}, detach {attach:g}) + delete {delete:g}"
    return CriticalPath(parts, f"{terms} = {sum(parts):g} s")
