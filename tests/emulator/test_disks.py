"""Managed disks and snapshots, asked for by the SDK."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import PlatformImage, Settings

from .conftest import MARK, MARK_AT, MIB, URN, Compute, attach, connect, disk_of, empty_disk, image_id, platform_disk

pytestmark = pytest.mark.root
GIB = 1024**3


def refusal(action: Callable[[], Any]) -> tuple[int, str, str]:
    """Status, code and message of what the SDK raises."""
    with pytest.raises(HttpResponseError) as caught:
        action()
    error = caught.value.error
    assert error is not None and caught.value.status_code is not None
    return caught.value.status_code, str(error.code), str(error.message)


def content(emulator: Emulator, id_: str, place: str | None = None, *, size: int = 16 * MIB) -> bytes:
    """The first bytes behind a resource."""
    found = emulator.azure.resource(id_)
    name = found.hidden["file"] if place is None else found.hidden["files"][place]
    with emulator.azure.store.path(name).open("rb") as file:
        return file.read(size)


def test_an_empty_disk(compute: Compute) -> None:
    disk = empty_disk(compute, "d1", size=2)
    assert disk.properties.provisioning_state == "Succeeded"
    assert disk.properties.disk_state == "Unattached"
    assert disk.properties.disk_size_bytes == 2 * GIB
    assert disk.sku.name == "Standard_LRS" and disk.sku.tier == "Standard"


def test_the_caller_s_case_is_kept_in_ids_and_does_not_matter_in_paths(compute: Compute) -> None:
    empty_disk(compute, "MyDisk")
    assert compute.disks.get("RG1", "mydisk").id.endswith(
        "/resourceGroups/rg1/providers/Microsoft.Compute/disks/MyDisk"
    )


def test_a_disk_of_a_platform_image(compute: Compute, emulator: Emulator, settings: Settings) -> None:
    disk = platform_disk(compute, settings, "d1")
    assert disk.properties.hyper_v_generation == "V2" and disk.properties.os_type == "Linux"
    assert disk.properties.disk_size_bytes == 16 * MIB and disk.properties.disk_size_gb == 1
    assert content(emulator, disk.id)[MARK_AT:].startswith(MARK)


def test_a_disk_larger_than_its_image(compute: Compute, settings: Settings) -> None:
    creation = {"createOption": "FromImage", "imageReference": {"id": image_id(settings)}}
    assert disk_of(compute, "d1", creation, diskSizeGB=3).properties.disk_size_bytes == 3 * GIB


def test_a_snapshot_and_a_disk_of_it_hold_the_bytes(compute: Compute, emulator: Emulator, settings: Settings) -> None:
    disk = platform_disk(compute, settings, "d1")
    body = {
        "location": "westus2",
        "properties": {"creationData": {"createOption": "Copy", "sourceResourceId": disk.id}, "incremental": True},
    }
    snapshot = compute.snapshots.begin_create_or_update("rg1", "s1", body).result()
    assert snapshot.properties.incremental and snapshot.properties.completion_percent == 100
    assert snapshot.properties.hyper_v_generation == "V2"
    again = disk_of(compute, "d2", {"createOption": "Copy", "sourceResourceId": snapshot.id})
    assert content(emulator, again.id) == content(emulator, disk.id)


def test_lists(compute: Compute) -> None:
    empty_disk(compute, "d1")
    empty_disk(compute, "d2")
    assert [disk.name for disk in compute.disks.list_by_resource_group("rg1")] == ["d1", "d2"]
    assert [disk.name for disk in compute.disks.list()] == ["d1", "d2"]
    assert list(compute.snapshots.list()) == []


def test_a_disk_grows_and_keeps_its_bytes(compute: Compute, emulator: Emulator, settings: Settings) -> None:
    platform_disk(compute, settings, "d1")
    disk = compute.disks.begin_update("rg1", "d1", {"properties": {"diskSizeGB": 2}, "tags": {"a": "b"}}).result()
    assert disk.properties.disk_size_bytes == 2 * GIB and disk.tags == {"a": "b"}
    assert content(emulator, disk.id)[MARK_AT:].startswith(MARK)


def test_the_second_put_changes_a_disk(compute: Compute) -> None:
    empty_disk(compute, "d1")
    body = {
        "location": "westus2",
        "sku": {"name": "Premium_LRS"},
        "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 2},
    }
    disk = compute.disks.begin_create_or_update("rg1", "d1", body).result()
    assert disk.sku.tier == "Premium" and disk.properties.disk_size_gb == 2


def test_deleting_removes_the_bytes(compute: Compute, emulator: Emulator) -> None:
    empty_disk(compute, "d1")
    compute.disks.begin_delete("rg1", "d1").result()
    with pytest.raises(ResourceNotFoundError):
        compute.disks.get("rg1", "d1")
    assert list(emulator.azure.store.directory.iterdir()) == []
    compute.disks.begin_delete("rg1", "d1").result()  # what is gone is gone: 204


# -- refusals


def test_what_is_not_there(compute: Compute) -> None:
    text = (
        "The Resource 'Microsoft.Compute/disks/d1' under resource group 'rg1' was not found. For more details please "
        "go to https://aka.ms/ARMResourceNotFoundFix"
    )
    assert refusal(lambda: compute.disks.get("rg1", "d1")) == (404, "ResourceNotFound", text)
    text = "Resource group 'nowhere' could not be found."
    assert refusal(lambda: compute.disks.get("nowhere", "d1")) == (404, "ResourceGroupNotFound", text)


def test_a_disk_in_use_is_not_deleted(compute: Compute, settings: Settings) -> None:
    disk = empty_disk(compute, "d1")
    attach(compute, disk.id)
    with pytest.raises(ResourceExistsError):
        compute.disks.begin_delete("rg1", "d1")
    text = f"Disk d1 is attached to VM {settings.machine_id}."
    assert refusal(lambda: compute.disks.begin_delete("rg1", "d1")) == (409, "OperationNotAllowed", text)


def test_a_disk_does_not_shrink(compute: Compute) -> None:
    empty_disk(compute, "d1", size=2)
    status, code, _ = refusal(lambda: compute.disks.begin_update("rg1", "d1", {"properties": {"diskSizeGB": 1}}))
    assert (status, code) == (409, "ResizeDiskError")


@pytest.mark.parametrize(
    ("properties", "code", "part"),
    [
        ({}, "InvalidParameter", "Required parameter 'disk.creationData' is missing"),
        ({"creationData": {"createOption": "Empty"}}, "InvalidParameter", "'disk.diskSizeGB' is missing"),
        ({"creationData": {"createOption": "Empty"}, "diskSizeGB": 0}, "InvalidParameter", "'0'"),
        ({"creationData": {"createOption": "Magic"}}, "InvalidParameter", "'Magic'"),
        ({"creationData": {"createOption": "Copy"}}, "InvalidParameter", "sourceResourceId"),
        ({"creationData": {"createOption": "Copy", "sourceResourceId": "x"}}, "LinkedInvalidPropertyId", "'x'"),
        ({"creationData": {"createOption": "FromImage"}}, "InvalidParameter", "imageReference"),
    ],
)
def test_what_a_disk_needs(compute: Compute, properties: dict[str, Any], code: str, part: str) -> None:
    body = {"location": "westus2", "properties": properties}
    status, found, message = refusal(lambda: compute.disks.begin_create_or_update("rg1", "d1", body))
    assert (status, found) == (400, code) and part in message


def test_a_source_that_is_not_there(compute: Compute, settings: Settings) -> None:
    id_ = f"/subscriptions/{settings.subscription}/resourceGroups/rg1/providers/Microsoft.Compute/snapshots/none"
    found = refusal(lambda: disk_of(compute, "d1", {"createOption": "Copy", "sourceResourceId": id_}))
    assert found[:2] == (404, "ResourceNotFound")


def test_an_image_that_is_not_there(compute: Compute, settings: Settings) -> None:
    id_ = image_id(settings, "Debian:debian-12:12-gen2:9.9.9")
    found = refusal(lambda: disk_of(compute, "d1", {"createOption": "FromImage", "imageReference": {"id": id_}}))
    assert found[:2] == (404, "PlatformImageNotFound") and "'Debian:debian-12:12-gen2:9.9.9'" in found[2]


def test_how_a_disk_was_made_does_not_change(compute: Compute) -> None:
    empty_disk(compute, "d1")
    other = {"createOption": "Copy", "sourceResourceId": "/subscriptions/x"}
    status, code, message = refusal(lambda: disk_of(compute, "d1", other))
    assert (status, code) == (409, "PropertyChangeNotAllowed") and "creationData.createOption" in message


@pytest.mark.parametrize("name", ["_d", "-d", "d-", "d.", "d d", "d" * 81])
def test_a_name_has_a_rule(compute: Compute, name: str) -> None:
    status, code, message = refusal(lambda: empty_disk(compute, name))
    assert (status, code) == (400, "InvalidParameter") and "is invalid according to its validation rule" in message


def test_get_and_put_changes_only_what_was_changed(compute: Compute) -> None:
    disk = empty_disk(compute, "d1").as_dict()
    attach(compute, disk["id"])
    disk["tags"] = {"a": "b"}
    compute.disks.begin_create_or_update("rg1", "d1", disk).result()
    found = compute.disks.get("rg1", "d1")
    assert found.tags == {"a": "b"} and found.properties.disk_state == "Attached" and found.managed_by


def test_a_disk_stays_in_its_region(compute: Compute) -> None:
    empty_disk(compute, "d0")
    body = {"location": "eastus", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}}
    refused = refusal(lambda: compute.disks.begin_create_or_update("rg1", "d0", body))
    assert refused[:2] == (409, "InvalidResourceLocation")
    body["location"] = "atlantis"
    refused = refusal(lambda: compute.disks.begin_create_or_update("rg1", "d1", body))
    assert refused[:2] == (400, "LocationNotAvailableForResourceType")
    del body["location"]
    refused = refusal(lambda: compute.disks.begin_create_or_update("rg1", "d1", body))
    assert refused[:2] == (400, "LocationRequired")


@pytest.mark.parametrize("sku", ["Golden_LRS", "Standard_GRS", 3])
def test_a_sku_that_there_is_not(compute: Compute, sku: object) -> None:
    body = {
        "location": "westus2",
        "sku": {"name": sku},
        "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1},
    }
    refused = refusal(lambda: compute.disks.begin_create_or_update("rg1", "d1", body))
    assert refused[:2] == (400, "InvalidParameter")


@pytest.mark.parametrize("kind", ["qcow2", "vpc"])
def test_a_platform_image_of_another_format(settings: Settings, platform_file: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"image.{kind.replace('vpc', 'vhd')}"
    options = ["-o", "subformat=fixed,force_size=on"] if kind == "vpc" else []
    command = ["qemu-img", "convert", "-f", "raw", "-O", kind, *options, str(platform_file), str(path)]
    subprocess.run(command, check=True)
    with Emulator(replace(settings, images=(PlatformImage(URN, path),))) as emulator:
        compute = connect(emulator.url, settings)
        disk = platform_disk(compute, settings, "d1")
        assert disk.properties.disk_size_bytes == 16 * MIB
        assert content(emulator, disk.id, size=17 * MIB) == platform_file.read_bytes()
        version = compute.virtual_machine_images.get("westus2", *URN.split(":"))
        assert version.as_dict()["properties"]["osDiskImage"]["sizeInBytes"] == 16 * MIB
