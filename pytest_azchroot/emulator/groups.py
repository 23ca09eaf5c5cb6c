"""Subscriptions, tenants, providers and resource groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from . import catalog, errors, regions
from .azure import Azure, Call, section
from .http import Response
from .operations import COMPUTE, Work
from .paths import location_key
from .state import Json, Resource

KIND = "groups"


def group_id(azure: Azure, name: str) -> str:
    """The id of a resource group."""
    return f"/subscriptions/{azure.settings.subscription}/resourceGroups/{name}"


def made_group(azure: Azure, name: str, location: str, tags: Json | None = None) -> Resource:
    """Make a resource group, or give one that is there other tags."""
    old = azure.state.get(group_id(azure, name))
    body = {
        "id": group_id(azure, name) if old is None else old.id,
        "name": name if old is None else old.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": location if old is None else old.body["location"],
        "tags": tags or {},
        "properties": {"provisioningState": "Succeeded"},
    }
    return azure.state.put(Resource(str(body["id"]), KIND, body))


def subscription(azure: Azure) -> Json:
    """The only one."""
    id_ = azure.settings.subscription
    return {
        "id": f"/subscriptions/{id_}",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": id_,
        "tenantId": azure.settings.tenant,
        "displayName": "Emulated",
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
    }


def top(azure: Azure, path: str) -> Response | None:
    """``/subscriptions``, ``/tenants`` and ``/providers``: what is above any subscription."""
    parts = [part.lower() for part in path.strip("/").split("/")]
    if parts == ["subscriptions"]:
        return Response.of_json(200, {"value": [subscription(azure)], "count": {"type": "Total", "value": 1}})
    if parts == ["tenants"]:
        tenant = azure.settings.tenant
        found = {"id": f"/tenants/{tenant}", "tenantId": tenant, "displayName": "Emulated", "tenantCategory": "Home"}
        return Response.of_json(200, {"value": [found]})
    if parts == ["providers"]:
        return Response.of_json(200, {"value": [catalog.compute_provider("/providers/Microsoft.Compute")]})
    return None


def below_subscription(azure: Azure, call: Call) -> Response | None:
    """What is not of Microsoft.Compute; None if it is nothing that we know."""
    method, path = call.request.method, call.path
    rest = tuple(part.lower() for part in path.rest)
    if path.group is not None and not rest:
        return _group(azure, call, path.group)
    if path.group is not None and rest == ("resources",) and method == "GET":
        _existing(azure, path.group)
        return _resources(azure, call, group_id(azure, path.group) + "/")
    if method == "GET" and path.group is None:
        return _listed(azure, call, rest)
    if method == "POST" and rest[:2] == ("providers", "microsoft.compute") and rest[2:] in {("register",), ()}:
        return Response.of_json(200, catalog.compute_provider(path.text.removesuffix("/register")))
    return None


def _listed(azure: Azure, call: Call, rest: tuple[str, ...]) -> Response | None:
    text = call.path.text
    if rest == ("resources",):
        return _resources(azure, call, "")
    if rest[:1] == ("providers",) and len(rest) == 2:
        return Response.of_json(200, _provider(text))
    lists: dict[tuple[str, ...], Callable[[], list[Json]]] = {
        ("resourcegroups",): lambda: [each.body for each in azure.state.find(kind=KIND)],
        ("locations",): lambda: [_location(azure, name) for name in regions.REGIONS],
        ("providers",): lambda: [catalog.compute_provider(f"{text}/Microsoft.Compute")],
    }
    if rest in lists:
        return Response.of_json(200, {"value": lists[rest]()})
    return None if rest else Response.of_json(200, subscription(azure))


def _provider(id_: str) -> Json:
    name = id_.rsplit("/", 1)[1]
    if name.lower() == "microsoft.compute":
        return catalog.compute_provider(id_)
    return {"id": id_, "namespace": name, "registrationState": "NotRegistered", "resourceTypes": []}


def _location(azure: Azure, name: str) -> Json:
    shown = regions.REGIONS[name]
    return {
        "id": f"/subscriptions/{azure.settings.subscription}/locations/{name}",
        "name": name,
        "type": "Region",
        "displayName": shown,
        "regionalDisplayName": shown,
        "metadata": {"regionType": "Physical", "regionCategory": "Recommended"},
    }


def _resources(azure: Azure, call: Call, under: str) -> Response:
    """All resources, or those that ``$filter`` names."""
    names = ("id", "name", "type", "location", "tags", "sku", "managedBy")
    wanted = _filter(call.request.value("$filter") or "")
    found = [each for each in azure.state.find(under=under) if each.kind != KIND and _passes(each, wanted)]
    value = [{name: each.body[name] for name in names if name in each.body} for each in found]
    return Response.of_json(200, {"value": value})


_TERM = re.compile(r"(\w+) eq '((?:[^']|'')*)'", re.IGNORECASE)
_PLACES = ("name", "resourcetype", "location", "resourcegroup", "tagname", "tagvalue")
"""What a filter can ask for. Source: the REST reference of "Resources - List"."""


def _filter(text: str) -> dict[str, str]:
    """``tagName eq 'a' and tagValue eq 'b'``.

    :raises ArmError: it says something else.
    """
    found = {}
    for term in re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE) if text.strip() else ():
        matched = _TERM.fullmatch(term.strip("() "))
        if matched is None or matched[1].lower() not in _PLACES:
            raise errors.ArmError(400, "InvalidFilterInQueryString", f"Invalid $filter '{text}' specified.")
        found[matched[1].lower()] = matched[2].replace("''", "'").lower()
    return found


def _passes(resource: Resource, wanted: Mapping[str, str]) -> bool:
    tags = {name.lower(): str(value).lower() for name, value in (resource.body.get("tags") or {}).items()}
    is_tagged = "tagname" not in wanted or tags.get(wanted["tagname"]) is not None
    has_value = "tagvalue" not in wanted or wanted["tagvalue"] == tags.get(wanted.get("tagname", ""))
    told = {
        "name": resource.name,
        "resourcetype": resource.body["type"],
        "location": resource.body["location"],
        "resourcegroup": resource.id.split("/")[4],
    }
    return (
        is_tagged
        and has_value
        and all(wanted.get(name, value.lower()) == value.lower() for name, value in told.items())
    )


def _existing(azure: Azure, name: str) -> Resource:
    found = azure.state.get(group_id(azure, name))
    if found is None:
        raise errors.no_group(name)
    return found


def _group(azure: Azure, call: Call, name: str) -> Response | None:
    method = call.request.method
    if method == "HEAD":
        return Response(204 if azure.state.get(group_id(azure, name)) else 404)
    if method == "GET":
        return Response.of_json(200, _existing(azure, name).body)
    if method == "PATCH":
        old = _existing(azure, name)
        return Response.of_json(200, made_group(azure, name, old.body["location"], section(call.body, "tags")).body)
    if method == "PUT":
        return _put(azure, call, name)
    if method == "DELETE":
        return _delete(azure, call, name)
    return None


def _put(azure: Azure, call: Call, name: str) -> Response:
    location = location_key(str(call.body.get("location") or ""))
    if not location:
        raise errors.no_location()
    if regions.display(location) is None:
        raise errors.bad_location(location, "Microsoft.Resources/resourceGroups")
    old = azure.state.get(group_id(azure, name))
    if old is not None and old.body["location"] != location:
        text = (
            f"Invalid resource group location '{location}'. The Resource group already exists in location "
            f"'{old.body['location']}'."
        )
        raise errors.ArmError(409, "InvalidResourceGroupLocation", text)
    made = made_group(azure, name, location, section(call.body, "tags"))
    return Response.of_json(201 if old is None else 200, made.body)


def _delete(azure: Azure, call: Call, name: str) -> Response:
    group = _existing(azure, name)
    inside = azure.state.find(under=group.key + "/")
    busy = next((each for each in inside if each.body.get("managedBy")), None)
    if busy is not None or azure.settings.machine_id.lower().startswith(group.key + "/"):
        what = azure.settings.machine.name if busy is None else busy.name
        text = f"Deletion of resource group '{name}' failed as the resource '{what}' in it is in use."
        raise errors.ArmError(409, "ResourceGroupDeletionBlocked", text)
    operation = azure.operations.submit("groups.delete", group.id, {"key": group.key}, segment=COMPUTE)
    headers = azure.operations.headers(operation, call.request)
    return Response(202, {"Location": headers["Location"]})


def works(azure: Azure) -> dict[str, Work]:
    """What the operations of groups do."""

    def emptied(arguments: Json) -> None:
        with azure.state.change():
            inside = azure.state.find(under=arguments["key"] + "/")
        for each in inside:
            for file in [each.hidden.get("file"), *each.hidden.get("files", {}).values()]:
                if file:
                    azure.store.remove(file)

    def removed(arguments: Json) -> None:
        for each in azure.state.find(under=arguments["key"] + "/"):
            azure.state.remove(each.key)
        azure.state.remove(arguments["key"])

    return {"groups.delete": Work(emptied, removed)}
