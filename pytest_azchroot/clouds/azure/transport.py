"""How requests go to Azure: through the usual proxies, to the metadata service never; each is noted."""

from __future__ import annotations

import threading
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import requests
from azure.core.exceptions import DecodeError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest
from requests.adapters import HTTPAdapter

from pytest_azchroot.clouds.azure.calls import Calls
from pytest_azchroot.clouds.azure.metadata import ADDRESS
from pytest_azchroot.clouds.azure.refusals import explained

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
        if _is_metadata(request.url):
            proxies = {"no_proxy": urlsplit(request.url).hostname or ""}
            options.setdefault("connection_timeout", _METADATA_CONNECT_TIMEOUT)
        with self._calls.asked(request.method, request.url) as answered:
            response = super().send(request, proxies=proxies, **options)
            if options.get("stream") and hasattr(response, "read"):
                response.read()
            answered(response.status_code)
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
