"""The errors a user can meet: what happened, why, and what to do."""

from __future__ import annotations

import traceback
from typing import TypeVar

from pytest_azchroot.printable import printable


class AzchrootError(Exception):
    """Something a user can act on.

    :param what: what happened, in one sentence without a full stop.
    :param why: the cause, where it is known; may span lines (a tool's own words).
    :param hint: what to do about it.
    """

    __module__ = "pytest_azchroot"  # as people import it, and as tracebacks should name it
    _colours = False
    """Whether it tells what a command has printed for people."""

    def __init__(self, what: str, *, why: str | None = None, hint: str | None = None) -> None:
        self.what = what
        self.why = why
        self.hint = hint
        self.later: list[str] = []
        """What else went wrong on the way out; see :func:`attach`."""
        super().__init__(what, why, hint)

    @property
    def reason(self) -> str:
        """What happened, and why if that is known: for the ``why`` of another error."""
        return self.what if self.why is None else f"{self.what}: {self.why}"

    @property
    def sentence(self) -> str:
        """All of it as one of several problems in a list: what, why, and in brackets what to do."""
        return self.reason if self.hint is None else f"{self.reason} ({self.hint})"

    def __str__(self) -> str:
        text = self.reason
        hint = [] if self.hint is None else [f"hint: {self.hint}"]
        lines = [text, *hint, *(f"then: {each}" for each in self.later)]
        return printable("\n".join(lines), kept="\n\t", colours=self._colours)


class UnavailableError(AzchrootError):
    """This machine or session lacks something a build needs: a privilege, a tool, a kernel feature."""

    __module__ = "pytest_azchroot"


class DiskError(AzchrootError):
    """A disk image cannot be read, copied, converted or attached."""

    __module__ = "pytest_azchroot"


class SandboxError(AzchrootError):
    """The sandbox cannot be started, has died, or refused a request."""

    __module__ = "pytest_azchroot"


class DirtyImageError(SandboxError):
    """The image did not close strictly: something held it, or a file system is not clean. Never publish it."""

    __module__ = "pytest_azchroot"


class PublishError(AzchrootError):
    """The disk is good but the artifact could not be made of it."""

    __module__ = "pytest_azchroot"


class AzchrootWarning(UserWarning):
    """Something that does not fail a build but that its author should know."""


def attach(first: BaseException, later: BaseException) -> None:
    """Let an error of the way out go with the error that came before, which is the one to show.

    The text of the first one then ends in a line ``then: …``: for a stranger's exception as a note (PEP 678). Of a
    group each error is attached. What is said already is not said twice.
    """
    if group := getattr(later, "exceptions", None):
        for each in group:
            attach(first, each)
        return
    text, said = told(later), f"{told(first)}\n"
    if first is later or said == f"{text}\n" or said.startswith(f"{text}\nthen: ") or f"\nthen: {text}\n" in said:
        return
    if isinstance(first, AzchrootError):
        first.later.append(text)
    else:  # Python 3.10 has no add_note; what pytest brings there to show notes looks for the attribute
        first.__notes__ = [*getattr(first, "__notes__", ()), f"then: {text}"]  # type: ignore[attr-defined]


def told(error: BaseException) -> str:
    """An error for people: its own words if it says what to do, else also its kind and where it was raised."""
    if isinstance(error, AzchrootError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (in {frames[-1].name}, {frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    text = f"{type(error).__name__}: {error}".removesuffix(": ") + place
    return "\n".join([text, *getattr(error, "__notes__", ())])


Kind = TypeVar("Kind", bound=AzchrootError)


def recast(error: AzchrootError, kind: type[Kind]) -> Kind:
    """The same error as one of another kind, with what is attached to it; itself if it is one already."""
    if isinstance(error, kind):
        return error
    made = kind(error.what, why=error.why, hint=error.hint)
    made.later = error.later
    return made
