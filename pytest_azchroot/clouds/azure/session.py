"""What the build of one image has of Azure: the machine, a way to ask, the journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from pytest_azchroot.clouds import Account, Order
from pytest_azchroot.clouds.azure.broker import Broker
from pytest_azchroot.clouds.azure.calls import Calls
from pytest_azchroot.clouds.azure.client import Azure, Operation
from pytest_azchroot.clouds.azure.leftovers import EXPIRES_TAG, HOST_TAG, RUN_TAG
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.refusals import AzureError, OperationTimeoutError
from pytest_azchroot.clouds.azure.sources import Source, resolve
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.journal import Entry, Journal
from pytest_azchroot.spec import ImageSpec

T = TypeVar("T")

EXPIRY = timedelta(hours=24)
"""How long what is temporary may live, at least, before any sweep, of any host, takes it for forgotten."""

_SLICE = 0.2
"""Seconds between two looks whether the user wants to leave."""
_AGAIN = 0.5
"""Seconds until something is asked again that a resource was too busy for."""
_INSISTING = 60.0
"""Seconds for which it is asked again."""

SWEEP = "`azchroot sweep` removes it"


@dataclass
class Session:
    """One image's business with Azure. Threads may share it."""

    machine: Machine
    azure: Azure
    calls: Calls
    broker: Broker
    journal: Journal
    spec: ImageSpec
    source: Source | None = None
    """Once it is resolved."""
    recipe: str = ""
    """What the image is made by (:mod:`.recipe`), taken before the first test: files may change while they run."""
    detaching: dict[str, Entry] = field(default_factory=dict)
    """What was asked to be detached, by the disk's id."""
    stuck: dict[str, AzchrootError] = field(default_factory=dict)
    """Why disks were not detached, by id."""
    needed: dict[str, str] = field(default_factory=dict)
    """Disks that must outlive the build, by id, and why."""

    def resolve(self) -> Source:
        """The source, once."""
        if self.source is None:
            self.source = resolve(self.azure, self.spec, self.machine)
        return self.source

    @property
    def patience(self) -> float:
        """Seconds that an operation may take."""
        return self.spec.polling_duration_timeout

    def temporary(self) -> dict[str, str]:
        """Tags of what is to be deleted again: whose it is, and when it is nobody's any more."""
        # What takes longer than a day may be made of it, which has twice its time (`until` in the journal).
        lasting = timedelta(seconds=3 * self.spec.shared_image_gallery_timeout)
        expires = datetime.now(timezone.utc) + max(EXPIRY, lasting)
        return {
            **self.lasting(),
            HOST_TAG: self.machine.vm_id,
            EXPIRES_TAG: f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        }

    def lasting(self) -> dict[str, str]:
        """Tags of what stays."""
        return {RUN_TAG: self.journal.run}

    def intend(self, kind: str, id: str, **facts: str) -> Entry:
        """Write down what is about to be asked for."""
        where = {"environment": self.azure.environment.name}
        if self.spec.metadata_host is not None:
            where = {"metadata_host": self.spec.metadata_host}
        return self.journal.intend(kind, id, subscription=self.machine.subscription_id, **where, **facts)

    def wait(self, operation: Operation[T], order: Order, *, timeout: float | None = None) -> T:
        """Wait for an operation, as long as the user does.

        :param timeout: seconds; :attr:`patience` where it is not given.
        :raises OperationTimeoutError: it has not ended.
        :raises AzureError: it has failed.
        :raises AzchrootError: the user wants to leave.
        """
        patience = self.patience if timeout is None else timeout
        deadline = time.monotonic() + patience
        order.say(operation.doing)
        with self.calls.waiting(operation.doing):
            while not operation.wait_done(min(_SLICE, max(0.0, deadline - time.monotonic()))):
                if order.interrupted():
                    operation.cancel()
                    raise AzchrootError(f"{operation.doing} was interrupted")
                if time.monotonic() >= deadline:
                    break
        try:
            return operation.wait(0)
        except OperationTimeoutError as error:
            late = f"{operation.doing} did not end within {patience:g} s"
            raise OperationTimeoutError(late, why=error.why, hint=error.hint) from error

    def insist(self, ask: Callable[[], T], order: Order) -> T:
        """Ask until the resource is not busy any more: with it, or with what it is part of, something else goes on.

        :raises AzureError: it was refused for another reason, or is busy still.
        """
        deadline = time.monotonic() + _INSISTING
        pause = _AGAIN
        while True:
            try:
                return ask()
            except AzureError as error:
                if not error.is_busy or order.interrupted() or time.monotonic() + pause > deadline:
                    raise
            with self.calls.waiting("something else to end"):
                time.sleep(pause)
            pause = min(pause * 1.5, 10.0)

    def delete(
        self, doing: str, call: Callable[..., Any], *names: str, order: Order, over: Callable[[], bool] | None = None
    ) -> None:
        """Delete something that may be busy, or half made, or not there at all.

        When the user wants to leave it is asked for once, and not waited for.

        :param call: of Azure's client, which takes these names.
        :param over: as in :meth:`.Azure.begin`.
        :raises AzureError: Azure does not delete it.
        """

        def ask() -> None:
            operation: Operation[Any] = self.azure.begin(doing, call, *names, over=over)
            if order.interrupted():
                operation.cancel()
            else:
                self.wait(operation, order)

        try:
            self.insist(ask, order)
        except AzureError as error:
            if not error.is_missing:
                raise

    def wait_detached(self, disk_id: str) -> None:
        """Wait until a disk is detached whose detaching was asked for.

        :raises AzchrootError: it was refused, has failed, or does not end.
        """
        if disk_id in self.stuck:
            raise self.stuck[disk_id]
        self.broker.wait_detached(disk_id, timeout=self.patience)

    def account(self) -> Account:
        """What has been asked so far."""
        return Account(self.calls.count, self.calls.seconds, sum(each.seconds for each in self.calls.waits))


def until(seconds: float) -> str:
    """The time in so many seconds, as the journal has it."""
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()
