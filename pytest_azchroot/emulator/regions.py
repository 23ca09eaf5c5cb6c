"""Azure's regions that the emulator knows. Source: learn.microsoft.com, "List of Azure regions"."""

from __future__ import annotations

from .paths import location_key

REGIONS = {
    location_key(name): name
    for name in (
        "East US", "East US 2", "Central US", "North Central US", "South Central US", "West Central US", "West US",
        "West US 2", "West US 3", "Canada Central", "Canada East", "Brazil South", "North Europe", "West Europe",
        "UK South", "UK West", "France Central", "Germany West Central", "Switzerland North", "Norway East",
        "Sweden Central", "Poland Central", "Italy North", "Spain Central", "UAE North", "South Africa North",
        "Central India", "South India", "East Asia", "Southeast Asia", "Japan East", "Japan West", "Korea Central",
        "Australia East", "Australia Southeast",
    )
}  # fmt: skip
"""Name → display name."""


def display(name: str) -> str | None:
    """``West US 2``, from either form; None for a region that we do not know."""
    return REGIONS.get(location_key(name))
