"""The cloud ``azure``: a managed disk, attached to the virtual machine that this is, becomes a managed image, a gallery
image version, or both.

What is asked of Azure is in the journal before it is asked. What can run side by side does: the device is used when it
is there, whatever the operation that attaches the disk says; publishing does not wait for the disk to be detached, and
the disk is deleted when both are done.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_azchroot.clouds import Account, Artifact, Attachment, Disk, Kept, Order, Sent
from pytest_azchroot.clouds.azure import loading
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.journal import Journal
from pytest_azchroot.leaving import Leaving
from pytest_azchroot.spec import BUILTIN_CLOUDS

if TYPE_CHECKING:
    from pytest_azchroot.clouds.azure.credentials import Steady
    from pytest_azchroot.clouds.azure.session import Session

# ruff: noqa: PLC0415  Azure's SDKs take half a second to load: not before they are needed

_ATTACHING = 180.0
"""Seconds until an attached disk is a block device; as long as azure-chroot waits."""


class AzureCloud:
    """Managed disks of Azure. One for a session of pytest: what it knows of the machine is asked once."""

    name = "azure"
    options = BUILTIN_CLOUDS["azure"]

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._machine: Machine | None = None
        self._journal: Journal | None = None
        self._credentials: dict[object, Steady] = {}
        self._sessions: dict[Path, Session] = {}
        self._journals: dict[str, Path] = {}
        """Of earlier runs whose artifacts are taken up."""

    # -- before anything is made

    def machine(self, order: Order) -> Machine:
        """The virtual machine that this is.

        :raises UnavailableError: this is none of Azure's.
        """
        from pytest_azchroot.clouds.azure import metadata

        with self._lock:
            if self._machine is None:
                self._machine = metadata.machine()
            return self._machine

    def preflight(self, order: Order) -> Iterable[str]:
        """What would fail later and can be known now, a sentence each. Makes nothing."""
        session = self._session(order)
        from pytest_azchroot.clouds.azure import preflight, recipe

        session.recipe = recipe.fingerprint(order) if order.publish else ""
        found = preflight.preflight(session.azure, order, session.machine, room=session.broker.room)
        session.source = found.source
        return found.problems

    def sent(self, order: Order) -> Sent | None:
        """A gallery image version that an earlier run of this machine has tested and sent, and not seen complete."""
        machine = self.machine(order)
        loading.load()
        from pytest_azchroot.clouds.azure import pending

        found = pending.find(order, machine)
        if found is None:
            return None
        sent, self._journals[found[0].run] = found
        return sent

    def account(self, order: Order) -> Account:
        """What an image has asked of Azure."""
        with self._lock:
            session = self._sessions.get(order.directory)
        return session.account() if session else Account(0, 0.0, 0.0)

    def close(self) -> None:
        """End the session: connections, and the journal, which goes where nothing is left.

        :raises AzchrootError: the journal cannot be removed.
        """
        with self._lock, Leaving() as stack:
            if self._journal is not None:
                stack.callback(self._journal.close)
            for credential in self._credentials.values():
                stack.callback(credential.close)
            for session in self._sessions.values():
                stack.callback(session.azure.close)
            self._sessions.clear()
            self._credentials.clear()
            self._journal = None

    # -- the way in

    @contextmanager
    def create(self, order: Order) -> Iterator[Disk]:
        """Make the disk; on exit delete it, unless it is kept, or something that is being made still needs it.

        :raises AzchrootError: Azure does not make it.
        """
        from pytest_azchroot.clouds.azure import disks

        with disks.made(self._session(order), order) as disk:
            yield disk

    @contextmanager
    def attach(self, order: Order, disk: Disk) -> Iterator[Attachment]:
        """Attach the disk, and use the device as soon as it is there. On exit ask for its detaching, and do not wait.

        :raises AzchrootError: Azure does not attach it, or the device does not appear.
        """
        from pytest_azchroot.clouds.azure import attachments

        with attachments.made(self._session(order), order, disk, timeout=_ATTACHING) as attachment:
            yield attachment

    # -- the way out

    def publish(self, order: Order, disk: Disk) -> Sequence[Artifact]:
        """Make what the order asks for of the closed disk, all or nothing, side by side.

        :raises PublishError: nothing, or not everything, was published; says which.
        """
        from pytest_azchroot.clouds.azure import publishing

        return publishing.publish(self._session(order), order, disk)

    def take_up(self, order: Order, sent: Sent) -> Sequence[Artifact]:
        """Wait for what an earlier run has sent.

        :raises PublishError: it does not become complete.
        """
        from pytest_azchroot.clouds.azure import pending

        return pending.take_up(self._session(order), order, sent, self._journals[sent.run])

    def keep(self, order: Order, disk: Disk) -> Kept:
        """Let the detached disk outlive the build: it loses the tag that makes it forgotten one day.

        :raises AzchrootError: Azure does not change its tags.
        """
        from pytest_azchroot.clouds.azure import disks

        return disks.keep(self._session(order), order, disk)

    # -- helpers

    def _session(self, order: Order) -> Session:
        with self._lock:
            loading.load()
            if order.directory not in self._sessions:
                self._sessions[order.directory] = self._begin(order)
            return self._sessions[order.directory]

    def _begin(self, order: Order) -> Session:
        from pytest_azchroot.clouds.azure import credentials, environments
        from pytest_azchroot.clouds.azure.broker import Broker
        from pytest_azchroot.clouds.azure.calls import Calls
        from pytest_azchroot.clouds.azure.client import Azure
        from pytest_azchroot.clouds.azure.session import Session

        spec, machine = order.configuration.spec, self.machine(order)
        environment = environments.environment(spec, machine)
        key = tuple(getattr(spec, name) for name in credentials.OPTIONS)
        if key not in self._credentials:
            self._credentials[key] = credentials.credential(spec, machine, environment)
        calls = Calls()
        azure = Azure(self._credentials[key], environment=environment, calls=calls, say=order.say)
        if self._journal is None:
            self._journal = Journal.begin(host=machine.vm_id)
        broker = Broker(azure, machine, say=order.say)
        azure.allow = broker.may_ask
        return Session(machine, azure, calls, broker, self._journal, spec)
