"""Azure Resource Manager: from a request to the handler of its resource type."""

from __future__ import annotations

import logging
from collections.abc import Callable

from . import access, catalog, disks, errors, galleries, groups, images, machines, tags, versions
from .azure import Azure, Call, Handler, Routes, read_body
from .errors import ArmError
from .http import Request, Response
from .operations import Work
from .paths import COMPUTE, ArmPath, parse

log = logging.getLogger(__name__)

ROUTES: Routes = {
    **disks.routes(),
    **access.routes(),
    **images.routes(),
    **galleries.routes(),
    **versions.routes(),
    **machines.routes(),
    **catalog.routes(),
}
"""Everything of Microsoft.Compute that is answered, by method and kind."""

_OPERATIONS = frozenset({"locations/diskoperations", "locations/operations", "locations/capsoperations"})
_TOP = ("/subscriptions", "/tenants", "/providers")

Authorize = Callable[[Request], object]
"""Lets a request pass or raises an :class:`ArmError`."""


def works(azure: Azure) -> dict[str, Work]:
    """What all operations do, by kind."""
    found: dict[str, Work] = {}
    for module in (disks, access, images, galleries, versions, machines, groups):
        found |= module.works(azure)
    return found


def route(path: ArmPath) -> str:
    """What of a path chooses the handler."""
    return path.kind if path.whole else f"{path.kind}/*"


def call_name(request: Request) -> str:
    """What a call is, for logs, faults and limits: ``PUT disks``, ``GET operations``, else method and path."""
    path = parse(request.path)
    if tags.scope_of(request.path) is not None:
        return f"{request.method} tags"
    if path is None or not path.types:
        what = "subscriptions" if path is not None and not path.rest else request.path
        return f"{request.method} {'resourceGroups' if path is not None and path.group else what}"
    types = "/".join(path.types).removeprefix("locations/")
    return f"{request.method} {types}"


class ResourceManager:
    """Answers requests to ``management.azure.com``."""

    def __init__(self, azure: Azure, authorize: Authorize) -> None:
        self._azure = azure
        self._authorize = authorize

    def handle(self, request: Request) -> Response | None:
        """The answer; None if the path is none of Resource Manager's."""
        if not request.path.lower().startswith(_TOP):
            return None
        try:
            return self._answer(request)
        except ArmError as error:
            return error.response
        except Exception:
            log.exception("%s %s", request.method, request.path)
            raise

    def _answer(self, request: Request) -> Response:
        self._authorize(request)
        if not request.value("api-version"):
            raise errors.no_api_version()
        azure = self._azure
        top = groups.top(azure, request.path)
        if top is not None:
            return top
        path = parse(request.path)
        if path is None or path.subscription is None:
            raise ArmError(404, "NotFound", f"'{request.path}' was not found.")
        if path.subscription.lower() != azure.settings.subscription.lower():
            raise errors.no_subscription(path.subscription)
        if path.whole and path.kind in _OPERATIONS and request.method == "GET":
            return azure.operations.answer(path.name, request)
        call = Call(request, path, read_body(request))
        with azure.state.change():
            return self._route(call)

    def _route(self, call: Call) -> Response:
        azure, path = self._azure, call.path
        scope = tags.scope_of(path.text)
        if scope is not None:
            return tags.handle(azure, call, scope)
        if path.provider is None:
            found = groups.below_subscription(azure, call)
            if found is None:
                raise ArmError(404, "NotFound", f"The resource '{path.text}' was not found.")
            return found
        if path.provider.lower() != COMPUTE.lower():
            text = f"The resource namespace '{path.provider}' is invalid."
            raise ArmError(404, "InvalidResourceNamespace", text)
        return self._handler(call)(azure, call)

    def _handler(self, call: Call) -> Handler:
        kind = route(call.path)
        found = ROUTES.get((call.request.method, kind))
        if found is not None:
            return found
        if any(each == kind for _, each in ROUTES):
            raise errors.not_allowed(call.request.method)
        raise errors.unknown_type(call.path)
