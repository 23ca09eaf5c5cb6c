"""What is wrong with an image.yaml: every problem at once, each where it stands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pytest_azchroot.errors import AzchrootError

Place: TypeAlias = "tuple[str | int, ...]"
"""Where a value stands in a document: keys and indexes from the root."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    path: Path
    line: int | None
    """Counted from 1; None where nothing in the file is the cause, as for a key that is missing."""
    field: str
    """``mount_options[0]``; empty where the whole file is meant."""
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        where = _shown(self.path) if self.line is None else f"{_shown(self.path)}:{self.line}"
        what = f"{self.field}: {self.message}" if self.field else self.message
        return f"{where}: {what}" if self.hint is None else f"{where}: {what}\n  hint: {self.hint}"


class ConfigError(AzchrootError):
    """The configuration of an image is wrong; ``problems`` holds everything that is.

    Its text has a line for each problem, with a hint below it where there is one.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"{count} in the image's configuration", why="\n" + "\n".join(map(str, self.problems)))

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def field_name(place: Place) -> str:
    """``("clouds", "azure", "mount_options", 0)`` as ``clouds.azure.mount_options[0]``."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def near(name: str, known: Iterable[str]) -> str | None:
    """The known name that the unknown one was probably meant to be, if there is one."""
    by_plain = {candidate.lower().replace("-", "_"): candidate for candidate in sorted(known)}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), by_plain, n=1, cutoff=0.7)
    return by_plain[found[0]] if found else None


def _shown(path: Path) -> str:
    # Relative to where the user stands, because that is how editors and terminals make it a link.
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
