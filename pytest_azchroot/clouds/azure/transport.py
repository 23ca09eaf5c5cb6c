"""How requests go to Azure: through the usual proxies, to the metadata service never; each is noted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import requests
from azure.core.exceptions import AzureError as SdkError
from azure.core.exceptions import DecodeError, HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest
from requests.adapters import HTTPAdapter

from pytest_azchroot.clouds.azure.calls import Calls, resource_name
from pytest_azchroot.clouds.azure.metadata import ADDRESS
from pytest_azchroot.clouds.azure.refusals import clean, explained
from pytest_azchroot.clouds.azure.retries import was_sent

log = logging.getLogger(__name__)

_CONNECTIONS = 32
"""At once: more threads than any build has."""
_CONNECT_TIMEOUT, _READ_TIMEOUT = 10.0, 120.0
"""Seconds. Resource Manager answers within a minute, or with 503 and 504."""
_METADATA_CONNECT_TIMEOUT = 2.0
"""Seconds. It is on the same host; on others, nobody is there."""


class Transport(RequestsTransport):  # type: ignore[misc]  # the SDK hides its type
    """Requests over connections that are kept, for all threads of a build.

    :param calls: where each request is noted.
    """

    def __init__(self, calls: Calls) -> None:
        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
        super().__init__(session=session, connection_timeout=_CONNECT_TIMEOUT, read_timeout=_READ_TIMEOUT)
        self._calls = calls
        self._closed = threading.Event()

    def send(self, request: Any, *, proxies: MutableMapping[str, str] | None = None, **options: Any) -> Any:
        """Send a request; its answer is read whole, so that one that breaks off can be asked for again."""
        if not _is_metadata(request.url):
            return self._sent(request, proxies=proxies, **options)
        proxies = {"no_proxy": urlsplit(request.url).hostname or ""}
        options.setdefault("connection_timeout", _METADATA_CONNECT_TIMEOUT)
        try:
            return self._sent(request, proxies=dict(proxies), **options)
        except (ServiceRequestError, ServiceResponseError) as error:
            # azure-identity takes one connection that breaks for there being no service, and tries no second time
            if not was_sent(error):
                raise
            return self._sent(request, proxies=proxies, **options)

    def _sent(self, request: Any, **options: Any) -> Any:
        began, told = time.monotonic(), f"{request.method} {resource_name(request.url)}"
        try:
            with self._calls.asked(request.method, request.url) as answered:
                response = super().send(request, **options)
                if options.get("stream") and hasattr(response, "read"):
                    response.read()
                answered(response.status_code)
        except SdkError as error:
            log.info("%s: no answer (%s)", told, clean(str(error.message)))
            raise
        log.info("%s: %d in %.3f s", told, response.status_code, time.monotonic() - began)
        return response

    def sleep(self, duration: float) -> None:
        """Wait, but not longer than until it is closed."""
        self._closed.wait(duration)

    def close(self) -> None:
        """Let go of all connections, and wake who sleeps."""
        self._closed.set()
        super().close()


def ask(url: str, query: Mapping[str, str], *, headers: Mapping[str, str] | None = None) -> Any:
    """One GET, without a credential.

    :return: the answer, an :class:`azure.core.rest.HttpResponse`.
    :raises azure.core.exceptions.AzureError: nobody answered.
    """
    with Transport(Calls()) as transport:
        request = HttpRequest("GET", url, params=dict(query), headers=dict(headers or {}))
        return transport.send(request, stream=True)


def get_json(url: str, query: Mapping[str, str], *, doing: str, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON that an address answers with.

    :raises AzureError: it answers with something else, or not.
    """
    with explained(doing):
        response = ask(url, query, headers=headers)
        if response.status_code >= 400:
            raise HttpResponseError(response=response)
        try:
            return response.json()
        except ValueError as error:
            raise DecodeError("the answer is no JSON", response=response) from error


def _is_metadata(url: str) -> bool:
    parts = urlsplit(url)
    return parts.hostname == urlsplit(ADDRESS).hostname or parts.path.startswith("/metadata/identity/")
