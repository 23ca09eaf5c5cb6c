"""Managed images."""

from __future__ import annotations

from . import errors, origins
from .azure import Azure, Call, Routes, begin, got, items, listed, require_group, section
from .errors import ArmError
from .http import Response
from .operations import COMPUTE, Work
from .origins import OS, Origin
from .state import Json, Resource
from .store import gib, new_name


def put(azure: Azure, call: Call) -> Response:
    """Make an image of disks or snapshots. Of one that is there only the tags change."""
    old = azure.state.get(call.path.text)
    if old is not None and old.properties["provisioningState"] != "Failed":
        return patch(azure, call)
    body = begin(azure, call)
    asked = section(call.body, "properties")
    profile = section(asked, "storageProfile")
    if machine := section(asked, "sourceVirtualMachine").get("id"):
        name = azure.resource(machine).name
        text = f"The operation 'Create Image' requires the Virtual Machine '{name}' to be Generalized."
        raise ArmError(409, "OperationNotAllowed", text)  # ansible#37158; nothing generalizes a machine here
    if not section(profile, "osDisk"):
        raise errors.missing("image.properties.storageProfile.osDisk")
    sources = {OS: _origin(azure, section(profile, "osDisk"), "osDisk")}
    for each in items(profile, "dataDisks"):
        if not isinstance(each.get("lun"), int):
            raise errors.missing("dataDisk.lun")
        sources[str(each["lun"])] = _origin(azure, each, "dataDisk")
    for origin in sources.values():
        if origin.location not in {None, body["location"]}:
            raise _elsewhere(origin, body["location"])
    files = {place: new_name() for place in sources}
    body["properties"] = _described(asked, sources)
    facts = {"osType": section(profile, "osDisk").get("osType") or "Linux"}
    facts["hyperVGeneration"] = body["properties"]["hyperVGeneration"]
    resource = azure.state.put(Resource(call.path.text, "images", body, {"files": files, "facts": facts}))
    arguments = {"key": resource.key, "files": files}
    arguments["sources"] = {place: origins.pinned(azure, origin) for place, origin in sources.items()}
    name = azure.operations.submit(
        "images.create", resource.id, arguments, segment=COMPUTE, location=resource.body["location"]
    )
    return Response.of_json(201, resource.body, azure.operations.headers(name, call.request, location=False))


def _elsewhere(origin: Origin, location: str) -> ArmError:
    """The rule is documented (image and disk are in one region); the text is unsure."""
    text = f"The source disk is in location '{origin.location}', and must be in that of the image, '{location}'."
    return ArmError(400, "InvalidParameter", text, "image.location")


def _origin(azure: Azure, disk: Json, parameter: str) -> Origin:
    for name in ("managedDisk", "snapshot"):
        if id_ := section(disk, name).get("id"):
            return origins.of_disk(azure, id_)
    raise errors.missing(f"image.properties.storageProfile.{parameter}.managedDisk")


def _described(asked: Json, sources: dict[str, Origin]) -> Json:
    """The request, with what the service adds to it."""
    profile = section(asked, "storageProfile")
    disk = {"caching": "None", "osState": "Generalized", "osType": "Linux", "storageAccountType": "Standard_LRS"}
    disks = [(OS, section(profile, "osDisk"))]
    disks += [(str(each["lun"]), each) for each in items(profile, "dataDisks")]
    shown = [
        {
            **(disk if place == OS else {"caching": "None"}),
            "diskSizeGB": gib(sources[place].size),
            **_without_none(each),
        }
        for place, each in disks
    ]
    storage = {"osDisk": shown[0], "dataDisks": shown[1:], "zoneResilient": bool(profile.get("zoneResilient"))}
    generation = asked.get("hyperVGeneration") or "V1"
    return {**asked, "storageProfile": storage, "hyperVGeneration": generation, "provisioningState": "Creating"}


def _without_none(found: Json) -> Json:
    return {name: value for name, value in found.items() if value is not None}


def patch(azure: Azure, call: Call) -> Response:
    """Change the tags."""
    require_group(azure, call.path)
    found = azure.resource(call.path.text)
    if found.properties["provisioningState"] == "Deleting":
        raise errors.busy("image", found.name)
    if isinstance(call.body.get("tags"), dict):
        found.body["tags"] = call.body["tags"]
    if found.properties["provisioningState"] == "Succeeded":
        found.properties["provisioningState"] = "Updating"
    found = azure.state.put(found)
    name = azure.operations.submit(
        "images.update", found.id, {"key": found.key}, segment=COMPUTE, location=found.body["location"]
    )
    return Response.of_json(200, found.body, azure.operations.headers(name, call.request, location=False))


def delete(azure: Azure, call: Call) -> Response:
    """Delete an image and its bytes."""
    require_group(azure, call.path)
    return delete_image(azure, call, segment=COMPUTE, kind="images.delete")


def delete_image(azure: Azure, call: Call, *, segment: str, kind: str) -> Response:
    """Delete what has files: an image or a gallery version."""
    found = azure.state.get(call.path.text)
    if found is None:
        return Response(204)
    if found.properties.get("provisioningState") == "Creating":
        raise errors.busy("image", found.name)
    found.properties["provisioningState"] = "Deleting"
    found.hidden["ready"] = False
    azure.state.put(found)
    arguments = {"key": found.key, "files": found.hidden["files"]}
    name = azure.operations.submit(kind, found.id, arguments, segment=segment, location=found.body["location"])
    return Response(202, azure.operations.headers(name, call.request))


def image_works(azure: Azure) -> tuple[Work, Work, Work]:
    """To create, update and delete what has files."""

    def make(arguments: Json) -> None:
        for place, file in arguments["files"].items():
            origins.copied(azure, arguments["sources"][place], file, size=None)

    def made(arguments: Json) -> Json:
        _unpin(arguments)
        resource = azure.resource(arguments["key"])
        resource.properties["provisioningState"] = "Succeeded"
        resource.hidden["ready"] = True
        return azure.state.put(resource).body

    def not_made(arguments: Json, error: ArmError) -> None:
        _unpin(arguments)
        resource = azure.resource(arguments["key"])
        resource.properties["provisioningState"] = "Failed"
        azure.state.put(resource)

    def changed(arguments: Json) -> Json | None:
        resource = azure.state.get(arguments["key"])
        if resource is None:
            return None
        if resource.properties["provisioningState"] == "Updating":
            resource.properties["provisioningState"] = "Succeeded"
        return azure.state.put(resource).body

    def remove(arguments: Json) -> None:
        for file in arguments["files"].values():
            azure.store.remove(file)

    def removed(arguments: Json) -> None:
        azure.state.remove(arguments["key"])

    def _unpin(arguments: Json) -> None:
        for source in arguments["sources"].values():
            origins.unpin(azure, source)

    return Work(make, made, not_made), Work(finish=changed), Work(remove, removed)


def works(azure: Azure) -> dict[str, Work]:
    """What the operations of images do."""
    return dict(zip(("images.create", "images.update", "images.delete"), image_works(azure), strict=True))


def routes() -> Routes:
    """Of images."""
    return {
        ("GET", "images"): got,
        ("GET", "images/*"): listed,
        ("PUT", "images"): put,
        ("PATCH", "images"): patch,
        ("DELETE", "images"): delete,
    }
