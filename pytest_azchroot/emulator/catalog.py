"""What a region offers: images of the marketplace, sizes, SKUs, locations, providers. Only read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from . import errors, regions
from .azure import Azure, Call, Routes, require_group
from .http import Response
from .origins import platform_image, platform_size
from .paths import location_key
from .settings import PlatformImage
from .sizes import SIZES, Size
from .state import Json
from .store import gib
from .tiers import SKUS

_TYPES = (
    "disks",
    "snapshots",
    "images",
    "galleries",
    "galleries/images",
    "galleries/images/versions",
    "virtualMachines",
    "locations/vmSizes",
    "locations/publishers",
    "locations/operations",
    "locations/DiskOperations",
    "locations/capsOperations",
)
_API_VERSIONS = ("2026-04-01", "2026-03-03", "2026-03-02", "2024-07-01", "2023-04-02", "2019-12-01", "2019-11-01")
_ROOT = "locations/publishers"


def versions(azure: Azure, call: Call) -> Response:
    """Versions of a SKU: a bare list, by name, with ``$orderby`` and ``$top`` as packer and azure-cli send them."""
    location, publisher, _, offer, sku = _names(azure, call)
    prefix = f"{publisher}:{offer}:{sku}:".lower()
    found = [each for each in azure.settings.images if each.urn.lower().startswith(prefix)]
    if not found:
        raise errors.no_artifact("VMImage")
    names = sorted((each.version for each in found), reverse="desc" in (call.request.value("$orderby") or "").lower())
    top = call.request.value("$top")
    return _artifacts(call, location, names[: int(top)] if top is not None and top.isdigit() else names)


def version(azure: Azure, call: Call) -> Response:
    """One version of an image; ``latest`` is the highest."""
    location, publisher, _, offer, sku, name = _names(azure, call)
    if name.lower() == "latest":
        prefix = f"{publisher}:{offer}:{sku}:".lower()
        names = [each.version for each in azure.settings.images if each.urn.lower().startswith(prefix)]
        name = max(names, key=_numbers, default=name)
    found = platform_image(azure, f"{publisher}:{offer}:{sku}:{name}")
    if found is None:
        raise errors.no_artifact("VMImage")
    return Response.of_json(200, _image(found, call, location))


def _image(found: PlatformImage, call: Call, location: str) -> Json:
    length = platform_size(found)
    return {
        "location": location,
        "name": found.version,
        "id": f"{call.path.text.rsplit('/', 1)[0]}/{found.version}",
        "properties": {
            "hyperVGeneration": found.generation,
            "architecture": found.architecture,
            "replicaType": "Managed",
            "replicaCount": 10,
            "disallowed": {"vmDiskType": "None"},
            "automaticOSUpgradeProperties": {"automaticOSUpgradeSupported": False},
            "imageDeprecationStatus": {"imageState": "Active"},
            "features": [],
            "osDiskImage": {"operatingSystem": "Linux", "sizeInGb": gib(length), "sizeInBytes": length},
            "dataDiskImages": [],
        },
    }


def _numbers(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]


def publishers(azure: Azure, call: Call) -> Response:
    """All publishers."""
    (location,) = _names(azure, call)
    return _artifacts(call, location, _distinct(each.publisher for each in azure.settings.images))


def offers(azure: Azure, call: Call) -> Response:
    """A publisher's offers."""
    location, publisher, _ = _names(azure, call)
    mine = [each for each in azure.settings.images if each.publisher.lower() == publisher.lower()]
    return _artifacts(call, location, _distinct(each.offer for each in mine), needed="Publisher")


def skus(azure: Azure, call: Call) -> Response:
    """An offer's SKUs."""
    location, publisher, _, offer = _names(azure, call)
    prefix = f"{publisher}:{offer}:".lower()
    mine = [each for each in azure.settings.images if each.urn.lower().startswith(prefix)]
    return _artifacts(call, location, _distinct(each.sku for each in mine), needed="Offer")


def _distinct(names: Iterable[str]) -> list[str]:
    return sorted(set(names))


def _names(azure: Azure, call: Call) -> tuple[str, ...]:
    location = location_key(call.path.names[0])
    if regions.display(location) is None:
        text = f"No registered resource provider found for location '{call.path.names[0]}'."
        raise errors.ArmError(400, "NoRegisteredProviderFound", text)
    return (location, *call.path.names[1:])


def _artifacts(call: Call, location: str, names: list[str], *, needed: str | None = None) -> Response:
    if needed is not None and not names:
        raise errors.no_artifact(needed)
    return Response.of_json(
        200, [{"location": location, "name": name, "id": f"{call.path.text}/{name}"} for name in names]
    )


def vm_sizes(azure: Azure, call: Call) -> Response:
    """Sizes of virtual machines in a region."""
    _names(azure, call)
    return Response.of_json(200, {"value": [_size(each) for each in SIZES.values()]})


def machine_sizes(azure: Azure, call: Call) -> Response:
    """Sizes that a machine can become."""
    require_group(azure, call.path)
    azure.resource(call.resource_id)
    return Response.of_json(200, {"value": [_size(each) for each in SIZES.values()]})


def _size(found: Size) -> Json:
    return {
        "name": found.name,
        "numberOfCores": found.cores,
        "osDiskSizeInMB": 1047552,
        "resourceDiskSizeInMB": found.temporary * 1024,
        "memoryInMB": int(found.memory * 1024),
        "maxDataDiskCount": found.disks,
    }


def resource_skus(azure: Azure, call: Call) -> Response:
    """What can be had where, with capabilities; ``$filter=location eq 'westus2'``."""
    match = re.search(r"location eq '([^']*)'", call.request.value("$filter") or "")
    wanted = location_key(match[1]) if match else azure.settings.location
    if regions.display(wanted) is None:
        return Response.of_json(200, {"value": []})
    found = [_machine_sku(each, wanted) for each in SIZES.values()]
    found += [_disk_sku(name, tier, wanted) for name, tier in SKUS.items()]
    return Response.of_json(200, {"value": found})


def _machine_sku(found: Size, location: str) -> Json:
    capabilities = {
        "MaxResourceVolumeMB": found.temporary * 1024,
        "vCPUs": found.cores,
        "MemoryGB": found.memory,
        "MaxDataDiskCount": found.disks,
        "CpuArchitectureType": found.architecture,
        "HyperVGenerations": found.generations,
        "PremiumIO": "True",
        "DiskControllerTypes": found.controllers,
        "TrustedLaunchDisabled": "False",
    }
    return {
        "resourceType": "virtualMachines",
        "name": found.name,
        "tier": "Standard",
        "size": found.name.removeprefix("Standard_"),
        "family": found.family,
        **_place(location),
        "capabilities": [{"name": name, "value": str(value)} for name, value in capabilities.items()],
        "restrictions": [],
    }


def _disk_sku(name: str, tier: str, location: str) -> Json:
    return {"resourceType": "disks", "name": name, "tier": tier, **_place(location), "restrictions": []}


def _place(location: str) -> Json:
    zones = {"location": location, "zones": ["1", "2", "3"], "zoneDetails": []}
    return {"locations": [location], "locationInfo": [zones]}


def compute_provider(call_id: str) -> Json:
    """The provider, as a list of providers has it; azure-cli looks there for API versions."""
    names = list(regions.REGIONS.values())
    return {
        "id": call_id,
        "namespace": "Microsoft.Compute",
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": [
            {
                "resourceType": kind,
                "locations": names,
                "apiVersions": list(_API_VERSIONS),
                "defaultApiVersion": _API_VERSIONS[3],
                "capabilities": "SupportsTags, SupportsLocation",
            }
            for kind in _TYPES
        ],
    }


def routes() -> Routes:
    """Of what is only read."""
    under = f"{_ROOT}/artifacttypes/offers"
    return {
        ("GET", f"{_ROOT}/*"): publishers,
        ("GET", f"{under}/*"): offers,
        ("GET", f"{under}/skus/*"): skus,
        ("GET", f"{under}/skus/versions/*"): versions,
        ("GET", f"{under}/skus/versions"): version,
        ("GET", "locations/vmsizes/*"): vm_sizes,
        ("GET", "virtualmachines/vmsizes/*"): machine_sizes,
        ("GET", "skus/*"): resource_skus,
    }
