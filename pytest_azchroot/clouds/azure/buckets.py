"""Azure's rate limits for one virtual machine, kept by all processes of the host together.

Azure counts the requests for a machine whoever makes them, and answers 429 when a bucket is empty. Who is about to ask
takes a token first; where there is none it waits, and others join its request meanwhile.
Source: learn.microsoft.com, "Troubleshoot API throttling errors": UpdateVM 12 and 4 a minute, GetVM 36 and 12 a
minute, GetOperation of a virtual machine 45 and 15 a minute.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_azchroot.clouds.azure import shared

RATE_LIMITS = "AZCHROOT_RATE_LIMITS"
"""The environment's variable that is ``off`` where no limits hold: an emulator sets it for what it starts."""


@dataclass(frozen=True)
class Limit:
    """A bucket."""

    name: str
    burst: float
    refill: float
    """Tokens a second."""
    margin: float
    """Tokens that are left for other tools of the host, and for those in a hurry."""


UPDATES = Limit("updates", 12, 4 / 60, 2)
"""Every way to change the machine: Azure has two buckets, PutVM and UpdateVM, and does not say what is whose."""
READS = Limit("reads", 36, 12 / 60, 4)
"""GET of the machine."""
POLLS = Limit("polls", 45, 15 / 60, 10)
"""GET of an operation of the machine."""
DISKS = Limit("disks", 40, 6, 0)
"""GET of disks. Azure has no such limit for a machine; this is a part of the subscription's reads: 250, and 25 a
second."""
OPERATIONS = Limit("operations", 80, 12, 0)
"""GET of operations of all but the machine: another part of these reads. What is left is for what builds ask once, some
ten questions each. One build never meets it; sixteen at once ask less often. (Disks have a limit of their own, too, of
50000 in 3 minutes.)"""
VERSIONS = Limit("versions", 300, 2, 0)
"""GET of operations of gallery images, which are among those, too: of them alone the subscription has 1200 in 3
minutes, and 4200 in 30 (recorded answers)."""


@dataclass(frozen=True)
class Level:
    """How full a bucket is. Pure."""

    tokens: float
    at: float
    """When, as :func:`.shared.now` has it."""

    def later(self, limit: Limit, at: float) -> Level:
        """The same bucket at another time. One that was written before the host has booted starts anew."""
        return Level(min(limit.burst, self.tokens + max(0.0, at - self.at) * limit.refill), at)

    def wait(self, limit: Limit, *, spare: bool = False) -> float:
        """Seconds before a token can be taken; 0.0 if one can.

        :param spare: take one of the margin, too.
        """
        return max(0.0, (1 + (0 if spare else limit.margin) - self.tokens) / limit.refill)

    def without(self, tokens: float) -> Level:
        """After so many have been taken."""
        return Level(self.tokens - tokens, self.at)


class Budget:
    """The buckets of a machine, in a file."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = shared.now) -> None:
        self._path = path
        self._clock = clock
        self._free = os.environ.get(RATE_LIMITS) == "off"

    def wait(self, limit: Limit, *, spare: bool = False) -> float:
        """Seconds before there is a token; 0.0 if there is one. Takes none."""
        if self._free:
            return 0.0
        return self._level(shared.read(self._path), limit).wait(limit, spare=spare)

    def take(self, limit: Limit, *, spare: bool = False) -> bool:
        """Take a token, if there is one."""
        if self._free:
            return True
        with shared.changing(self._path) as content:
            level = self._level(content, limit)
            if level.wait(limit, spare=spare) > 0:
                return False
            self._keep(content, limit, level.without(1))
            return True

    def empty(self, limit: Limit, seconds: float) -> None:
        """Azure has answered 429, and says when to come again: the bucket was emptier than we knew."""
        with shared.changing(self._path) as content:
            level = self._level(content, limit)
            tokens = min(level.tokens, 1 + limit.margin - seconds * limit.refill)
            self._keep(content, limit, Level(tokens, level.at))

    def _level(self, content: dict[str, Any], limit: Limit) -> Level:
        now = self._clock()
        try:
            tokens, at = content[limit.name]
            return Level(float(tokens), float(at)).later(limit, now)
        except (KeyError, TypeError, ValueError):  # nobody has taken one yet, or a hand was in the file
            return Level(limit.burst, now)

    @staticmethod
    def _keep(content: dict[str, Any], limit: Limit, level: Level) -> None:
        content[limit.name] = [level.tokens, level.at]
