"""What every handler has at hand, and what it is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from . import errors, regions
from .devices import Devices
from .hooks import Hooks
from .http import Request, Response
from .operations import Operations
from .paths import ArmPath, location_key, parse
from .settings import Settings
from .state import Json, Resource, State
from .store import Store


@dataclass(frozen=True)
class Azure:
    """The emulated subscription."""

    settings: Settings
    state: State
    store: Store
    devices: Devices
    operations: Operations
    hooks: Hooks

    def resource(self, id_: str) -> Resource:
        """A resource that must be there.

        :raises ArmError: it is not, or the id is none.
        """
        found = self.state.get(id_)
        if found is None:
            path = parse(id_)
            if path is not None and path.group is not None and path.provider is None and not path.rest:
                raise errors.no_group(path.group)
            if path is None or not path.whole:
                raise errors.ArmError(400, "LinkedInvalidPropertyId", f"Property id '{id_}' is invalid.")
            raise errors.not_found(path)
        return found


@dataclass(frozen=True)
class Call:
    """One request to Resource Manager, taken apart."""

    request: Request
    path: ArmPath
    body: Json = field(default_factory=dict)

    @property
    def resource_id(self) -> str:
        """The resource that an action is for."""
        return self.path.parent_id

    def expands(self, what: str) -> bool:
        """Whether ``$expand`` asks for this."""
        return what.lower() in (self.request.value("$expand") or "").lower()


_NAME = r"^[^_\W][\w\-._]{0,79}(?<![-.])$"
"""Source: the compute provider's message of a bad name (issues of terraform and az)."""
_NAMES = {"galleries": r"^[^_\W][\w._]{0,79}(?<![._])$", "galleries/images/versions": r"^.*$"}
"""learn.microsoft.com, "Naming rules for Azure resources": a gallery has no hyphens. Versions have a rule of theirs."""

Handler = Callable[[Azure, Call], Response]
Routes = dict[tuple[str, str], Handler]
"""By method and :attr:`ArmPath.kind`; a collection's kind ends in ``/*``."""


def read_body(request: Request) -> Json:
    """The JSON object that came, or an empty one.

    :raises ArmError: it is something else.
    """
    if not request.body.strip():
        return {}
    try:
        found = json.loads(request.body)
    except ValueError as error:
        raise errors.bad_content(str(error)) from error
    if not isinstance(found, dict):
        raise errors.bad_content("it is no object")
    return found


def section(body: Json, name: str) -> Json:
    """An object within an object; an empty one where it is absent or null.

    :raises ArmError: it is something else.
    """
    found = body.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise errors.bad_content(f"Error converting value to an object. Path '{name}'")
    return found


def items(body: Json, name: str) -> list[Json]:
    """A list of objects within an object; an empty one where it is absent or null.

    :raises ArmError: it is something else.
    """
    found = body.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise errors.bad_content(f"Error converting value to a list of objects. Path '{name}'")
    return found


def begin(azure: Azure, call: Call, *, type_: str | None = None) -> Json:
    """The parts that every new resource has, from a PUT.

    :raises ArmError: the group is not there, or the location is missing, unknown or another than before.
    """
    path = call.path
    require_group(azure, path)
    location = location_key(str(call.body.get("location") or ""))
    old = azure.state.get(path.text)
    if not location and old is None:
        raise errors.no_location()
    if location and regions.display(location) is None:
        raise errors.bad_location(location, path.type)
    if old is None:
        _check_name(path)
    if old is not None and location and location != old.body["location"]:
        raise errors.location_changed(path, old=old.body["location"], new=location)
    body: Json = {
        "name": path.name if old is None else old.name,
        "id": path.text if old is None else old.id,
        "type": type_ or path.type,
        "location": location or (old.body["location"] if old is not None else azure.settings.location),
        "tags": section(call.body, "tags"),
    }
    for name in ("zones", "identity", "extendedLocation", "plan"):
        if call.body.get(name) is not None:
            body[name] = call.body[name]
    return body


def _check_name(path: ArmPath) -> None:
    rule = _NAMES.get(path.kind, _NAME)
    if not re.fullmatch(rule, path.name, re.ASCII):
        raise errors.bad_name(path.name, rule)


def require_group(azure: Azure, path: ArmPath) -> None:
    """:raises ArmError: there is no such resource group."""
    group = f"/subscriptions/{path.subscription}/resourceGroups/{path.group}"
    if path.group is None or azure.state.get(group) is None:
        raise errors.no_group(path.group or "")


def listed(azure: Azure, call: Call) -> Response:
    """GET of a collection: of a group, of a parent, or of the whole subscription."""
    path = call.path
    if path.group is not None:
        require_group(azure, path)
        if len(path.types) > 1:
            azure.resource(path.parent_id)
        under = path.key + "/"
    else:
        under = f"/subscriptions/{path.subscription}/".lower()
    return Response.of_json(200, {"value": [each.body for each in azure.state.find(under=under, kind=path.kind)]})


def got(azure: Azure, call: Call) -> Response:
    """GET of one resource."""
    require_group(azure, call.path)
    return Response.of_json(200, azure.resource(call.path.text).body)
