"""Sizes of virtual machines. Source: learn.microsoft.com, "Sizes for virtual machines in Azure"."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """What of a size matters to disks."""

    name: str
    cores: int
    memory: float
    """GiB."""
    disks: int
    """Data disks at most."""
    temporary: int = 0
    """GiB of the temporary disk."""
    generations: str = "V1,V2"
    controllers: str = "SCSI"
    architecture: str = "x64"

    @property
    def family(self) -> str:
        """As resource SKUs name it."""
        return "standard" + self.name.removeprefix("Standard_").rstrip("0123456789") + "Family"


SIZES = {
    size.name.lower(): size
    for size in (
        Size("Standard_B1s", 1, 1, 2, 4),
        Size("Standard_B2s", 2, 4, 4, 8),
        Size("Standard_B2ms", 2, 8, 4, 16),
        Size("Standard_DS1_v2", 1, 3.5, 4, 7),
        Size("Standard_D2s_v3", 2, 8, 4, 16),
        Size("Standard_D4s_v3", 4, 16, 8, 32),
        Size("Standard_D8s_v3", 8, 32, 16, 64),
        Size("Standard_D2s_v5", 2, 8, 4),
        Size("Standard_D4s_v5", 4, 16, 8),
        Size("Standard_D8s_v5", 8, 32, 16),
        Size("Standard_D16s_v5", 16, 64, 32),
        Size("Standard_D2ds_v5", 2, 8, 4, 75),
        Size("Standard_D4ps_v5", 4, 16, 8, generations="V2", architecture="Arm64"),
        Size("Standard_E16s_v5", 16, 128, 32),
        Size("Standard_M64s", 64, 1024, 64, 2048),
        Size("Standard_D2s_v6", 2, 8, 4, generations="V2", controllers="NVMe"),
        Size("Standard_D4s_v6", 4, 16, 12, generations="V2", controllers="NVMe"),
        Size("Standard_D8s_v6", 8, 32, 24, generations="V2", controllers="NVMe"),
        Size("Standard_D16s_v6", 16, 64, 48, generations="V2", controllers="NVMe"),
    )
}


def size(name: str) -> Size | None:
    """A size by its name in any case."""
    return SIZES.get(name.lower())
