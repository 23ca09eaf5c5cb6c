"""What the journal of a run says. Pure; :mod:`.journal` reads and writes the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from pytest_azchroot.errors import AzchrootError

VERSION = 1


class JournalError(AzchrootError):
    """The journal cannot be written or read."""


@dataclass(frozen=True)
class Open:
    """Something that was asked for, and of which nobody has written that it was released."""

    number: int
    kind: str
    """``disk``, ``snapshot``, ``attachment``, ``access``, ``image``, ``gallery-version``."""
    id: str
    facts: Mapping[str, str]
    at: datetime
    """When it was about to be asked for, UTC."""


@dataclass(frozen=True)
class Record:
    """What a journal says."""

    run: str
    host: str
    """The unique id of the machine."""
    pid: int
    started: datetime
    entries: tuple[Open, ...]
    """The open ones, in the order in which they were asked for."""
    damaged: int = 0
    """Lines that cannot be read, the last one apart: that was being written when the run died, and what it tells of
    had not been asked for."""


def parse(text: str) -> Record:
    """Read a journal.

    :raises JournalError: its first line does not say whose it is, or it was written by a later version.
    """
    first, *lines = text.split("\n")
    try:
        head = json.loads(first)
        version, run, host, pid = int(head["version"]), str(head["run"]), str(head["host"]), int(head["pid"])
        started = datetime.fromisoformat(head["started"])
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError("this is no journal", why="its first line does not say whose it is") from error
    if version > VERSION:
        raise JournalError(
            f"the journal of run {run} cannot be read",
            why=f"it has version {version}, this pytest-azchroot knows {VERSION}",
            hint="sweep with the version that wrote it, or a later one",
        )
    entries: dict[int, Open] = {}
    # what stands behind the last end of line is empty, or torn
    damaged = sum(not _apply(line, entries) for line in lines[:-1])
    return Record(run, host, pid, started, tuple(entries.values()), damaged)


def _apply(line: str, entries: dict[int, Open]) -> bool:
    """:return: whether the line could be read."""
    try:
        data = json.loads(line)
        number, facts = int(data["entry"]), dict(data.get("facts", {}))
        if "kind" in data:
            at = datetime.fromisoformat(data["at"])
            entries[number] = Open(number, str(data["kind"]), str(data["id"]), facts, at)
        elif data.get("done"):
            entries.pop(number, None)
        elif number in entries:
            entries[number] = replace(entries[number], facts={**entries[number].facts, **facts})
    except (ValueError, KeyError, TypeError):
        return False
    return True
