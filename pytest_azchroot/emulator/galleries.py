"""Compute galleries and their image definitions. Their versions are in :mod:`.versions`."""

from __future__ import annotations

import uuid

from . import errors
from .azure import Azure, Call, Routes, begin, got, listed, require_group, section
from .http import Response
from .operations import GALLERIES, Work
from .state import Json, Resource

GALLERY, DEFINITION, VERSION = "galleries", "galleries/images", "galleries/images/versions"
NAMES = {GALLERY: "galleries", DEFINITION: "definitions"}
"""What operations are called by kind."""
_REQUIRED = ("osType", "osState", "identifier")
_FIXED = ("osType", "osState", "hyperVGeneration", "architecture")


def put(azure: Azure, call: Call) -> Response:
    """Make or change a gallery or a definition."""
    old = azure.state.get(call.path.text)
    body = begin(azure, call)
    kind = call.path.kind
    if kind == DEFINITION and azure.state.get(call.path.parent_id) is None:
        raise errors.no_parent(call.path)
    asked = section(call.body, "properties")
    before = {} if old is None else old.properties
    if kind == DEFINITION:
        _check_definition(asked, before)
        asked = {"hyperVGeneration": "V1", "architecture": "x64", **_without_none(asked)}
    else:
        unique = (
            before.get("identifier", {}).get("uniqueName") or f"{azure.settings.subscription}-{body['name'].upper()}"
        )
        asked = {**_without_none(asked), "identifier": {"uniqueName": unique}}
    state = "Creating" if old is None else "Updating"
    body["properties"] = {**before, **asked, "provisioningState": state}
    resource = azure.state.put(Resource(call.path.text, kind, body, {"unique": str(uuid.uuid4())}))
    return _begun(azure, call, resource, "create" if old is None else "update", 201 if old is None else 200)


def _without_none(found: Json) -> Json:
    return {name: value for name, value in found.items() if value is not None}


def _check_definition(asked: Json, before: Json) -> None:
    for name in _REQUIRED:
        if not asked.get(name):
            raise errors.missing(f"galleryImage.properties.{name}")
    identifier = section(asked, "identifier")
    for name in ("publisher", "offer", "sku"):
        if not identifier.get(name):
            raise errors.missing(f"galleryImage.properties.identifier.{name}")
    if str(asked.get("hyperVGeneration") or "V1") not in {"V1", "V2"}:
        raise errors.invalid("galleryImage.properties.hyperVGeneration", asked["hyperVGeneration"])
    for name in _FIXED:
        if before and asked.get(name) is not None and before.get(name) != asked[name]:
            raise errors.unchangeable(f"galleryImage.properties.{name}")


def patch(azure: Azure, call: Call) -> Response:
    """Change tags and descriptions."""
    require_group(azure, call.path)
    found = azure.resource(call.path.text)
    if isinstance(call.body.get("tags"), dict):
        found.body["tags"] = call.body["tags"]
    asked = _without_none(section(call.body, "properties"))
    found.properties.update({name: value for name, value in asked.items() if name not in (*_FIXED, "identifier")})
    found.properties["provisioningState"] = "Updating"
    return _begun(azure, call, azure.state.put(found), "update", 200)


def delete(azure: Azure, call: Call) -> Response:
    """Delete what has nothing below it."""
    require_group(azure, call.path)
    found = azure.state.get(call.path.text)
    if found is None:
        return Response(204)
    children = azure.state.find(under=found.key + "/")
    if children:
        paths = [each.id.split("/providers/")[-1] for each in children]
        nearest = min(path.count("/") for path in paths)
        raise errors.has_children([path for path in paths if path.count("/") == nearest])
    found.properties["provisioningState"] = "Deleting"
    azure.state.put(found)
    name = azure.operations.submit(
        f"{NAMES[found.kind]}.delete",
        found.id,
        {"key": found.key},
        segment=GALLERIES,
        location=found.body["location"],
    )
    return Response(202, azure.operations.headers(name, call.request))


def _begun(azure: Azure, call: Call, resource: Resource, verb: str, status: int) -> Response:
    name = azure.operations.submit(
        f"{NAMES[resource.kind]}.{verb}",
        resource.id,
        {"key": resource.key},
        segment=GALLERIES,
        location=resource.body["location"],
    )
    headers = azure.operations.headers(name, call.request, location=False)
    return Response.of_json(status, resource.body, headers)


def works(azure: Azure) -> dict[str, Work]:
    """What the operations of galleries and definitions do."""

    def done(arguments: Json) -> Json | None:
        resource = azure.state.get(arguments["key"])
        if resource is None:
            return None
        resource.properties["provisioningState"] = "Succeeded"
        return azure.state.put(resource).body

    def removed(arguments: Json) -> None:
        azure.state.remove(arguments["key"])

    found: dict[str, Work] = {}
    for name in NAMES.values():
        found |= {f"{name}.create": Work(finish=done), f"{name}.update": Work(finish=done)}
        found[f"{name}.delete"] = Work(finish=removed)
    return found


def routes() -> Routes:
    """Of galleries and definitions."""
    found: Routes = {}
    for kind in NAMES:
        found |= {
            ("GET", kind): got,
            ("GET", f"{kind}/*"): listed,
            ("PUT", kind): put,
            ("PATCH", kind): patch,
            ("DELETE", kind): delete,
        }
    return found
