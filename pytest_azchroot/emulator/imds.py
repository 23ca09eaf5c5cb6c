"""The instance metadata service, as a machine sees it at 169.254.169.254.

Source: "Azure Instance Metadata Service" (https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service)
and "How to use managed identities on a virtual machine to acquire an access token". Texts of errors that these do not
have are marked unsure.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from .http import Request, Response
from .instance import VERSIONS, Interface, instance
from .tokens import IdentityError, ManagedIdentities

ADDRESS = "169.254.169.254"

NEWEST = tuple(reversed(VERSIONS[-3:]))
"""What an error about the version recommends."""

EVENT_VERSIONS = ("2017-03-01", "2017-08-01", "2017-11-01", "2019-01-01", "2019-04-01", "2019-08-01", "2020-07-01")
"""Versions of scheduled events, which has some of its own."""

DOCUMENT_LIFETIME = timedelta(hours=6)
"""For how long an attested document holds."""

_SKU_ATTESTED = "2019-11-01"
_SUBSCRIPTION_ATTESTED = "2019-04-30"


@dataclass(frozen=True)
class Limits:
    """How many requests a machine may make, as documented; the rest is answered 429."""

    per_second: int = 5
    identity_per_second: int = 20
    identity_at_once: int = 5


DOCUMENTED = Limits()
NO_LIMITS = Limits(per_second=1 << 30, identity_per_second=1 << 30, identity_at_once=1 << 30)


class Refused(Exception):  # noqa: N818 - it is an answer
    """A request that the service answers with an error: status and body."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(status, body)
        self.response = Response.of_json(status, body)


class Imds:
    """The metadata service of one machine.

    :param vm: the machine as Resource Manager shows it now.
    :param identities: what it can have tokens for.
    :param sign: the PKCS #7 signature, in DER, around an attested document; None leaves these out.
    :param fetching: called while a token is fetched, where a real one takes its time.
    :param clock: a monotonic time in seconds, for the limits.
    """

    def __init__(
        self,
        vm: Callable[[], Mapping[str, Any]],
        identities: ManagedIdentities,
        *,
        interfaces: Sequence[Interface] = (Interface(),),
        limits: Limits = DOCUMENTED,
        sign: Callable[[bytes], bytes] | None = None,
        fetching: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vm = vm
        self._identities = identities
        self._interfaces = tuple(interfaces)
        self._sign = sign
        self._fetching = fetching
        self._metadata_rate = _Rate(limits.per_second, clock)
        self._identity_rate = _Rate(limits.identity_per_second, clock, at_once=limits.identity_at_once)

    def handle(self, request: Request) -> Response | None:
        """The answer; None if the request is not for this service, by its path or its address."""
        is_ours = f"{request.path.lower()}/".startswith("/metadata/") or request.host.partition(":")[0] == ADDRESS
        # Resource Manager has one path there, which tells clients about the cloud's endpoints
        return self.answer(request) if is_ours and request.path.lower() != "/metadata/endpoints" else None

    def answer(self, request: Request) -> Response:
        """The answer to any request."""
        parts = [part for part in request.path.split("/") if part][1:]
        category = parts[0].lower() if parts else ""
        rate = self._identity_rate if category == "identity" else self._metadata_rate
        try:
            with rate.used():
                _check_headers(request, category)
                return self._category(category, request, parts[1:])
        except Refused as refusal:
            return refusal.response

    def _category(self, category: str, request: Request, rest: Sequence[str]) -> Response:
        if category == "versions" and not rest:
            _check_method(request)
            return Response.of_json(200, {"apiVersions": list(VERSIONS)})
        if category == "instance":
            return self._instance(request, rest)
        if category == "identity":
            return self._identity(request, [part.lower() for part in rest])
        if category == "attested" and [part.lower() for part in rest] == ["document"] and self._sign:
            return self._attested(request, self._sign)
        if category == "scheduledevents" and not rest:
            _check_method(request)
            _version(request, EVENT_VERSIONS, EVENT_VERSIONS[0])
            return Response.of_json(200, {"DocumentIncarnation": 1, "Events": []})
        raise Refused(404, {"error": "Not found"})

    def _instance(self, request: Request, keys: Sequence[str]) -> Response:
        _check_method(request)
        version = _version(request, VERSIONS, "2017-04-02")
        form = (request.value("format") or "json").lower()
        found = _below(instance(self._vm(), self._interfaces, version), keys)
        if form == "text":
            return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, _listed(found).encode())
        if form != "json":
            raise Refused(400, {"error": "Bad request. Unknown format"})  # unsure
        if isinstance(found, str):
            # documented: a leaf has no JSON form; the text is unsure
            raise Refused(400, {"error": "Bad request. The requested element is a leaf: format=text is required"})
        return Response.of_json(200, found)

    # -- identity: errors are those of OAuth 2.0

    def _identity(self, request: Request, rest: Sequence[str]) -> Response:
        if list(rest) not in (["oauth2", "token"], ["info"]):
            raise Refused(404, {"error": "Not found"})
        _check_method(request)
        if not request.value("api-version"):
            raise _invalid_request("Required query variable 'api-version' is missing")
        if list(rest) == ["info"]:
            if self._identities.tenant_id is None:
                raise _invalid_request("Identity not found")
            return Response.of_json(200, {"tenantId": self._identities.tenant_id})
        resource = request.value("resource")
        if not resource:
            raise _invalid_request("Required query variable 'resource' is missing")
        client_id, object_id = request.value("client_id"), request.value("object_id")
        resource_id = request.value("msi_res_id") or request.value("mi_res_id")
        if sum(map(bool, (client_id, object_id, resource_id))) > 1:
            raise _invalid_request("client_id, object_id and msi_res_id are mutually exclusive")  # unsure
        self._fetching()
        try:
            principal, token = self._identities.token(
                resource, client_id=client_id, object_id=object_id, resource_id=resource_id
            )
        except IdentityError as error:
            raise _invalid_request(str(error)) from error
        lifetime = token.expires_on - token.not_before
        body = {
            "access_token": token.value,
            "client_id": principal.client_id,
            "expires_in": str(lifetime),
            "expires_on": str(token.expires_on),
            "ext_expires_in": str(lifetime - 1),
            "not_before": str(token.not_before),
            "resource": resource,
            "token_type": "Bearer",
        }
        return Response.of_json(200, body)

    def _attested(self, request: Request, sign: Callable[[bytes], bytes]) -> Response:
        """A signed statement of which machine this is, until it expires."""
        _check_method(request)
        version = _version(request, VERSIONS, "2018-10-01")
        compute = instance(self._vm(), (), VERSIONS[-1])["compute"]
        now = datetime.now(timezone.utc)
        times = {"createdOn": now, "expiresOn": now + DOCUMENT_LIFETIME}
        document = {
            "licenseType": compute["licenseType"],
            "nonce": request.value("nonce") or f"{now:%Y%m%d-%H%M%S}",
            "plan": compute["plan"],
            "timeStamp": {name: f"{when:%m/%d/%y %H:%M:%S} -0000" for name, when in times.items()},
            "vmId": compute["vmId"],
        }
        if version >= _SUBSCRIPTION_ATTESTED:
            document["subscriptionId"] = compute["subscriptionId"]
        if version >= _SKU_ATTESTED:
            document["sku"] = compute["sku"]
        signature = base64.b64encode(sign(json.dumps(document).encode())).decode()
        return Response.of_json(200, {"encoding": "pkcs7", "signature": signature})


class _Rate:
    """At most so many requests in any second, and so many at once."""

    def __init__(self, per_second: int, clock: Callable[[], float], *, at_once: int = 1 << 30) -> None:
        self._clock = clock
        self._at_once = at_once
        self._lock = threading.Lock()
        self._running = 0
        self._per_second = per_second
        self._taken: deque[float] = deque()

    @contextmanager
    def used(self) -> Iterator[None]:
        """:raises Refused: 429; what is refused does not count."""
        with self._lock:
            now = self._clock()
            while self._taken and now - self._taken[0] >= 1:
                self._taken.popleft()
            if len(self._taken) >= self._per_second or self._running >= self._at_once:
                raise Refused(429, {"error": "Too many requests"})
            self._taken.append(now)
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1


def _check_headers(request: Request, category: str) -> None:
    """What proves that nobody was made to pass a request on: documented; two of the texts are unsure."""
    if (request.header("metadata") or "").lower() != "true":
        raise _bad(category, "Required metadata header not specified")
    if request.header("x-forwarded-for") is not None:
        raise _bad(category, "X-Forwarded-For header must not be specified")
    names = [name.lower() for name, _ in request.query]
    if len(names) != len(set(names)):
        raise _bad(category, "Duplicate query parameters are not allowed")


def _bad(category: str, text: str) -> Refused:
    return _invalid_request(text) if category == "identity" else Refused(400, {"error": f"Bad request. {text}"})


def _invalid_request(text: str) -> Refused:
    return Refused(400, {"error": "invalid_request", "error_description": text})


def _check_method(request: Request) -> None:
    if request.method != "GET":
        raise Refused(405, {"error": "Not allowed"})


def _version(request: Request, known: Sequence[str], first: str) -> str:
    version = request.value("api-version")
    if version is None or version not in known or version < first:
        text = (
            "Bad request. api-version is invalid or was not specified in the request. For more information refer to "
            "aka.ms/azureimds"
        )
        raise Refused(400, {"error": text, "newest-versions": list(NEWEST)})
    return version


def _below(value: Any, keys: Sequence[str]) -> Any:
    """What the keys of a path lead to: names without case in objects, numbers in lists."""
    for key in keys:
        if isinstance(value, dict):
            name = next((each for each in value if each.lower() == key.lower()), None)
            if name is None:
                raise Refused(404, {"error": "Not found"})
            value = value[name]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise Refused(404, {"error": "Not found"})
    return value


def _listed(value: Any) -> str:
    """The form `text`: a leaf is its value; anything else lists what is below, a slash after what has more below."""
    if isinstance(value, str):
        return value
    names = value.items() if isinstance(value, dict) else enumerate(value)
    return "\n".join(f"{name}" if isinstance(part, str) else f"{name}/" for name, part in names)
