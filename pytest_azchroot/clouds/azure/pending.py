"""A gallery image version that an earlier run has tested and sent, and did not see complete: replication takes from
minutes to hours, and to build the same version again would be refused."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_azchroot.clouds import Artifact, Order, Sent
from pytest_azchroot.clouds.azure import disks
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.publishing import VERSION
from pytest_azchroot.clouds.azure.refusals import AzureError, explained
from pytest_azchroot.clouds.azure.session import SWEEP, Session
from pytest_azchroot.errors import PublishError
from pytest_azchroot.journal import Entry, Found, Journal, Open, records
from pytest_azchroot.leaving import afterwards
from pytest_azchroot.spec.azure_ids import GalleryImageVersionId, parse_disk_id, parse_gallery_image_version_id

_MISSING = 404
_ENDED = {"succeeded", "failed", "canceled"}
_PAUSE, _LONGEST = 0.25, 10.0


def find(order: Order, machine: Machine) -> tuple[Sent, Path] | None:
    """What an earlier run of this machine has sent that the order asks for, and its journal. Asks nobody."""
    wanted = destination(order, machine)
    if wanted is None:
        return None
    for found in records():
        entry = _entry(found, wanted)
        if found.record is not None and found.record.host == machine.vm_id and entry is not None:
            also = tuple(id for _, id in json.loads(entry.facts["also"]))
            return Sent(found.record.run, (*also, entry.id)), found.path
    return None


def destination(order: Order, machine: Machine) -> GalleryImageVersionId | None:
    """The version that the order asks for."""
    spec = order.configuration.spec
    if not order.publish or (wanted := spec.shared_image_destination) is None:
        return None
    return GalleryImageVersionId(
        spec.subscription_id or machine.subscription_id,
        wanted.resource_group,
        wanted.gallery_name,
        wanted.image_name,
        wanted.image_version,
    )


def take_up(session: Session, order: Order, sent: Sent, journal_file: Path) -> list[Artifact]:
    """Wait for it, and delete the disk that it was made of.

    :raises PublishError: it has failed, is not complete in time, or is not there.
    """
    journal = Journal.adopted(journal_file)
    wanted = destination(order, session.machine)
    entries = [] if journal is None else [each for each in journal.entries if _is(each, wanted)]
    if journal is None or not entries:
        raise PublishError(
            f"what the run {sent.run} has sent cannot be taken up",
            why="somebody else has taken it up, or swept it",
            hint="run again",
        )
    entry = entries[0]
    with afterwards(journal.close):
        _wait(session, order, entry)
        entry.done()
        for each in journal.entries:
            if each.kind == "disk" and each.id.lower() == entry.facts["disk"].lower():
                disks.delete(session, order, parse_disk_id(each.id))
                each.done()
    size, digest = int(entry.facts["size"]), entry.facts["digest"] or None
    also = [(str(kind), str(id)) for kind, id in json.loads(entry.facts["also"])]
    return [Artifact(kind, id, size, digest) for kind, id in (*also, (VERSION, entry.id))]


def _wait(session: Session, order: Order, entry: Entry) -> None:
    id = parse_gallery_image_version_id(entry.id)
    order.say(f"waiting for the version {id.version} of {id.image}")
    deadline, pause = time.monotonic() + session.spec.shared_image_gallery_timeout, _PAUSE
    with session.calls.waiting(f"making the version {id.version}"):
        while (state := _state(_get(session, id))) not in _ENDED:
            if order.interrupted() or time.monotonic() > deadline:
                hint = "run again, and it is taken up where it is then"
                raise PublishError(f"{id} is not complete", why=f"Azure says {state!r}", hint=hint)
            time.sleep(pause)
            pause = min(pause * 1.2, _LONGEST)
    if state != "succeeded":
        raise PublishError(f"{id} has failed", why=f"Azure says {state!r}", hint=f"{SWEEP}; then run again")


def _get(session: Session, id: GalleryImageVersionId) -> Mapping[str, Any]:
    versions = session.azure.compute(id.subscription_id).gallery_image_versions
    try:
        with explained(f"looking at {id}"):
            return versions.get(id.resource_group, id.gallery, id.image, id.version)
    except AzureError as error:
        if error.status != _MISSING:
            raise
        raise PublishError(f"{id} is gone", hint=f"{SWEEP}, what is left of it; then run again") from error


def _state(version: Mapping[str, Any]) -> str:
    return str(version["properties"].get("provisioningState", "")).lower()


def _entry(found: Found, wanted: GalleryImageVersionId) -> Open | None:
    if found.alive or found.record is None:
        return None
    return next((each for each in found.record.entries if _is(each, wanted)), None)


def _is(entry: Open | Entry, wanted: GalleryImageVersionId | None) -> bool:
    sent = entry.kind == "gallery-version" and bool(entry.facts.get("sent"))
    return sent and entry.id.lower() == str(wanted).lower()
