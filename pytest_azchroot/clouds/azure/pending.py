"""Artifacts that an earlier run has tested and sent, and did not see complete: the replication of a gallery image
version takes from minutes to hours, and to make the same one again would be refused."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_azchroot.clouds import Artifact, Order, Sent
from pytest_azchroot.clouds.azure import disks
from pytest_azchroot.clouds.azure.destinations import version_id
from pytest_azchroot.clouds.azure.leftovers import RUN_TAG, Resource, is_made_of, key, resource
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.publishing import IMAGE, VERSION
from pytest_azchroot.clouds.azure.recipe import fingerprint
from pytest_azchroot.clouds.azure.refusals import AzureError, explained
from pytest_azchroot.clouds.azure.session import SWEEP, Session
from pytest_azchroot.errors import AzchrootError, AzchrootWarning, PublishError
from pytest_azchroot.journal import Entry, Journal, Open, records
from pytest_azchroot.leaving import afterwards
from pytest_azchroot.spec.azure_ids import parse_disk_id, parse_gallery_image_version_id, parse_image_id

_ENDED = {"succeeded", "failed", "canceled"}
_PAUSE, _LONGEST = 0.25, 10.0
_NAMES = {"image": "image", "gallery-version": "version"}
"""Of kinds of entries, for people."""


def find(order: Order, machine: Machine) -> tuple[Sent, Path] | None:
    """What an earlier run of this machine has sent that the order asks for, all of it, and its journal. Asks nobody.

    What was made by another recipe is another image: then the order is looked at as if nobody had sent anything, and
    what is on its way is in its way.
    """
    wanted = _wanted(order, machine)
    for found in records():
        if found.alive or found.record is None or found.record.host != machine.vm_id:
            continue
        sent = [each for each in found.record.entries if _is_sent(each, wanted)]
        ids = tuple(id for _, id in _arriving(sent))
        is_whole = bool(sent) and wanted <= {id.lower() for id in ids}
        if is_whole and {each.facts.get("recipe") for each in sent} == {fingerprint(order)}:
            return Sent(found.record.run, ids), found.path
    return None


def take_up(session: Session, order: Order, sent: Sent, journal_file: Path) -> list[Artifact]:
    """Wait for it, and delete the disk that it was made of.

    :raises PublishError: it has failed, is not complete in time, or is not there.
    """
    journal = Journal.adopted(journal_file)
    wanted = _wanted(order, session.machine)
    entries = [] if journal is None else [each for each in journal.entries if _is_sent(each, wanted)]
    if journal is None or not entries:
        raise PublishError(
            f"what the run {sent.run} has sent cannot be taken up",
            why="somebody else has taken it up, or swept it",
            hint="run again",
        )
    with afterwards(journal.close):
        for entry in entries:
            _wait(session, order, entry)
        for entry in entries:
            entry.done()
        for disk in {key(entry.facts["disk"]): entry.facts["disk"] for entry in entries}.values():
            _delete(session, order, disk, journal)
    size, digest = int(entries[0].facts["size"]), entries[0].facts["digest"] or None
    return [Artifact(kind, id, size, digest) for kind, id in _arriving(entries)]


def _delete(session: Session, order: Order, disk: str, journal: Journal) -> None:
    """Delete what the artifacts were made of. They are complete: if it stays, they are none the worse."""
    entries = [each for each in journal.entries if each.kind in {"disk", "attachment"} and key(each.id) == key(disk)]
    if not entries:
        return
    try:
        disks.delete(session, order, parse_disk_id(disk))
    except AzchrootError as error:
        warnings.warn(AzchrootWarning(f"{disk} is left ({error.reason}); {SWEEP}"), stacklevel=2)
    else:
        for each in entries:
            each.done()


def _wanted(order: Order, machine: Machine) -> frozenset[str]:
    """What the order asks for, in lower case."""
    spec = order.configuration.spec
    if not order.publish or order.overwrite:  # who replaces what there is wants a new one
        return frozenset()
    image = None if spec.image_resource_id is None else parse_image_id(spec.image_resource_id)
    return frozenset(str(each).lower() for each in (image, version_id(spec, machine)) if each is not None)


def _arriving(sent: Sequence[Open | Entry]) -> list[tuple[str, str]]:
    """Kind and id of all that was sent with these, also of what was complete then."""
    found = {str(id): str(kind) for each in sent for kind, id in json.loads(each.facts["also"])}
    found |= {each.id: IMAGE if each.kind == "image" else VERSION for each in sent}
    return sorted(((kind, id) for id, kind in found.items()), key=lambda each: each[0] != IMAGE)


def _wait(session: Session, order: Order, entry: Entry) -> None:
    name = entry.id.rpartition("/")[2]
    patience = session.patience if entry.kind == "image" else session.spec.shared_image_gallery_timeout
    order.say(f"waiting for the {_NAMES[entry.kind]} {name}")
    deadline, pause = time.monotonic() + patience, _PAUSE
    with session.calls.waiting(f"making the {_NAMES[entry.kind]} {name}"):
        while (state := _found(session, entry).state.lower()) not in _ENDED:
            if order.interrupted() or time.monotonic() > deadline:
                hint = "run again, and it is taken up where it is then"
                raise PublishError(f"{entry.id} is not complete", why=f"Azure says {state!r}", hint=hint)
            time.sleep(pause)
            pause = min(pause * 1.2, _LONGEST)
    if state != "succeeded":
        raise PublishError(f"{entry.id} has failed", why=f"Azure says {state!r}", hint=f"{SWEEP}; then run again")


def _found(session: Session, entry: Entry) -> Resource:
    found = resource(entry.kind, _get(session, entry))
    if found.tags.get(RUN_TAG) != entry.journal.run or not is_made_of(found, entry.facts["disk"]):
        hint = f"set another version, or replace it with --azchroot-overwrite; {SWEEP}, what the earlier run left"
        raise PublishError(f"{entry.id} is not what was sent", why="somebody else has made it since", hint=hint)
    return found


def _get(session: Session, entry: Entry) -> Mapping[str, Any]:
    try:
        with explained(f"looking at {entry.id}"):
            if entry.kind == "image":
                image = parse_image_id(entry.id)
                return session.azure.compute(image.subscription_id).images.get(image.resource_group, image.name)
            id = parse_gallery_image_version_id(entry.id)
            compute = session.azure.compute(id.subscription_id)
            return compute.gallery_image_versions.get(id.resource_group, id.gallery, id.image, id.version)
    except AzureError as error:
        if not error.is_missing:
            raise
        raise PublishError(f"{entry.id} is gone", hint=f"{SWEEP}, what is left of it; then run again") from error


def _is_sent(entry: Open | Entry, wanted: frozenset[str]) -> bool:
    return entry.kind in _NAMES and bool(entry.facts.get("sent")) and entry.id.lower() in wanted
