"""The disk on this machine: attached, found as a block device, and detached again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_azchroot.clouds import Attachment, Disk, Order
from pytest_azchroot.clouds.azure import device
from pytest_azchroot.clouds.azure.session import Session
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.leaving import Leaving


@contextmanager
def made(session: Session, order: Order, disk: Disk, *, timeout: float) -> Iterator[Attachment]:
    """The disk as a block device, as soon as there is one: the operation may take longer. On exit its detaching is
    asked for and not waited for.

    :param timeout: seconds until the device is there.
    :raises AzureError: Azure does not attach it.
    :raises DiskError: it does not become a device.
    """
    before = device.snapshot()
    if disk.id not in session.detaching:  # else it comes back, and nobody has seen it leave
        session.detaching[disk.id] = session.intend("attachment", disk.id, vm=session.machine.resource_id)
    with Leaving() as stack:
        stack.callback(_detach, session, order, disk)
        order.say("waiting to attach the disk")

        def stay() -> None:
            if order.interrupted():
                raise AzchrootError("attaching the disk was interrupted")

        def check() -> None:
            stay()
            attaching.check()

        # Never a write cache of the machine's host: publishing begins before the disk is detached.
        caching = "ReadOnly" if session.spec.os_disk_cache_type == "ReadWrite" else session.spec.os_disk_cache_type
        attaching = session.broker.attach(disk.id, caching=caching, timeout=session.patience, check=stay)
        with session.calls.waiting("attaching the disk"):
            path = device.wait_for(attaching.lun, size=disk.size, before=before, timeout=timeout, check=check)
        yield Attachment(path, lun=attaching.lun)


def _detach(session: Session, order: Order, disk: Disk) -> None:
    """That a disk does not leave is told by who needs it gone: what is on it is whole, and may be published."""
    try:
        session.broker.detach(disk.id, timeout=session.patience, hurry=order.interrupted)
    except AzchrootError as error:
        session.stuck[disk.id] = error
    else:
        session.stuck.pop(disk.id, None)
