"""What Azure is asked to make, as JSON on the wire. Pure but for a random name.

Source: the REST references of Disks, Images and Gallery Image Versions.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from pytest_azchroot.clouds import Order
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.sources import Source
from pytest_azchroot.spec import ImageSpec, SharedImageDestination, clean_resource_name
from pytest_azchroot.spec.azure_ids import DiskId, parse_disk_id

Json = dict[str, Any]

_LONGEST = 80
"""Characters in the name of a disk or snapshot. Source: learn.microsoft.com, "Naming rules for Azure resources"."""
_LONGEST_RUN = 40


def disk_body(source: Source, spec: ImageSpec, machine: Machine, *, tags: Mapping[str, str]) -> Json:
    """The working disk: a copy of the source that the machine can attach.

    What the source says of itself is said again, so that the disk never depends on Azure's defaults.
    """
    properties: Json = {
        "osType": "Linux",
        "hyperVGeneration": source.generation,
        "creationData": dict(source.creation),
        "supportedCapabilities": {"architecture": source.architecture},
    }
    if spec.os_disk_size_gb:
        properties["diskSizeGB"] = spec.os_disk_size_gb
    if source.plan is not None:
        properties["purchasePlan"] = dict(source.plan)
    if source.security_type is not None:
        properties["securityProfile"] = {"securityType": source.security_type}
    storage = spec.os_disk_storage_account_type
    body: Json = {
        "location": machine.location,
        "sku": {"name": storage},
        "properties": properties,
        "tags": dict(tags),
    }
    # A zonal machine attaches disks of its own zone and zone-redundant ones, which are in no zone.
    if machine.zone and not is_zone_redundant(storage):
        body["zones"] = [machine.zone]
    return body


def image_body(source: Source, spec: ImageSpec, machine: Machine, *, disk_id: str, tags: Mapping[str, str]) -> Json:
    """The managed image of the working disk."""
    disk = {
        "osType": "Linux",
        "osState": "Generalized",
        "managedDisk": {"id": disk_id},
        "caching": spec.os_disk_cache_type,
        "storageAccountType": spec.os_disk_storage_account_type,
    }
    return {
        "location": machine.location,
        "properties": {"hyperVGeneration": source.generation, "storageProfile": {"osDisk": disk, "dataDisks": []}},
        "tags": dict(tags),
    }


def version_body(
    spec: ImageSpec,
    destination: SharedImageDestination,
    machine: Machine,
    *,
    disk_id: str,
    tags: Mapping[str, str],
) -> Json:
    """The gallery image version, made of the working disk itself: no snapshot, no managed image between.

    It is in the machine's region, where the disk is: Azure wants both in one.

    :param disk_id: of a disk or a snapshot.
    """
    return {
        "location": machine.location,
        "properties": {
            "publishingProfile": {
                "targetRegions": target_regions(destination, machine),
                "excludeFromLatest": destination.exclude_from_latest,
            },
            "storageProfile": {"osDiskImage": {"hostCaching": spec.os_disk_cache_type, "source": {"id": disk_id}}},
        },
        "tags": dict(tags),
    }


def target_regions(destination: SharedImageDestination, machine: Machine) -> list[Json]:
    """Where a version is stored. If nobody says where, in its own region alone, on the storage that Azure chooses:
    zone-redundant storage is not in every region."""
    if not destination.target_regions:
        return [{"name": machine.location, "regionalReplicaCount": 1}]
    return [
        {
            "name": region.name,
            "regionalReplicaCount": region.replicas,
            "storageAccountType": region.storage_account_type,
        }
        for region in destination.target_regions
    ]


def is_zone_redundant(storage: str) -> bool:
    """Whether storage of this kind spans the zones of its region."""
    return storage.endswith("_ZRS")


# -- names of what is temporary


def disk_id(order: Order, machine: Machine, run: str, *, unique: str | None = None) -> DiskId:
    """The id of the working disk: ``temporary_os_disk_id`` if that is set, else a name that no other disk has.

    :param unique: tells disks of one run apart; random if not given.
    :raises ValueError: ``temporary_os_disk_id`` is not the id of a disk.
    """
    if given := order.configuration.spec.temporary_os_disk_id:
        return parse_disk_id(given)
    return DiskId(machine.subscription_id, machine.resource_group, temporary_name(order.name, run, unique=unique))


def temporary_name(image: str, run: str, *, unique: str | None = None) -> str:
    """``azchroot-IMAGE-RUN-UNIQUE`` in the characters that Azure takes, at most 80. A long image's name is cut; what
    makes the name unique is not."""
    run = clean_resource_name(run)
    if len(run) > _LONGEST_RUN:
        run = hashlib.sha256(run.encode()).hexdigest()[:16]
    tail = f"-{run}-{unique or secrets.token_hex(4)}"
    return f"azchroot-{clean_resource_name(image)}"[: _LONGEST - len(tail)].rstrip("-_.") + tail
