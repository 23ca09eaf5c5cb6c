"""The errors a user can meet: what happened, why, and what to do."""

from __future__ import annotations


class AzchrootError(Exception):
    """Something a user can act on.

    :param what: what happened, in one sentence without a full stop.
    :param why: the cause, where it is known; may span lines (a tool's own words).
    :param hint: what to do about it.
    """

    __module__ = "pytest_azchroot"  # as people import it, and as tracebacks should name it

    def __init__(self, what: str, *, why: str | None = None, hint: str | None = None) -> None:
        self.what = what
        self.why = why
        self.hint = hint
        super().__init__(what, why, hint)

    def __str__(self) -> str:
        text = self.what if self.why is None else f"{self.what}: {self.why}"
        return text if self.hint is None else f"{text}\nhint: {self.hint}"


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
