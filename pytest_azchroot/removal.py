"""What a sweep does, a step each, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pytest_azchroot.errors import AzchrootError

Action = Literal["revoke", "detach", "delete", "keep", "forget", "leave"]
"""``keep``: it is an artifact, and stays. ``forget``: there is nothing to do. ``leave``: not yet, or not ours to do."""


@dataclass(frozen=True)
class Removal:
    """One step."""

    action: Action
    kind: str
    """``disk``, ``snapshot``, ``attachment``, ``access``, ``image``, ``gallery-version``, ``device``, ``group``."""
    id: str
    reason: str
    run: str | None = None
    began: datetime | None = None
    """When the run began."""
    entry: int | None = None
    """In the run's journal; it is done when the step is."""
    vm: str | None = None
    """The id of the virtual machine that the run has attached a disk to."""

    @property
    def ends(self) -> bool:
        """Whether the entry is done with it, if it goes well."""
        return self.action != "leave"


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    removal: Removal
    error: AzchrootError | None = None
