"""What a virtual machine is told about itself: its Resource Manager model as the instance metadata of a version.

Source of names and versions: "Azure Instance Metadata Service", schema breakdown
(https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service), and the examples of
azure-rest-api-specs, specification/imds/data-plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERSIONS = (
    "2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01", "2018-04-02", "2018-10-01",
    "2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01", "2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01",
    "2020-06-01", "2020-07-15", "2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01",
    "2021-05-01", "2021-08-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13", "2023-07-01", "2023-11-15",
    "2024-03-15", "2024-07-17", "2025-04-07",
)  # fmt: skip
"""The versions that `/metadata/versions` lists, oldest first."""

SINCE = {
    "additionalCapabilities": "2021-11-01",
    "azEnvironment": "2018-10-01",
    "customData": "2019-02-01",
    "evictionPolicy": "2020-12-01",
    "extendedLocation": "2021-03-01",
    "host": "2021-11-15",
    "hostGroup": "2021-11-15",
    "isHostCompatibilityLayerVm": "2020-06-01",
    "licenseType": "2020-09-01",
    "osProfile": "2020-07-15",
    "osProfile.disablePasswordAuthentication": "2020-10-01",
    "physicalZone": "2023-11-15",
    "placementGroupId": "2017-08-01",
    "plan": "2018-04-02",
    "platformSubFaultDomain": "2021-10-01",
    "priority": "2020-12-01",
    "provider": "2018-10-01",
    "publicKeys": "2018-04-02",
    "resourceGroupName": "2017-08-01",
    "resourceId": "2019-03-11",
    "securityProfile": "2020-06-01",
    "securityProfile.encryptionAtHost": "2021-11-01",
    "securityProfile.securityType": "2021-12-13",
    "storageProfile": "2019-06-01",
    "storageProfile.dataDisks.bytesPerSecondThrottle": "2021-05-01",
    "storageProfile.dataDisks.diskCapacityBytes": "2021-05-01",
    "storageProfile.dataDisks.isSharedDisk": "2021-05-01",
    "storageProfile.dataDisks.isUltraDisk": "2021-05-01",
    "storageProfile.dataDisks.opsPerSecondThrottle": "2021-05-01",
    "storageProfile.imageReference.communityGalleryImageId": "2023-07-01",
    "storageProfile.imageReference.exactVersion": "2023-07-01",
    "storageProfile.imageReference.sharedGalleryImageId": "2023-07-01",
    "storageProfile.resourceDisk": "2021-02-01",
    "subscriptionId": "2017-08-01",
    "tags": "2017-08-01",
    "tagsList": "2019-06-04",
    "userData": "2021-01-01",
    "virtualMachineScaleSet": "2021-03-01",
    "vmScaleSetName": "2017-12-01",
    "zone": "2017-12-01",
}
"""The first version with a field of `compute`; what is not here is as old as the service (2017-04-02)."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Interface:
    """A network interface as the service shows it. Addresses are text, the prefix is a number of bits."""

    private_address: str = "10.0.0.4"
    public_address: str = ""
    subnet: str = "10.0.0.0"
    prefix: int = 24
    mac: str = "000D3A000001"


def instance(vm: Json, interfaces: Sequence[Interface], version: str) -> dict[str, Any]:
    """All that `/metadata/instance` says in one version.

    :param vm: the machine as Resource Manager shows it (`GET` of the virtual machine).
    """
    return {"compute": compute(vm, version), "network": {"interface": [_interface(each) for each in interfaces]}}


def compute(vm: Json, version: str) -> dict[str, Any]:
    """What one version says about the machine itself. Every primitive is text, what is not known is empty text."""
    known: dict[str, Any] = _as_of(_compute(vm), version)
    return dict(sorted(known.items(), key=lambda item: item[0].lower()))


def tags_text(tags: Json) -> str:
    """Tags as `tags` has them: `name:value` joined by semicolons, which nothing escapes."""
    return ";".join(f"{name}:{value}" for name, value in sorted(tags.items()))


def text(value: object) -> str:
    """A primitive as the service writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _as_of(value: Any, version: str, path: str = "") -> Any:
    """A document without the fields that are younger than a version."""
    if isinstance(value, list):
        return [_as_of(each, version, path) for each in value]
    if not isinstance(value, dict):
        return value
    paths = {name: f"{path}.{name}" if path else name for name in value}
    return {
        name: _as_of(part, version, paths[name])
        for name, part in value.items()
        if SINCE.get(paths[name], "") <= version
    }


def _compute(vm: Json) -> dict[str, Any]:
    properties = _part(vm, "properties")
    storage = _part(properties, "storageProfile")
    image = _part(storage, "imageReference")
    security = _part(properties, "securityProfile")
    uefi = _part(security, "uefiSettings")
    os_profile = _part(properties, "osProfile")
    linux = _part(os_profile, "linuxConfiguration")
    tags = _part(vm, "tags")
    plan = _part(vm, "plan")
    _, _, subscription, _, group, *_ = str(vm["id"]).split("/")
    return {
        "additionalCapabilities": _texts(_part(properties, "additionalCapabilities"), "hibernationEnabled"),
        "azEnvironment": "AzurePublicCloud",
        "customData": "",  # disabled in the service
        "evictionPolicy": text(properties.get("evictionPolicy")),
        "extendedLocation": _texts(_part(vm, "extendedLocation"), "type", "name"),
        "host": _texts(_part(properties, "host"), "id"),
        "hostGroup": _texts(_part(properties, "hostGroup"), "id"),
        "isHostCompatibilityLayerVm": "false",
        "licenseType": text(properties.get("licenseType")),
        "location": text(vm.get("location")),
        "name": text(vm.get("name")),
        "offer": text(image.get("offer")),
        "osProfile": {
            **_texts(os_profile, "adminUsername", "computerName"),
            **_texts(linux, "disablePasswordAuthentication"),
        },
        "osType": text(_part(storage, "osDisk").get("osType")),
        "physicalZone": "",
        "placementGroupId": "",
        "plan": _texts(plan, "name", "product", "publisher"),
        "platformFaultDomain": "0",
        "platformSubFaultDomain": "",
        "platformUpdateDomain": "0",
        "priority": text(properties.get("priority")),
        "provider": "Microsoft.Compute",
        "publicKeys": [_texts(key, "keyData", "path") for key in _part(linux, "ssh").get("publicKeys") or ()],
        "publisher": text(image.get("publisher")),
        "resourceGroupName": group,
        "resourceId": text(vm.get("id")),
        "securityProfile": {
            **_texts(uefi, "secureBootEnabled"),
            "virtualTpmEnabled": text(uefi.get("vTpmEnabled")),
            **_texts(security, "encryptionAtHost", "securityType"),
        },
        "sku": text(image.get("sku")),
        "storageProfile": _storage(storage),
        "subscriptionId": subscription,
        "tags": tags_text(tags),
        "tagsList": [{"name": name, "value": text(value)} for name, value in sorted(tags.items())],
        "userData": text(properties.get("userData")),
        "version": text(image.get("exactVersion") or image.get("version")),
        "virtualMachineScaleSet": _texts(_part(properties, "virtualMachineScaleSet"), "id"),
        "vmId": text(properties.get("vmId")),
        "vmScaleSetName": "",
        "vmSize": text(_part(properties, "hardwareProfile").get("vmSize")),
        "zone": text(next(iter(vm.get("zones") or ()), "")),
    }


def _storage(storage: Json) -> dict[str, Any]:
    image = _part(storage, "imageReference")
    return {
        "dataDisks": [_data_disk(disk) for disk in storage.get("dataDisks") or ()],
        "imageReference": _texts(
            image,
            *("id", "offer", "publisher", "sku", "version"),
            *("communityGalleryImageId", "sharedGalleryImageId", "exactVersion"),
        ),
        "osDisk": _os_disk(_part(storage, "osDisk")),
        "resourceDisk": {"size": "0"},  # KiB of the temporary disk; the emulated machine has none
    }


def _disk(disk: Json) -> dict[str, Any]:
    return {
        **_texts(disk, "caching", "createOption", "diskSizeGB", "name"),
        "image": _texts(_part(disk, "image"), "uri"),
        "managedDisk": _texts(_part(disk, "managedDisk"), "id", "storageAccountType"),
        "vhd": _texts(_part(disk, "vhd"), "uri"),
        "writeAcceleratorEnabled": text(disk.get("writeAcceleratorEnabled", False)),
    }


def _data_disk(disk: Json) -> dict[str, Any]:
    ultra = _part(disk, "managedDisk").get("storageAccountType") == "UltraSSD_LRS"
    return {
        **_disk(disk),
        # documented as empty but for Ultra Disks, whose limits the emulator does not have
        "bytesPerSecondThrottle": "",
        "diskCapacityBytes": "",
        "isSharedDisk": "",
        "isUltraDisk": text(ultra),
        "lun": text(disk.get("lun")),
        "opsPerSecondThrottle": "",
    }


def _os_disk(disk: Json) -> dict[str, Any]:
    return {
        **_disk(disk),
        "diffDiskSettings": _texts(_part(disk, "diffDiskSettings"), "option"),
        "encryptionSettings": {"enabled": text(_part(disk, "encryptionSettings").get("enabled", False))},
        "osType": text(disk.get("osType")),
    }


def _interface(interface: Interface) -> dict[str, Any]:
    return {
        "ipv4": {
            "ipAddress": [
                {"privateIpAddress": interface.private_address, "publicIpAddress": interface.public_address},
            ],
            "subnet": [{"address": interface.subnet, "prefix": text(interface.prefix)}],
        },
        "ipv6": {"ipAddress": []},
        "macAddress": interface.mac,
    }


def _part(of: Json, name: str) -> Json:
    """An object within an object, empty where it is absent or null."""
    return of.get(name) or {}


def _texts(of: Json, *names: str) -> dict[str, str]:
    return {name: text(of.get(name)) for name in names}
