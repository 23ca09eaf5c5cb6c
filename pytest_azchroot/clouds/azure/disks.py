"""The working disk: made of the source, and deleted when nothing needs it any more."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_azchroot.clouds import Disk, Kept, Order
from pytest_azchroot.clouds.azure import bodies
from pytest_azchroot.clouds.azure.buckets import DISKS
from pytest_azchroot.clouds.azure.leftovers import RUN_TAG, Resource, resource
from pytest_azchroot.clouds.azure.refusals import AzureError, explained
from pytest_azchroot.clouds.azure.session import SWEEP, Session
from pytest_azchroot.clouds.azure.sources import GIB
from pytest_azchroot.errors import AzchrootError, DiskError
from pytest_azchroot.journal import Entry
from pytest_azchroot.leaving import Leaving, attached_to
from pytest_azchroot.spec.azure_ids import DiskId, parse_disk_id


@contextmanager
def made(session: Session, order: Order) -> Iterator[Disk]:
    """The working disk of an order. On exit it is deleted, unless ``skip_cleanup``, a wish to keep it, or something
    that is still being made of it says otherwise.

    :raises AzchrootError: Azure does not make it, or does not delete it; then it is in the journal.
    """
    spec, source = session.spec, session.resolve()
    id = bodies.disk_id(order, session.machine, session.journal.run)
    compute = session.azure.compute(id.subscription_id)
    if spec.temporary_os_disk_id is not None:
        _refuse_existing(session, id)
    body = bodies.disk_body(source, spec, session.machine, tags=session.temporary())
    entry = session.intend("disk", str(id))
    doing, make = f"making the disk {id.name}", compute.disks.begin_create_or_update
    try:
        operation = session.azure.begin(doing, make, id.resource_group, id.name, body)
    except BaseException as error:
        with attached_to(error):
            if _is_foreign(session, id):
                entry.done()
            else:
                _release(session, order, id, entry)
        raise
    with Leaving() as stack:
        stack.callback(_release, session, order, id, entry)
        found = session.wait(operation, order)
        yield Disk(
            id=str(id),
            size=_size(found),
            source=source.name,
            source_version=source.version,
        )


def keep(session: Session, order: Order, disk: Disk) -> Kept:
    """Let the disk outlive the build.

    :raises AzchrootError: Azure does not change its tags.
    """
    id = parse_disk_id(disk.id)
    compute = session.azure.compute(id.subscription_id)
    operation = session.azure.begin(
        f"keeping the disk {id.name}",
        compute.disks.begin_update,
        id.resource_group,
        id.name,
        {"tags": session.lasting()},
    )
    session.wait(operation, order)
    session.needed[disk.id] = ""
    return Kept(
        disk.id,
        enter=shlex.join(["pytest", "--azchroot-verify", disk.id, str(order.directory)]),
        remove=shlex.join(["az", "disk", "delete", "--yes", "--ids", disk.id]),
    )


def _release(session: Session, order: Order, id: DiskId, entry: Entry) -> None:
    """Delete the disk, once it is detached."""
    attachment = session.detaching.get(str(id))
    if str(id) not in session.needed and session.spec.skip_cleanup and not order.interrupted():
        keep(session, order, Disk(str(id), 0, ""))
    if str(id) in session.needed:
        if attachment is not None:
            _wait_detached(session, order, id, attachment)
        if not session.needed[str(id)]:
            entry.done()
        return
    if attachment is not None and not order.interrupted():
        _wait_detached(session, order, id, attachment)
    try:
        delete(session, order, id)
    except AzchrootError as error:
        raise DiskError(f"the disk {id.name} was not deleted", why=error.reason, hint=SWEEP) from error
    if order.interrupted():
        why = "its deletion was asked for, and not waited for"
        raise DiskError(f"the disk {id.name} may still be there", why=why, hint=SWEEP)
    entry.done()
    if attachment is not None:
        attachment.done()


def _wait_detached(session: Session, order: Order, id: DiskId, attachment: Entry) -> None:
    order.say(f"detaching the disk {id.name}")
    try:
        with session.calls.waiting(f"detaching the disk {id.name}"):
            session.wait_detached(str(id))
    except AzchrootError as error:
        raise DiskError(f"the disk {id.name} is still there", why=error.reason, hint=SWEEP) from error
    attachment.done()


def delete(session: Session, order: Order, id: DiskId) -> None:
    """Delete a disk, in whatever state it is.

    :raises AzureError: Azure does not delete it.
    """
    disks = session.azure.compute(id.subscription_id).disks

    def is_gone() -> bool:
        # Retry-After bounds the questions about the operation. That the disk is gone, any reader of it is told, and
        # such reads have a share of their own; so the deletion of half a second need not take a whole one.
        try:
            with explained(f"looking for the disk {id.name}"):
                if session.broker.may_ask(DISKS):
                    disks.get(id.resource_group, id.name)
        except AzureError as error:
            return error.is_missing  # of anything else the operation will tell
        return False

    doing = f"deleting the disk {id.name}"
    session.delete(doing, disks.begin_delete, id.resource_group, id.name, order=order, over=is_gone)


def _is_foreign(session: Session, id: DiskId) -> bool:
    """Whether there is a disk of that name that this run has not made, and so must not delete."""
    found = _found(session, id)
    return found is not None and found.tags.get(RUN_TAG) != session.journal.run


def _found(session: Session, id: DiskId) -> Resource | None:
    disks = session.azure.compute(id.subscription_id).disks
    try:
        with explained(f"looking for the disk {id.name}"):
            return resource("disk", disks.get(id.resource_group, id.name))
    except AzureError as error:
        if error.is_missing:
            return None
        raise


def _refuse_existing(session: Session, id: DiskId) -> None:
    """Somebody else's disk would be changed, and then deleted."""
    if _found(session, id) is None:
        return
    raise DiskError(
        f"there is a disk {id} already",
        why="temporary_os_disk_id names it, and it would be deleted in the end",
        hint="delete it, or leave the option out: then the name is one that nobody has",
    )


def _size(disk: object) -> int:
    """Bytes of a disk, as Azure describes it."""
    properties = disk["properties"]  # type: ignore[index]
    return int(properties.get("diskSizeBytes") or properties["diskSizeGB"] * GIB)
