"""Versions of gallery images."""

from __future__ import annotations

import re

from . import errors, origins, regions
from .azure import Azure, Call, Routes, begin, items, require_group, section
from .azure import listed as listed_plain
from .galleries import VERSION
from .http import Response
from .images import delete_image, image_works
from .operations import GALLERIES, Work, now
from .origins import OS, Origin
from .paths import location_key
from .state import Json, Resource
from .store import gib, new_name

_NAME = re.compile(r"\d{1,10}\.\d{1,10}\.\d{1,10}")
_LARGEST = 2**31 - 1


def put(azure: Azure, call: Call) -> Response:
    """Make a version, or change where one that is there is replicated."""
    old = azure.state.get(call.path.text)
    if old is not None and old.properties["provisioningState"] != "Failed":
        return patch(azure, call)
    path = call.path
    require_group(azure, path)
    definition = azure.state.get(path.parent_id)
    if definition is None:
        raise errors.no_parent(path)
    if not _NAME.fullmatch(path.name) or any(int(part) > _LARGEST for part in path.name.split(".")):
        raise errors.bad_version(path.name)
    body = begin(azure, call)
    asked = section(call.body, "properties")
    profile = _publishing(section(asked, "publishingProfile"), body["location"])
    sources = _sources(azure, section(asked, "storageProfile"))
    for id_, origin in sources.values():
        _check_source(id_, origin, definition, location=body["location"])
    files = {place: new_name() for place in sources}
    body["properties"] = {
        "publishingProfile": profile,
        "storageProfile": _storage(section(asked, "storageProfile"), sources),
        "safetyProfile": {"reportedForPolicyViolation": False, **section(asked, "safetyProfile")},
        "provisioningState": "Creating",
    }
    facts = {"osType": definition.properties["osType"], "hyperVGeneration": definition.properties["hyperVGeneration"]}
    resource = azure.state.put(Resource(path.text, VERSION, body, {"files": files, "facts": facts}))
    arguments = {"key": resource.key, "files": files}
    arguments["sources"] = {place: origins.pinned(azure, origin) for place, (_, origin) in sources.items()}
    name = azure.operations.submit(
        "versions.create", resource.id, arguments, segment=GALLERIES, location=body["location"]
    )
    return Response.of_json(201, resource.body, azure.operations.headers(name, call.request, location=False))


def _publishing(asked: Json, home: str) -> Json:
    """The profile with its defaults; regions in the form that Azure shows."""
    wanted = items(asked, "targetRegions")
    names = [str(each.get("name") or "") for each in wanted]
    for name in names:
        if regions.display(name) is None:
            raise errors.bad_location(name, "Microsoft.Compute/galleries")
    if wanted and home not in {location_key(name) for name in names}:
        raise errors.home_region_missing(regions=names, home=regions.display(home) or home)
    replicas, kind = asked.get("replicaCount") or 1, asked.get("storageAccountType") or "Standard_LRS"
    shown = [
        {
            **each,
            "name": regions.display(str(each["name"])),
            "regionalReplicaCount": each.get("regionalReplicaCount") or replicas,
            "storageAccountType": each.get("storageAccountType") or kind,
        }
        for each in (wanted or [{"name": home}])
    ]
    return {
        "replicaCount": replicas,
        "excludeFromLatest": False,
        "storageAccountType": kind,
        "replicationMode": "Full",
        **{name: value for name, value in asked.items() if value is not None},
        "targetRegions": shown,
        "publishedDate": now(),
    }


def _sources(azure: Azure, profile: Json) -> dict[str, tuple[str, Origin]]:
    """Place → id and origin: of an image, or of a disk each."""
    if whole := section(profile, "source").get("id"):
        image = azure.resource(str(whole))
        places = image.hidden.get("files") or {}
        found = {OS: (str(whole), origins.of_image(azure, whole))}
        for place in places:
            if place != OS:
                found[place] = (str(whole), origins.of_image(azure, whole, lun=place))
        return found
    disk = section(section(profile, "osDiskImage"), "source")
    if not disk.get("id"):
        raise errors.missing("galleryImageVersion.properties.storageProfile.osDiskImage.source.id")
    found = {OS: (str(disk["id"]), origins.of_disk(azure, disk["id"]))}
    for each in items(profile, "dataDiskImages"):
        if not isinstance(each.get("lun"), int):
            raise errors.missing("dataDiskImage.lun")
        id_ = section(each, "source").get("id")
        if not id_:
            raise errors.missing("dataDiskImage.source.id")
        found[str(each["lun"])] = (str(id_), origins.of_disk(azure, id_))
    return found


def _check_source(id_: str, origin: Origin, definition: Resource, *, location: str) -> None:
    """The rules by which a source must fit its definition; data disks have no generation."""
    if origin.location not in {None, location}:
        raise errors.source_elsewhere(id_, found=str(origin.location), wanted=location)
    if not origin.facts:
        return
    wanted = definition.properties["hyperVGeneration"]
    found = str(origin.facts.get("hyperVGeneration") or "V1")
    if found != wanted:
        raise errors.other_generation(id_, found=found, wanted=wanted)
    system = str(origin.facts.get("osType") or definition.properties["osType"])
    if system != definition.properties["osType"]:
        raise errors.other_os(id_, found=system, wanted=definition.properties["osType"])
    _check_security(id_, origin, definition)


def _check_security(id_: str, origin: Origin, definition: Resource) -> None:
    """``...Supported`` definitions take what is standard; the others take their own kind."""
    features = {str(each.get("name")): str(each.get("value")) for each in items(definition.properties, "features")}
    wanted = features.get("SecurityType", "Standard")
    profile = origin.facts.get("securityProfile")
    found = str(profile.get("securityType") or "Standard") if isinstance(profile, dict) else "Standard"
    kind = "ConfidentialVM" if found.startswith("ConfidentialVM") else found
    expected = "Standard" if wanted.endswith("Supported") else wanted
    if kind != expected:
        raise errors.other_security(id_, found=found, wanted=wanted)


def _storage(asked: Json, sources: dict[str, tuple[str, Origin]]) -> Json:
    """The request, with the sizes that the service adds to it."""
    found: Json = {name: value for name, value in asked.items() if value is not None}
    if "source" not in found or not section(asked, "source").get("id"):
        found.pop("source", None)
    disk = section(asked, "osDiskImage")
    found["osDiskImage"] = {"hostCaching": "None", **disk, "sizeInGB": gib(sources[OS][1].size)}
    data = items(asked, "dataDiskImages") or [{"lun": int(place)} for place in sources if place != OS]
    found["dataDiskImages"] = [
        {"hostCaching": "None", **each, "sizeInGB": gib(sources[str(each["lun"])][1].size)} for each in data
    ]
    return found


def patch(azure: Azure, call: Call) -> Response:
    """Change tags, target regions and dates; the bytes of a version stay."""
    require_group(azure, call.path)
    found = azure.resource(call.path.text)
    if found.properties["provisioningState"] in {"Creating", "Deleting"}:
        raise errors.busy("image version", found.name)
    if isinstance(call.body.get("tags"), dict):
        found.body["tags"] = call.body["tags"]
    if asked := section(section(call.body, "properties"), "publishingProfile"):
        old = section(found.properties, "publishingProfile")
        news = _publishing({**old, **asked}, found.body["location"])
        found.properties["publishingProfile"] = {**news, "publishedDate": old["publishedDate"]}
    found.properties["provisioningState"] = "Updating"
    found = azure.state.put(found)
    name = azure.operations.submit(
        "versions.update", found.id, {"key": found.key}, segment=GALLERIES, location=found.body["location"]
    )
    return Response.of_json(200, found.body, azure.operations.headers(name, call.request, location=False))


def delete(azure: Azure, call: Call) -> Response:
    """Delete a version and its bytes."""
    require_group(azure, call.path)
    return delete_image(azure, call, segment=GALLERIES, kind="versions.delete")


def get(azure: Azure, call: Call) -> Response:
    """A version; how far its replication is only with ``$expand=ReplicationStatus``."""
    require_group(azure, call.path)
    found = azure.resource(call.path.text)
    if call.expands("ReplicationStatus"):
        found.properties["replicationStatus"] = _replication(found)
    return Response.of_json(200, found.body)


def _replication(version: Resource) -> Json:
    state = {"Creating": "InProgress", "Failed": "Failed"}.get(version.properties["provisioningState"], "Completed")
    progress = 100 if state == "Completed" else 0
    summary = [
        {
            "region": each["name"],
            "state": {"InProgress": "Replicating"}.get(state, state),
            "details": "",
            "progress": progress,
        }
        for each in version.properties["publishingProfile"]["targetRegions"]
    ]
    return {"aggregatedState": state, "summary": summary}


def works(azure: Azure) -> dict[str, Work]:
    """What the operations of versions do."""
    names = ("versions.create", "versions.update", "versions.delete")
    return dict(zip(names, image_works(azure), strict=True))


def routes() -> Routes:
    """Of versions."""
    return {
        ("GET", VERSION): get,
        ("GET", f"{VERSION}/*"): listed_plain,
        ("PUT", VERSION): put,
        ("PATCH", VERSION): patch,
        ("DELETE", VERSION): delete,
    }
