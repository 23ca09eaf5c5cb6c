"""Versions of images, compared as numbers. Pure.

Azure lists versions by name, and by name ``0.20241201.9`` comes after ``0.20241201.10``.
"""

from __future__ import annotations

from collections.abc import Iterable


def highest(names: Iterable[str]) -> str | None:
    """The highest of these versions; None of none."""
    return max(names, key=key, default=None)


def key(name: str) -> tuple[tuple[int, int, str], ...]:
    """What to sort versions by: their parts as numbers. A part that is no number comes before every number."""
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in name.split("."))
