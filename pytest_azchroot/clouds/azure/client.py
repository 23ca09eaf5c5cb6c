"""Azure, for one credential: everything that is asked of it goes through here."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pytest_azchroot.clouds.azure.calls import Calls
from pytest_azchroot.clouds.azure.environments import PUBLIC, Environment
from pytest_azchroot.clouds.azure.pace import BRISK, Pace
from pytest_azchroot.clouds.azure.refusals import AzureError, OperationTimeoutError, explained

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.polling import LROPoller
    from azure.mgmt.compute import ComputeManagementClient

    from pytest_azchroot.clouds.azure.polling import Polling

T = TypeVar("T")
log = logging.getLogger(__name__)


def quiet(_: str) -> None:
    """Say nothing."""


class Azure:
    """Azure, for one credential. Threads may share it.

    :param calls: where every HTTP request is noted.
    :param say: hears of long waits, a line each.
    """

    def __init__(
        self,
        credential: TokenCredential,
        *,
        environment: Environment = PUBLIC,
        calls: Calls | None = None,
        say: Callable[[str], None] = quiet,
    ) -> None:
        from pytest_azchroot.clouds.azure.transport import Transport  # noqa: PLC0415 - it brings the SDK's core

        self.environment = environment
        self.calls = Calls() if calls is None else calls
        self.allow: Callable[[], bool] | None = None
        """Asked before every question about an operation whose pace has nothing to ask; see :class:`~.pace.Pace`."""
        self._credential = credential
        self._say = say
        self._transport = Transport(self.calls)
        self._lock = threading.Lock()
        self._clients: dict[str, ComputeManagementClient] = {}
        self._operations: list[Operation[Any]] = []

    def compute(self, subscription_id: str) -> ComputeManagementClient:
        """The compute part of a subscription. What it raises is to be :func:`~.refusals.explained`."""
        with self._lock:
            if subscription_id not in self._clients:
                self._clients[subscription_id] = self._connected(subscription_id)
            return self._clients[subscription_id]

    def begin(
        self,
        doing: str,
        call: Callable[..., LROPoller[T]],
        *args: Any,
        pace: Pace = BRISK,
        over: Callable[[], bool] | None = None,
        **options: Any,
    ) -> Operation[T]:
        """Ask for something that takes time; it goes on while this thread does something else.

        :param doing: for people, as in ``creating disk x``.
        :param call: like ``azure.compute(…).disks.begin_create_or_update``, and its arguments.
        :param over: see :class:`~.polling.Polling`.
        :raises AzureError: it is refused at once, or nobody answers.
        """
        from pytest_azchroot.clouds.azure.polling import Polling  # noqa: PLC0415 - it brings the SDK's core

        stop = threading.Event()
        polling = Polling(pace if pace.allow else replace(pace, allow=self.allow), stop=stop, over=over)
        with explained(doing):
            poller = call(*args, polling=polling, **options)
        operation = Operation(doing, poller, polling, stop=stop, calls=self.calls)
        with self._lock:
            self._operations = [*(each for each in self._operations if not each.done()), operation]
        return operation

    def close(self) -> None:
        """Stop asking about operations, and let go of all connections."""
        with self._lock:
            for operation in self._operations:
                operation.cancel()
            self._clients.clear()
        self._transport.close()

    def _connected(self, subscription_id: str) -> ComputeManagementClient:
        from azure.mgmt.compute import ComputeManagementClient  # noqa: PLC0415 - it is slow to import

        from pytest_azchroot.clouds.azure.retries import Retries  # noqa: PLC0415 - it brings the SDK's core

        return ComputeManagementClient(
            self._credential,
            subscription_id,
            base_url=self.environment.resource_manager,
            credential_scopes=[self.environment.scope],
            retry_policy=Retries(self._say),
            transport=self._transport,
            user_agent=f"pytest-azchroot/{version('pytest-azchroot')}",
        )


class Operation(Generic[T]):
    """Something that Azure does, and takes its time for."""

    def __init__(
        self, doing: str, poller: LROPoller[T], polling: Polling, *, stop: threading.Event, calls: Calls
    ) -> None:
        self.doing = doing
        self._poller = poller
        self._polling = polling
        self._stop = stop
        self._calls = calls
        self._began = time.monotonic()

    def done(self) -> bool:
        """Whether it has ended, well or not, as far as is known. Asks nobody."""
        return self._poller.done()

    def wait_done(self, seconds: float) -> bool:
        """Give it some seconds to end; whether it has. Later waits are possible."""
        return self._poller.done() or self._polling.ended.wait(seconds)

    def wait(self, timeout: float) -> T:
        """Wait until it has ended; returns what it made, as a mapping.

        :param timeout: seconds from now. After it nobody asks any more.
        :raises OperationTimeoutError: it has not ended yet.
        :raises AzureError: it failed.
        """
        from pytest_azchroot.clouds.azure.polling import StoppedError  # noqa: PLC0415 - it brings the SDK's core

        with self._calls.waiting(self.doing):
            ended = self.wait_done(timeout)
        if not ended:
            self.cancel()
            raise OperationTimeoutError(
                f"{self.doing} did not end within {timeout:g} s",
                why=f"Azure says {self._polling.status()!r} after {time.monotonic() - self._began:.0f} s",
                hint="it may end yet: look at the resource in Azure before you try again",
            )
        with explained(self.doing):
            try:
                result = self._poller.result()
            except StoppedError as stopped:
                what = f"{self.doing}: nobody asks about it any more"
                raise AzureError(what, hint="Azure goes on with it") from stopped
        if self._polling.has_failed:  # the SDK overlooks it where the first answer says so
            raise AzureError(f"{self.doing} failed", why=f"Azure says {self._polling.status()!r}, and not why")
        return result

    def cancel(self) -> None:
        """Stop asking about it. Azure goes on with it."""
        self._stop.set()
