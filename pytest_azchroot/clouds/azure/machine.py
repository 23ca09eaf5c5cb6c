"""The virtual machine that a build runs on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Machine:
    """What the instance metadata service says of the virtual machine. Templates see it as ``vm``, tests as
    ``image.vm``."""

    name: str
    subscription_id: str
    """The machine's own, whatever the configuration's ``subscription_id`` says."""
    resource_group: str
    location: str
    """As Azure writes it in ids: ``westeurope``."""
    resource_id: str
    zone: str | None = None
    """Of the region: ``1``; None where the machine is in no zone."""
    size: str = ""
    """``Standard_D4s_v5``."""
    vm_id: str = ""
    """The machine's unique id, which no other machine ever has."""
    environment: str = "AzurePublicCloud"
    """Which Azure it is in, in the metadata service's words."""
    tags: Mapping[str, str] = field(default_factory=dict)
