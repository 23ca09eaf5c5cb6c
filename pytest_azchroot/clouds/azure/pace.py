"""How often an operation is asked about. Pure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

LONGEST = 120.0
"""Seconds: longer than that nobody waits because Azure asks for it."""


@dataclass(frozen=True)
class Pace:
    """How often an operation is asked about: the longer it takes, the more seldom. Azure's own ``Retry-After`` wins."""

    floor: float = 0.1
    """Seconds between two questions, at least."""
    ceiling: float = 4.0
    """Seconds between two questions, at most."""
    share: float = 0.05
    """Of the time since the operation began: what may be lost at its end."""
    first: float = 0.0
    """Seconds before the first question."""
    allow: Callable[[], bool] | None = None
    """Asked before every question; False leaves it out. For limits that others share."""

    def delay(self, elapsed: float, asked: float | None = None) -> float:
        """Seconds until the next question.

        :param elapsed: seconds since the operation began.
        :param asked: what Azure asks for, in seconds; 0 is a question at once, which the floor bounds.
        """
        if asked is not None:
            return min(max(asked, self.floor), LONGEST)
        return min(max(self.share * elapsed, self.floor), self.ceiling)


BRISK = Pace(0.06, 4.0, 0.015)
"""For operations that no narrow limit holds for: those of disks, snapshots, images. A build waits for three of them in
a row, and loses half a pause with each."""
LASTING = Pace(0.1, 4.0, 0.015)
"""For versions of gallery images, which take minutes."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """What an answer asks to wait, in seconds; None if it says nothing that can be understood.

    Source: RFC 9110, 10.2.3; Resource Manager has milliseconds, too, and fractions.
    """
    found = {name.lower(): value for name, value in headers.items()}
    for name, unit in (("x-ms-retry-after-ms", 0.001), ("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = found.get(name)
        if value is None:
            continue
        seconds = _number(value)
        if seconds is not None:
            return max(seconds * unit, 0.0)
        try:
            return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
        except ValueError:
            continue
    return None


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
