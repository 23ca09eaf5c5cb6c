"""Tags at a scope: ``…/providers/Microsoft.Resources/tags/default`` of a resource or a group, as ``az tag`` asks."""

from __future__ import annotations

from . import errors
from .azure import Azure, Call, section
from .http import Response
from .state import Json, Resource

_SUFFIX = "/providers/microsoft.resources/tags/default"


def scope_of(path: str) -> str | None:
    """The id whose tags a path names; None if it is no such path."""
    trimmed = path.rstrip("/")
    return trimmed[: -len(_SUFFIX)] if trimmed.lower().endswith(_SUFFIX) else None


def handle(azure: Azure, call: Call, scope: str) -> Response:
    """GET, PUT (replace), PATCH (merge, replace or delete), DELETE.

    :raises ArmError: there is no such resource, or it is asked for something else.
    """
    found = azure.resource(scope)
    old, method = dict(found.body.get("tags") or {}), call.request.method
    asked = section(section(call.body, "properties"), "tags")
    if method == "GET":
        return _shown(found, old)
    if method == "PUT":
        return _stored(azure, found, asked)
    if method == "DELETE":
        _stored(azure, found, {})
        return Response(200)
    if method == "PATCH":
        return _stored(azure, found, _changed(old, asked, str(call.body.get("operation") or "").lower()))
    raise errors.not_allowed(method)


def _changed(old: Json, asked: Json, operation: str) -> Json:
    if operation == "merge":
        return {**old, **asked}
    if operation == "replace":
        return asked
    if operation == "delete":  # only those with this value
        return {name: value for name, value in old.items() if asked.get(name) != value}
    raise errors.invalid("operation", operation)


def _stored(azure: Azure, found: Resource, tags: Json) -> Response:
    found.body["tags"] = tags
    return _shown(azure.state.put(found), tags)


def _shown(found: Resource, tags: Json) -> Response:
    body = {
        "id": f"{found.id}/providers/Microsoft.Resources/tags/default",
        "name": "default",
        "type": "Microsoft.Resources/tags",
        "properties": {"tags": tags},
    }
    return Response.of_json(200, body)
