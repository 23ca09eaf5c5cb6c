"""Managed disks and snapshots: PUT, GET, PATCH, DELETE. They differ in little."""

from __future__ import annotations

import uuid
from typing import Any

from . import errors, origins
from .azure import Azure, Call, Routes, begin, got, listed, require_group, section
from .errors import ArmError
from .http import Response
from .operations import DISKS, Work, now
from .origins import Origin
from .state import Json, Resource
from .store import GIB, gib, new_name
from .tiers import SKUS, SNAPSHOT_SKUS, performance

_DEFAULT_SKU = "Standard_LRS"
_FOOTER = 512
"""uploadSizeBytes counts a VHD's footer."""
KINDS = ("disks", "snapshots")
_READ_ONLY = frozenset(
    {
        "completionPercent",
        "diskSizeBytes",
        "diskState",
        "incrementalSnapshotFamilyId",
        "isArmResource",
        "provisioningState",
        "timeCreated",
        "uniqueId",
    }
)
"""What only the service says: clients that change a disk by GET and PUT send it back."""


def noun(resource: Resource) -> str:
    """``disk`` or ``snapshot``, as messages say."""
    return resource.kind.removesuffix("s")


def put(azure: Azure, call: Call) -> Response:
    """Make a disk or a snapshot, or change one that is there."""
    old = azure.state.get(call.path.text)
    body = begin(azure, call)
    if old is not None and old.properties["provisioningState"] != "Failed":
        return _update(azure, call)
    asked = _without_read_only(section(call.body, "properties"))
    noun_ = call.path.kind.removesuffix("s")
    if not section(asked, "creationData"):
        raise errors.missing(f"{noun_}.creationData")
    creation = section(asked, "creationData")
    sku = _sku(call.body, call.path.kind)
    origin = origins.of_creation(azure, creation, location=body["location"])
    size = _size(asked, origin, noun_)
    inherited = {} if origin is None else {name: value for name, value in origin.facts.items() if name not in asked}
    properties = {**inherited, **asked, "provisioningState": "Updating"}
    body |= {"sku": sku or {"name": _DEFAULT_SKU}, "properties": properties}
    resource = azure.state.put(Resource(call.path.text, call.path.kind, body, {"file": new_name()}))
    arguments = {"key": resource.key, "file": resource.hidden["file"], "size": size}
    arguments["source"] = origins.pinned(azure, origin)
    name = azure.operations.submit(
        f"{resource.kind}.create", resource.id, arguments, segment=DISKS, location=body["location"]
    )
    shown = {**resource.body, "properties": {**asked, "provisioningState": "Updating", "isArmResource": True}}
    return Response.of_json(202, shown, azure.operations.headers(name, call.request))


def _sku(body: Json, kind: str) -> Json:
    """The SKU that a request asks for, empty if none."""
    known = {name.lower(): name for name in (SKUS if kind == "disks" else SNAPSHOT_SKUS)}
    asked = section(body, "sku").get("name")
    if asked is None:
        return {}
    if str(asked).lower() not in known:
        raise errors.invalid("sku.name", asked)
    return {"name": known[str(asked).lower()]}


def _without_read_only(asked: Json) -> Json:
    return {name: value for name, value in asked.items() if name not in _READ_ONLY and value is not None}


def _size(asked: Json, origin: Origin | None, noun_: str) -> int:
    """Bytes of the new disk's file."""
    creation, wanted = section(asked, "creationData"), _asked_gib(asked, noun_)
    if str(creation["createOption"]).lower() == "upload":
        upload = creation.get("uploadSizeBytes")
        if not isinstance(upload, int) or upload <= _FOOTER or upload % _FOOTER:
            parameter = f"{noun_}.creationData.uploadSizeBytes"
            raise errors.missing(parameter) if upload is None else errors.invalid(parameter, upload)
        return upload
    if origin is None:
        if wanted is None:
            raise errors.missing(f"{noun_}.diskSizeGB")
        return wanted * GIB
    if wanted is None:
        return origin.size
    if wanted < gib(origin.size):
        raise errors.too_small(asked=wanted, least=gib(origin.size))
    return max(origin.size, wanted * GIB)


def _asked_gib(asked: Json, noun_: str) -> int | None:
    wanted = asked.get("diskSizeGB")
    if wanted is None:
        return None
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= 65536:
        raise errors.invalid(f"{noun_}.diskSizeGB", wanted)
    return wanted


def patch(azure: Azure, call: Call) -> Response:
    """Change tags, SKU, size and the like."""
    require_group(azure, call.path)
    azure.resource(call.path.text)
    return _update(azure, call)


def _update(azure: Azure, call: Call) -> Response:
    old = azure.resource(call.path.text)
    _refuse_unfinished(old)
    asked = _without_read_only(section(call.body, "properties"))
    _refuse_changed_origin(old, section(asked, "creationData"))
    current, wanted = int(old.properties.get("diskSizeGB") or 0), _asked_gib(asked, noun(old))
    if wanted is not None and wanted < current:
        raise errors.shrinking(current=current, asked=wanted)
    if isinstance(call.body.get("tags"), dict):
        old.body["tags"] = call.body["tags"]
    old.body["sku"] = _sku(call.body, old.kind) or old.body["sku"]
    kept = ("creationData", "diskSizeGB")
    old.properties.update({name: value for name, value in asked.items() if name not in kept})
    old.properties["provisioningState"] = "Updating"
    resource = azure.state.put(old)
    size = wanted if wanted is not None and wanted > current else None
    arguments = {"key": resource.key, "size": size}
    name = azure.operations.submit(
        f"{resource.kind}.update", resource.id, arguments, segment=DISKS, location=resource.body["location"]
    )
    shown = {**resource.body, "properties": {**resource.properties, **asked, "provisioningState": "Updating"}}
    return Response.of_json(202, shown, azure.operations.headers(name, call.request))


def _refuse_unfinished(found: Resource) -> None:
    state = found.properties["provisioningState"]
    if state == "Deleting" or (state == "Updating" and not found.hidden.get("ready")):
        raise errors.busy(noun(found), found.name)


def _refuse_changed_origin(old: Resource, creation: Json) -> None:
    before = section(old.properties, "creationData")
    for name, value in creation.items():
        if value is None or isinstance(value, dict):
            continue
        if str(before.get(name, value)).lower() != str(value).lower():
            raise errors.unchangeable(f"creationData.{name}")


def delete(azure: Azure, call: Call) -> Response:
    """Delete a disk or a snapshot that nobody uses."""
    require_group(azure, call.path)
    found = azure.state.get(call.path.text)
    if found is None:
        return Response(204)
    if found.body.get("managedBy"):
        raise errors.attached("Disk", found.name, found.body["managedBy"])
    if found.properties.get("diskState") in {"ActiveSAS", "ActiveUpload"}:
        raise errors.lent(noun(found), found.name)
    if found.properties["provisioningState"] != "Deleting":
        _refuse_unfinished(found)
    found.properties["provisioningState"] = "Deleting"
    found.hidden["ready"] = False
    azure.state.put(found)
    arguments = {"key": found.key, "file": found.hidden["file"]}
    name = azure.operations.submit(
        f"{found.kind}.delete", found.id, arguments, segment=DISKS, location=found.body["location"]
    )
    return Response(202, azure.operations.headers(name, call.request))


def works(azure: Azure) -> dict[str, Work]:
    """What the operations of disks and snapshots do."""

    def make(arguments: Json) -> None:
        origins.copied(azure, arguments["source"], arguments["file"], size=arguments["size"])

    def made(arguments: Json) -> Json:
        resource = azure.resource(arguments["key"])
        origins.unpin(azure, arguments["source"])
        _describe(resource, arguments["size"], azure.store.size(arguments["file"]))
        resource.hidden["ready"] = resource.properties["diskState"] != "ReadyToUpload"
        return azure.state.put(resource).body

    def not_made(arguments: Json, error: ArmError) -> None:
        origins.unpin(azure, arguments["source"])
        resource = azure.resource(arguments["key"])
        resource.properties["provisioningState"] = "Failed"
        azure.state.put(resource)

    def change(arguments: Json) -> None:
        if arguments["size"] is not None:
            with azure.state.change():
                resource = azure.resource(arguments["key"])
                azure.store.grow(resource.hidden["file"], arguments["size"] * GIB)
                lun = resource.hidden.get("lun")
            if lun is not None:
                azure.devices.resize(lun)

    def changed(arguments: Json) -> Json:
        resource = azure.resource(arguments["key"])
        resource.properties["provisioningState"] = "Succeeded"
        if arguments["size"] is not None:
            resource.properties["diskSizeGB"] = arguments["size"]
            resource.properties["diskSizeBytes"] = azure.store.size(resource.hidden["file"])
        resource.properties.update(performance(resource.body["sku"]["name"], resource.properties["diskSizeGB"]))
        _describe_sku(resource)
        return azure.state.put(resource).body

    def remove(arguments: Json) -> None:
        azure.store.remove(arguments["file"])

    def removed(arguments: Json) -> None:
        azure.state.remove(arguments["key"])

    found: dict[str, Work] = {}
    for kind in KINDS:
        found[f"{kind}.create"] = Work(make, made, not_made, shown=True)
        found[f"{kind}.update"] = Work(change, changed, shown=True)
        found[f"{kind}.delete"] = Work(remove, removed)
    return found


def _describe(resource: Resource, size: int, length: int) -> None:
    """Add what the service tells of a finished disk."""
    properties: dict[str, Any] = resource.properties
    upload = str(properties["creationData"]["createOption"]).lower() == "upload"
    length -= _FOOTER if upload else 0
    properties |= {
        "diskSizeGB": gib(length),
        "diskSizeBytes": length,
        "encryption": properties.get("encryption") or {"type": "EncryptionAtRestWithPlatformKey"},
        "networkAccessPolicy": properties.get("networkAccessPolicy") or "AllowAll",
        "publicNetworkAccess": properties.get("publicNetworkAccess") or "Enabled",
        "timeCreated": now(),
        "uniqueId": str(uuid.uuid4()),
        "provisioningState": "Succeeded",
        "diskState": "ReadyToUpload" if upload else "Unattached",
    }
    creation = properties["creationData"]
    if source := creation.get("sourceResourceId"):
        creation["sourceUniqueId"] = str(uuid.uuid5(uuid.NAMESPACE_URL, str(source).lower()))
    if resource.kind == "snapshots":
        properties["incremental"] = bool(properties.get("incremental"))
        if properties["incremental"]:
            family = uuid.uuid5(uuid.NAMESPACE_URL, str(creation.get("sourceResourceId")).lower())
            properties |= {"incrementalSnapshotFamilyId": str(family), "completionPercent": 100.0}
    else:
        properties.update(performance(resource.body["sku"]["name"], properties["diskSizeGB"]))
    _describe_sku(resource)


def _describe_sku(resource: Resource) -> None:
    name = str(resource.body["sku"].get("name") or _DEFAULT_SKU)
    tier = "Ultra" if name.startswith("Ultra") else "Premium" if name.startswith("Premium") else "Standard"
    resource.body["sku"] = {"name": name, "tier": tier}


def routes() -> Routes:
    """Of disks and snapshots."""
    found: Routes = {}
    for kind in KINDS:
        found |= {
            ("GET", kind): got,
            ("GET", f"{kind}/*"): listed,
            ("PUT", kind): put,
            ("PATCH", kind): patch,
            ("DELETE", kind): delete,
        }
    return found
