"""Azure's regions, which it names in two ways: ``westeurope`` and ``West Europe``. Pure."""

from __future__ import annotations


def plain(region: str) -> str:
    """The form that ids and locations have, from either."""
    return region.lower().replace(" ", "")


def same(one: str, other: str) -> bool:
    """Whether both names are of one region."""
    return plain(one) == plain(other)
