"""The forms that single options must have, each as a check that fails in plain words. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from pytest_azchroot.spec import azure_ids
from pytest_azchroot.spec.fields import fail


def _id(parse: Callable[[str], object], what: str, collection: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        try:
            parse(text)
        except ValueError as error:
            raise fail(
                f"{text!r} is not the id of a {what}: {error}",
                f"/subscriptions/…/resourceGroups/…/providers/Microsoft.Compute/{collection}/NAME",
            ) from None

    return check


image_id = _id(azure_ids.parse_image_id, "managed image", "images")
disk_id = _id(azure_ids.parse_disk_id, "managed disk", "disks")
snapshot_id = _id(azure_ids.parse_snapshot_id, "snapshot", "snapshots")


def wrapper(text: str) -> None:
    """A command wrapper must hold the command that it wraps, or nothing of it would run."""
    if "command" not in text:
        raise fail("does not hold the command that it wraps", "for example: sudo {{ command }}")


def lvm_device(text: str) -> None:
    """The rules of azure-chroot: below /dev, no ``..``, no control characters, no white space but blanks."""
    if any(not char.isprintable() for char in text):
        raise fail("holds a control character or white space other than a blank")
    if ".." in text.split("/"):
        raise fail(f"{text!r} has a part ..")
    if not posixpath.normpath(text).startswith("/dev/"):
        raise fail(f"{text!r} is not a path below /dev", "for example /dev/rootvg/rootlv")
