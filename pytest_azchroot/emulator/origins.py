"""Where a disk's bytes come from: another disk, a snapshot, an image of ours, or one of the marketplace."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_azchroot.disk import image

from . import errors
from .azure import Azure, section
from .paths import location_key, parse
from .settings import PlatformImage
from .state import Json, Resource
from .store import new_name

_FACTS = ("osType", "hyperVGeneration", "supportedCapabilities", "securityProfile", "purchasePlan")
"""What a disk inherits."""
OS = "os"
"""The operating system disk among the files of an image; data disks are there by their LUN."""


@dataclass(frozen=True)
class Origin:
    """Something to copy."""

    size: int
    """Bytes of the disk in it."""
    file: str | None = None
    """In the store."""
    path: Path | None = None
    """A disk image file of the user's."""
    facts: Mapping[str, object] = field(default_factory=dict)
    location: str | None = None
    lun: int | None = None
    """Where it is attached to the machine here."""


def of_disk(azure: Azure, id_: object) -> Origin:
    """A disk or a snapshot that is ready.

    :raises ArmError: there is none.
    """
    found = _of_kinds(azure, id_, ("disks", "snapshots"))
    if found.properties.get("provisioningState") not in {"Succeeded", "Updating"} or not found.hidden.get("ready"):
        raise errors.busy(found.kind.removesuffix("s"), found.name)
    file = found.hidden["file"]
    facts = {name: found.properties[name] for name in _FACTS if found.properties.get(name) is not None}
    return Origin(
        azure.store.size(file), file=file, facts=facts, location=found.body["location"], lun=_lun(azure, found)
    )


def _lun(azure: Azure, found: Resource) -> int | None:
    here = found.body.get("managedBy", "").lower() == azure.settings.machine_id.lower()
    return found.hidden.get("lun") if here else None


def of_image(azure: Azure, id_: object, *, lun: object = None, region: str | None = None) -> Origin:
    """A managed image or a gallery version that is ready: its operating system disk, or a data disk.

    :param region: where it must be available.
    :raises ArmError: there is none.
    """
    found = _of_kinds(azure, id_, ("images", "galleries/images/versions"))
    if region is not None:
        _require_region(found, region)
    file = found.hidden.get("files", {}).get(OS if lun is None else str(lun))
    if found.properties.get("provisioningState") == "Creating" or not found.hidden.get("ready"):
        raise errors.busy("image", found.name)
    if file is None:
        raise errors.invalid("lun", lun)
    facts = found.hidden.get("facts", {}) if lun is None else {}
    return Origin(azure.store.size(file), file=file, facts=facts, location=found.body["location"])


def of_platform(azure: Azure, id_: object) -> Origin:
    """An image of the marketplace, by the id of its version; ``latest`` is no version here.

    :raises ArmError: there is none.
    """
    path = parse(str(id_))
    if path is None or path.kind != "locations/publishers/artifacttypes/offers/skus/versions" or not path.whole:
        raise errors.invalid("imageReference.id", id_)
    _, publisher, _, offer, sku, version = path.names
    urn = f"{publisher}:{offer}:{sku}:{version}"
    found = platform_image(azure, urn)
    if found is None:
        raise errors.no_platform_image(urn)
    architecture = {"architecture": "Arm64" if found.architecture.lower() == "arm64" else "x64"}
    facts = {"osType": "Linux", "hyperVGeneration": found.generation, "supportedCapabilities": architecture}
    return Origin(platform_size(found), path=found.path.absolute(), facts=facts)


def platform_image(azure: Azure, urn: str) -> PlatformImage | None:
    """A marketplace image by its name in any case."""
    return next((each for each in azure.settings.images if each.urn.lower() == urn.lower()), None)


def platform_size(found: PlatformImage) -> int:
    """Bytes of the disk in a marketplace image.

    :raises DiskError: its file cannot be read.
    """
    return image.identify(found.path).size


def of_creation(azure: Azure, creation: Json, *, location: str) -> Origin | None:
    """What ``creationData`` names; None for an empty disk, and for one that is to be uploaded.

    :raises ArmError: it names nothing, or what is not there.
    """
    option = str(creation.get("createOption") or "")
    choice = option.lower()
    if choice in {"empty", "upload"}:
        return None
    if choice in {"copy", "copystart", "restore"}:
        if not creation.get("sourceResourceId"):
            raise errors.missing("creationData.sourceResourceId")
        return of_disk(azure, creation["sourceResourceId"])
    if choice == "fromimage":
        return _of_reference(azure, creation, location=location)
    if not option:
        raise errors.missing("creationData.createOption")
    raise errors.invalid("creationData.createOption", option)


def _of_reference(azure: Azure, creation: Json, *, location: str) -> Origin:
    gallery, reference = section(creation, "galleryImageReference"), section(creation, "imageReference")
    if gallery.get("id"):
        return of_image(azure, gallery["id"], lun=gallery.get("lun"), region=location)
    if not reference.get("id"):
        raise errors.missing("creationData.imageReference")
    path = parse(str(reference["id"]))
    if path is not None and path.kind in {"images", "galleries/images/versions"}:
        return of_image(azure, reference["id"], lun=reference.get("lun"), region=location)
    return of_platform(azure, reference["id"])


def pinned(azure: Azure, origin: Origin | None) -> Json:
    """An origin for an operation's arguments, which stays what it is when its resource is deleted."""
    if origin is None:
        return {}
    if origin.file is None:
        return {"path": str(origin.path)}
    name = new_name()
    os.link(azure.store.path(origin.file), azure.store.path(name))
    return {"pin": name, "lun": origin.lun}


def copied(azure: Azure, source: Json, name: str, *, size: int | None) -> None:
    """Make a file in the store of what :func:`pinned` gave, or an empty one. May be repeated."""
    if azure.store.path(name).exists():
        return
    if source.get("lun") is not None:
        azure.devices.flush(source["lun"])
    if "pin" in source:
        azure.store.duplicate(source["pin"], name, size=size)
    elif "path" in source:
        azure.store.load(Path(source["path"]), name, size=size)
    else:
        azure.store.create(name, size or 0)


def unpin(azure: Azure, source: Json) -> None:
    """The origin is not needed any more."""
    if "pin" in source:
        azure.store.remove(source["pin"])


def _of_kinds(azure: Azure, id_: object, kinds: tuple[str, ...]) -> Resource:
    found = azure.resource(str(id_))
    if found.kind not in kinds:
        raise errors.invalid("source.id", id_)
    return found


def _require_region(found: Resource, region: str) -> None:
    regions = {found.body["location"]}
    if found.kind == "galleries/images/versions":
        profile = section(found.properties, "publishingProfile")
        regions |= {location_key(str(each.get("name"))) for each in profile.get("targetRegions") or ()}
    if location_key(region) not in regions:
        raise errors.no_gallery_image(found.id, region)
