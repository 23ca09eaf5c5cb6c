"""Asking Azure whether an operation has ended: briskly, under its limits, and not shaken by a question that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from azure.core.exceptions import (
    DecodeError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.polling.base_polling import OperationFailed
from azure.mgmt.core.polling.arm_polling import ARMPolling

from pytest_azchroot.clouds.azure.pace import Pace, retry_after
from pytest_azchroot.clouds.azure.retries import ASK_ONCE

_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})

_MISSING = 404
_APPEARING = 15.0
"""Seconds until what has been made is seen from all regions, as Resource Manager copies what it knows from one to
another (terraform-provider-azurerm#18268)."""
_ANSWER_WITHIN = 30.0
"""Seconds. What is asked is small, and another try costs nothing."""
_FAILED = frozenset({"failed", "canceled"})


class StoppedError(Exception):
    """Nobody asks any more."""


class Polling(ARMPolling):
    """The SDK's way to follow an operation, but at a pace of its own, until it ends or nobody wants to know.

    A question that is not answered, or is answered with 5xx or 429, says nothing about the operation: it is asked
    again, as long as somebody waits.

    :param stop: set, it ends at once with :exc:`StoppedError`.
    :param over: sees by something else that the operation has ended well. It is asked at the usual pace while Azure
        wants the operation itself to be asked about more seldom.
    """

    def __init__(self, pace: Pace, *, stop: threading.Event, over: Callable[[], bool] | None = None) -> None:
        for_each_request: dict[str, Any] = {ASK_ONCE: True, "read_timeout": _ANSWER_WITHIN}
        super().__init__(**for_each_request)
        self._pace = pace
        self._stop = stop
        self._over = over
        self._began = time.monotonic()
        self.ended = threading.Event()
        """Set when it has ended, however."""

    def run(self) -> None:
        """Of the SDK's protocol."""
        try:
            super().run()
        finally:
            self.ended.set()

    @property
    def has_failed(self) -> bool:
        """Whether Azure says so."""
        return self.status().lower() in _FAILED

    def _poll(self) -> None:
        self._rest(self._pace.first)
        while not self.finished():
            if self._pace.allow is not None and not self._pace.allow():
                self._rest(self._delay_until_next(None))
                continue
            response = self._answer(self._operation.get_polling_url())
            self._status = self._operation.get_status(response)
            if not self.finished():
                self._rest_or_end(self._delay_until_next(response))
        if self.has_failed:
            raise OperationFailed("Operation failed or canceled")
        final = self._operation.get_final_get_url(self._pipeline_response)
        if final:
            self._answer(final, appearing=_APPEARING)

    def _answer(self, url: str, *, appearing: float = 0.0) -> Any:
        """What is there, asked for until there is an answer.

        :param appearing: seconds in which "not found" is none.
        """
        deadline = time.monotonic() + appearing
        while True:
            response = None
            try:
                response = self.request_status(url)
                status = response.http_response.status_code
                if status not in _TRANSIENT and (status != _MISSING or time.monotonic() >= deadline):
                    break
            except (ServiceRequestError, ServiceResponseError, IncompleteReadError, DecodeError):
                pass
            self._rest(self._delay_until_next(response))
        self._pipeline_response = response
        if status not in {200, 201, 202, 204}:
            raise HttpResponseError(response=response.http_response)
        return response

    def _delay_until_next(self, response: Any) -> float:
        asked = None if response is None else retry_after(response.http_response.headers)
        return self._pace.delay(time.monotonic() - self._began, asked)

    def _rest_or_end(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._over is not None and (usual := self._delay_until_next(None)) < deadline - time.monotonic():
            self._rest(usual)
            if self._over():
                self._status = "Succeeded"
                return
        self._rest(max(deadline - time.monotonic(), 0.0))

    def _rest(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError
