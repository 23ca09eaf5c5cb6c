"""How fast Azure says that a managed disk is. Pure; source: learn.microsoft.com, "Managed disk types"."""

from __future__ import annotations

from bisect import bisect_left

_PREMIUM = (
    (4, "P1", 120, 25),
    (8, "P2", 120, 25),
    (16, "P3", 120, 25),
    (32, "P4", 120, 25),
    (64, "P6", 240, 50),
    (128, "P10", 500, 100),
    (256, "P15", 1100, 125),
    (512, "P20", 2300, 150),
    (1024, "P30", 5000, 200),
    (2048, "P40", 7500, 250),
    (4096, "P50", 7500, 250),
    (8192, "P60", 16000, 500),
    (16384, "P70", 18000, 750),
    (32767, "P80", 20000, 900),
)
"""Largest GiB, tier, operations and MB a second."""


SKUS = {
    "Standard_LRS": "Standard",
    "StandardSSD_LRS": "Standard",
    "StandardSSD_ZRS": "Standard",
    "Premium_LRS": "Premium",
    "Premium_ZRS": "Premium",
    "PremiumV2_LRS": "Premium",
    "UltraSSD_LRS": "Ultra",
}
"""Of disks, with their tiers."""
SNAPSHOT_SKUS = {"Standard_LRS": "Standard", "Standard_ZRS": "Standard", "Premium_LRS": "Premium"}
"""Of snapshots. Source: the REST reference, SnapshotSku."""


def performance(sku: str, size: int) -> dict[str, int | str]:
    """The properties that a disk of ``size`` GiB has by its SKU."""
    if sku.startswith("Premium_"):
        index = min(bisect_left([row[0] for row in _PREMIUM], size), len(_PREMIUM) - 1)
        _, tier, operations, throughput = _PREMIUM[index]
        return {"tier": tier, "diskIOPSReadWrite": operations, "diskMBpsReadWrite": throughput}
    return {"diskIOPSReadWrite": 500, "diskMBpsReadWrite": 100 if sku.startswith("StandardSSD") else 60}
