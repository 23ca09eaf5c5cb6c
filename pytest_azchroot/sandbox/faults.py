"""Errors as JSON: what goes wrong in the keeper, the holder or one of its children is raised in the caller."""

from __future__ import annotations

import contextlib
import os

from pytest_azchroot import errors
from pytest_azchroot.errors import AzchrootError, SandboxError

from .mounts import Mount
from .wire import Message

_KNOWN = {
    kind.__name__: kind
    for kind in (errors.UnavailableError, errors.DiskError, errors.SandboxError, errors.DirtyImageError)
}


class BusyError(errors.DirtyImageError):
    """A file system is still in use; ``point`` and ``devices`` (``st_dev``) say which."""

    def __init__(self, what: str, *, why: str | None, point: str, devices: list[int]) -> None:
        super().__init__(what, why=why)
        self.point = point
        self.devices = devices


def devices_of(mount: Mount) -> list[int]:
    """``st_dev`` of a mount's files, by which their users are found: for btrfs that of a subvolume differs from that of
    the superblock."""
    major, minor = mount.device.split(":")
    found = {os.makedev(int(major), int(minor))}
    with contextlib.suppress(OSError):  # a mount that cannot be looked at is named by its superblock alone
        found.add(os.stat(mount.point).st_dev)
    return sorted(found)


def encode(error: BaseException) -> Message:
    """An error as a message."""
    later = error.later if isinstance(error, AzchrootError) else getattr(error, "__notes__", [])
    return {**_encoded(error), "later": [each.removeprefix("then: ") for each in later]}


def _encoded(error: BaseException) -> Message:
    if isinstance(error, BusyError):
        return {"kind": "busy", "what": error.what, "why": error.why, "point": error.point, "devices": error.devices}
    if isinstance(error, AzchrootError):
        return {"kind": type(error).__name__, "what": error.what, "why": error.why, "hint": error.hint}
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename is not None else ""
        return {"kind": "SandboxError", "what": f"{error.strerror}{where}"}
    return {"kind": "SandboxError", "what": f"{type(error).__name__}: {error}"}


def decode(message: Message) -> AzchrootError:
    """The error that a message stands for."""
    error = _decoded(message)
    error.later += message["later"]
    return error


def _decoded(message: Message) -> AzchrootError:
    if message["kind"] == "busy":
        return BusyError(message["what"], why=message["why"], point=message["point"], devices=message["devices"])
    kind = _KNOWN.get(message["kind"], SandboxError)
    return kind(message["what"], why=message.get("why"), hint=message.get("hint"))
