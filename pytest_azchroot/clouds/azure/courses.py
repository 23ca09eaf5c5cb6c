"""What to do about a refusal of a change of data disks. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from pytest_azchroot.clouds.azure.queue import Failure, Request


class Course(Enum):
    """What follows a refusal."""

    LATER = "the same, a while later"
    PICK_AGAIN = "a LUN was taken: read the machine, and choose again"
    FULL = "the machine's size allows no more"
    OTHER_WAY = "there is no attachDetachDataDisks here"
    NOT_WE = "this credential may not"
    FINAL = "it will not do"


_BUSY = {"conflict", "attachdiskwhilebeingdetached", "retryableerror", "anotheroperationinprogress"}
_UNKNOWN = {"invalidresourcetype", "notsupported", "noregisteredproviderfound", "featurenotenabled", "methodnotallowed"}
_GONE = {"resourcenotfound", "parentresourcenotfound", "resourcegroupnotfound", "subscriptionnotfound"}
_NOT_HERE = re.compile(
    r"\b(?:operation|feature|action|api)\b[^.]*\bnot (?:yet )?(?:enabled|supported|available|registered)\b[^.]*"
    r"\b(?:subscription|region|location)|attach\W*detach\w*[^.]*\bnot (?:yet )?(?:enabled|supported|available)",
    re.IGNORECASE,
)
"""Of the call, and not of a disk: a kind of disk that a region lacks is another matter."""
_DISK = re.compile(r"\bdisks?\b", re.IGNORECASE)
_LEFT = re.compile(r"cannot be detached as it is not attached", re.IGNORECASE)
"""It has gone since the machine was read: read it again, and it is as it should be. The text is unsure."""
_LUN = re.compile(r"disk at LUN '?(\d+)'? already exists", re.IGNORECASE)  # azure-sdk-for-go#678
_MOST = re.compile(r"maximum number of data disks\b.*\bis '?(\d+)", re.IGNORECASE | re.DOTALL)  # azuredisk-csi#2883

_BEGIN, _END = r"(?:(?<![\w./-])|(?<=disks/))", r"(?![\w-]|\.\w)"
"""Of a name within a text: names have dots and dashes, too."""


def course(found: Failure) -> Course:
    """What to do. The codes and texts are those of facts recorded and reported; see :mod:`.luns`, too."""
    status, code, text = found.status, (found.code or "").lower(), found.why or ""
    if status is None or (status >= 500 and status != 501) or status in {408, 412, 429}:
        return Course.LATER
    if status in {401, 403}:
        return Course.NOT_WE
    if taken_lun(found) is not None:
        return Course.PICK_AGAIN
    if told_limit(found) is not None:
        return Course.FULL
    unknown = status == 404 and code not in _GONE and not _DISK.search(text)
    if status in {405, 501} or unknown or code in _UNKNOWN or _NOT_HERE.search(text):
        return Course.OTHER_WAY
    later = code in _BUSY or "concurrent request" in text or _LEFT.search(text)
    return Course.LATER if later else Course.FINAL


def taken_lun(found: Failure) -> int | None:
    """The LUN that somebody else has taken."""
    match = _LUN.search(found.why or "")
    return int(match[1]) if match else None


def told_limit(found: Failure) -> int | None:
    """How many data disks the machine's size allows, as the refusal says."""
    match = _MOST.search(found.why or "")
    return int(match[1]) if match else None


def for_one(found: Failure) -> bool:
    """Whether it is about a disk, and not about the machine or the call as a whole."""
    return course(found) is Course.FINAL or (found.code or "").lower() == "attachdiskwhilebeingdetached"


def blamed(found: Failure, requests: Sequence[Request]) -> Request | None:
    """The request whose disk is named, by id or by name; None where there is none, or more than one."""
    text = (found.why or "").lower()
    ids = {each.key: each for each in requests if _has_id(text, each.key)}
    named = {each.key: each for each in requests if _has_name(text, each.key)}
    hit = list((ids or named).values())
    return hit[0] if len(hit) == 1 else None


def names(text: str, disk: str) -> bool:
    """Whether a text is about a disk, by id or by name."""
    return _has_id(text.lower(), disk.lower()) or _has_name(text.lower(), disk.lower())


def _has_id(text: str, key: str) -> bool:
    return re.search(re.escape(key) + _END, text) is not None


def _has_name(text: str, key: str) -> bool:
    return re.search(_BEGIN + re.escape(key.rsplit("/", 1)[-1]) + _END, text) is not None


def pause(attempts: int, asked: float | None) -> float:
    """Seconds until the next try.

    :param asked: what ``Retry-After`` says.
    """
    return max(min(0.5 * 1.6**attempts, 20.0), asked or 0.0)
