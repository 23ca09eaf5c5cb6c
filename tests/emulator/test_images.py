"""Managed images, galleries and their versions: made, read back, used as sources."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError

from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import Profile, Settings

from .conftest import (
    MARK,
    MARK_AT,
    Compute,
    attach,
    connect,
    detach,
    disk_of,
    empty_disk,
    platform_disk,
)
from .test_disks import content, refusal
from .test_machines import lun_link

pytestmark = pytest.mark.root
WRITTEN = b"provisioned"
WRITTEN_AT = 6 * 1024**2


def image_of(compute: Compute, disk: str, name: str = "i1", **properties: Any) -> Any:
    """Make a managed image of a disk, and wait."""
    os_disk = {"osType": "Linux", "osState": "Generalized", "managedDisk": {"id": disk}}
    body = {
        "location": "westus2",
        "properties": {"hyperVGeneration": "V2", "storageProfile": {"osDisk": os_disk}, **properties},
    }
    return compute.images.begin_create_or_update("rg1", name, body).result()


def definition(compute: Compute, name: str = "def", **properties: Any) -> Any:
    """Make a gallery, and a definition in it."""
    compute.galleries.begin_create_or_update("rg1", "gal", {"location": "westus2"}).result()
    body = {
        "location": "westus2",
        "properties": {
            "osType": "Linux",
            "osState": "Generalized",
            "hyperVGeneration": "V2",
            "identifier": {"publisher": "p", "offer": "o", "sku": name},
            **properties,
        },
    }
    return compute.gallery_images.begin_create_or_update("rg1", "gal", name, body).result()


def begin_version(compute: Compute, source: dict[str, Any], name: str = "1.0.0", **publishing: Any) -> Any:
    """Begin to make a version of the definition."""
    body = {"location": "westus2", "properties": {"storageProfile": source, "publishingProfile": publishing}}
    return compute.gallery_image_versions.begin_create_or_update("rg1", "gal", "def", name, body)


def of_disk(id_: str) -> dict[str, Any]:
    """The storage profile of a version that is made of a disk or snapshot."""
    return {"osDiskImage": {"source": {"id": id_}}}


@pytest.fixture
def provisioned(compute: Compute, settings: Settings) -> Any:
    """A disk of the platform image, changed through its device on the machine."""
    disk = platform_disk(compute, settings, "provisioned")
    attach(compute, disk.id)
    with lun_link(settings, 0).open("r+b") as device:
        device.seek(WRITTEN_AT)
        device.write(WRITTEN)
    detach(compute, disk.id)
    return disk


def assert_provisioned(data: bytes) -> None:
    """The bytes are those of the platform image, with what was written."""
    assert data[MARK_AT:].startswith(MARK)
    assert data[WRITTEN_AT:].startswith(WRITTEN)


def test_a_managed_image_and_a_disk_of_it(compute: Compute, emulator: Emulator, provisioned: Any) -> None:
    image = image_of(compute, provisioned.id)
    assert image.properties.provisioning_state == "Succeeded" and image.properties.hyper_v_generation == "V2"
    assert image.properties.storage_profile.os_disk.disk_size_gb == 1
    compute.disks.begin_delete("rg1", "provisioned").result()
    assert_provisioned(content(emulator, image.id, "os"))
    disk = disk_of(compute, "d2", {"createOption": "FromImage", "imageReference": {"id": image.id}})
    assert_provisioned(content(emulator, disk.id))


def test_a_version_of_a_disk_and_a_disk_of_it(compute: Compute, emulator: Emulator, provisioned: Any) -> None:
    definition(compute)
    version = begin_version(compute, of_disk(provisioned.id)).result()
    compute.disks.begin_delete("rg1", "provisioned").result()
    disk = disk_of(compute, "d2", {"createOption": "FromImage", "galleryImageReference": {"id": version.id}})
    assert_provisioned(content(emulator, disk.id))
    assert disk.properties.hyper_v_generation == "V2"


def test_a_version_of_a_snapshot_with_a_data_disk(compute: Compute, emulator: Emulator, provisioned: Any) -> None:
    definition(compute)
    creation = {"createOption": "Copy", "sourceResourceId": provisioned.id}
    body = {"location": "westus2", "properties": {"creationData": creation}}
    snapshot = compute.snapshots.begin_create_or_update("rg1", "s1", body).result()
    data = empty_disk(compute, "data")
    source = {**of_disk(snapshot.id), "dataDiskImages": [{"lun": 2, "source": {"id": data.id}}]}
    version = begin_version(compute, source).result()
    creation = {"createOption": "FromImage", "galleryImageReference": {"id": version.id, "lun": 2}}
    assert disk_of(compute, "d2", creation).properties.disk_size_bytes == 1024**3
    creation = {"createOption": "FromImage", "galleryImageReference": {"id": version.id, "lun": 3}}
    assert refusal(lambda: disk_of(compute, "d3", creation))[:2] == (400, "InvalidParameter")


def test_a_version_of_a_managed_image(compute: Compute, emulator: Emulator, provisioned: Any) -> None:
    definition(compute)
    image = image_of(compute, provisioned.id)
    version = begin_version(compute, {"source": {"id": image.id}}).result()
    assert_provisioned(content(emulator, version.id, "os"))


def test_an_image_while_its_disk_is_attached(compute: Compute, emulator: Emulator, settings: Settings) -> None:
    disk = platform_disk(compute, settings, "d1")
    attach(compute, disk.id)
    with lun_link(settings, 0).open("r+b") as device:
        device.seek(WRITTEN_AT)
        device.write(WRITTEN)
    assert_provisioned(content(emulator, image_of(compute, disk.id).id, "os"))


def test_replication_is_told_only_if_asked(settings: Settings) -> None:
    slow = replace(settings, profile=Profile({"versions.create": 0.4}))
    with Emulator(slow) as emulator:
        compute = connect(emulator.url, slow)
        disk = platform_disk(compute, slow, "d1")
        definition(compute)
        regions = [{"name": "West US 2"}, {"name": "westeurope", "regionalReplicaCount": 2}]
        poller = begin_version(compute, of_disk(disk.id), targetRegions=regions)
        versions = compute.gallery_image_versions
        assert versions.get("rg1", "gal", "def", "1.0.0").properties.replication_status is None
        during = versions.get("rg1", "gal", "def", "1.0.0", expand="ReplicationStatus").properties
        assert during.provisioning_state == "Creating" and during.replication_status.aggregated_state == "InProgress"
        poller.result()
        after = versions.get("rg1", "gal", "def", "1.0.0", expand="ReplicationStatus").properties
        assert after.replication_status.aggregated_state == "Completed"
        assert [each.region for each in after.replication_status.summary] == ["West US 2", "West Europe"]
        assert [each.name for each in after.publishing_profile.target_regions] == ["West US 2", "West Europe"]


def test_a_version_s_regions_change_and_its_bytes_do_not(compute: Compute, provisioned: Any) -> None:
    definition(compute)
    begin_version(compute, of_disk(provisioned.id)).result()
    regions = [{"name": "West US 2"}, {"name": "East US"}]
    body = {"properties": {"publishingProfile": {"targetRegions": regions}}}
    version = compute.gallery_image_versions.begin_update("rg1", "gal", "def", "1.0.0", body).result()
    assert [each.name for each in version.properties.publishing_profile.target_regions] == ["West US 2", "East US"]


def test_lists(compute: Compute, provisioned: Any) -> None:
    definition(compute)
    begin_version(compute, of_disk(provisioned.id)).result()
    image_of(compute, provisioned.id)
    assert [each.name for each in compute.galleries.list()] == ["gal"]
    assert [each.name for each in compute.gallery_images.list_by_gallery("rg1", "gal")] == ["def"]
    assert [each.name for each in compute.gallery_image_versions.list_by_gallery_image("rg1", "gal", "def")] == [
        "1.0.0"
    ]
    assert [each.name for each in compute.images.list_by_resource_group("rg1")] == ["i1"]


def test_deleting_goes_from_the_bottom(compute: Compute, emulator: Emulator, provisioned: Any) -> None:
    definition(compute)
    begin_version(compute, of_disk(provisioned.id)).result()
    image_of(compute, provisioned.id)
    status, code, message = refusal(lambda: compute.galleries.begin_delete("rg1", "gal"))
    assert (status, code) == (409, "CannotDeleteResource")
    assert message.startswith("Cannot delete resource while nested resources exist.")
    compute.gallery_image_versions.begin_delete("rg1", "gal", "def", "1.0.0").result()
    compute.gallery_images.begin_delete("rg1", "gal", "def").result()
    compute.galleries.begin_delete("rg1", "gal").result()
    compute.images.begin_delete("rg1", "i1").result()
    with pytest.raises(ResourceNotFoundError):
        compute.images.get("rg1", "i1")
    assert len(os.listdir(emulator.azure.store.directory)) == 1  # the disk's


# -- refusals


def test_a_version_needs_its_definition(compute: Compute, provisioned: Any) -> None:
    definition(compute)
    compute.gallery_images.begin_delete("rg1", "gal", "def").result()
    status, code, message = refusal(lambda: begin_version(compute, of_disk(provisioned.id)))
    assert (status, code) == (404, "ParentResourceNotFound")
    assert "'write' on resource(s) of type 'galleries/images/versions'" in message
    assert message.endswith("/galleries/gal/images/def' could not be found.")


def test_the_generation_must_match(compute: Compute, provisioned: Any) -> None:
    definition(compute, hyperVGeneration="V1")
    text = (
        f"The resource with id '{provisioned.id}' has a different Hypervisor generation ['V2'] than the parent gallery "
        "image Hypervisor generation ['V1']."
    )
    assert refusal(lambda: begin_version(compute, of_disk(provisioned.id))) == (409, "Conflict", text)


@pytest.mark.parametrize(
    ("of_definition", "of_source", "fits"),
    [
        (None, None, True),
        ("TrustedLaunchSupported", None, True),
        ("TrustedLaunch", None, False),
        ("TrustedLaunch", "TrustedLaunch", True),
        (None, "TrustedLaunch", False),
        ("ConfidentialVM", "ConfidentialVM_DiskEncryptedWithPlatformKey", True),
    ],
)
def test_the_security_type_must_match(
    compute: Compute, of_definition: str | None, of_source: str | None, fits: bool
) -> None:
    features = [] if of_definition is None else [{"name": "SecurityType", "value": of_definition}]
    definition(compute, features=features)
    profile: dict[str, Any] = {} if of_source is None else {"securityProfile": {"securityType": of_source}}
    disk = empty_disk(compute, "d1", osType="Linux", hyperVGeneration="V2", **profile)
    if fits:
        begin_version(compute, of_disk(disk.id)).result()
    else:
        assert refusal(lambda: begin_version(compute, of_disk(disk.id)))[:2] == (409, "Conflict")


def test_a_version_is_replicated_to_where_it_is(compute: Compute, provisioned: Any) -> None:
    definition(compute)
    regions = [{"name": "North Europe"}]
    text = "Gallery image version publishing profile regions 'North Europe' must contain the location of image version 'West US 2'."
    refused = refusal(lambda: begin_version(compute, of_disk(provisioned.id), targetRegions=regions))
    assert refused == (400, "InvalidParameter", text)


def test_a_version_can_be_used_only_where_it_is_replicated(compute: Compute, provisioned: Any) -> None:
    definition(compute)
    version = begin_version(compute, of_disk(provisioned.id), targetRegions=[{"name": "westus2"}]).result()
    creation = {"createOption": "FromImage", "galleryImageReference": {"id": version.id}}
    body = {"location": "eastus", "properties": {"creationData": creation}}
    status, code, message = refusal(lambda: compute.disks.begin_create_or_update("rg1", "d2", body))
    assert (status, code) == (404, "GalleryImageNotFound") and "is not available in eastus region" in message


@pytest.mark.parametrize("name", ["1.0", "1.0.0.0", "v1.0.0", "1.0.99999999999"])
def test_a_version_s_name(compute: Compute, provisioned: Any, name: str) -> None:
    definition(compute)
    assert refusal(lambda: begin_version(compute, of_disk(provisioned.id), name))[:2] == (400, "InvalidParameter")


def test_a_definition_keeps_its_generation(compute: Compute) -> None:
    definition(compute)
    assert refusal(lambda: definition(compute, hyperVGeneration="V1"))[:2] == (409, "PropertyChangeNotAllowed")


@pytest.mark.parametrize("missing", ["osType", "osState", "identifier"])
def test_what_a_definition_needs(compute: Compute, missing: str) -> None:
    properties: dict[str, Any] = {missing: None}
    status, code, message = refusal(lambda: definition(compute, **properties))
    assert (status, code) == (400, "InvalidParameter") and missing in message


def test_an_image_needs_a_disk(compute: Compute, settings: Settings) -> None:
    id_ = settings.machine_id.replace("virtualMachines/vm1", "disks/none")
    assert refusal(lambda: image_of(compute, id_))[:2] == (404, "ResourceNotFound")
    body = {"location": "westus2", "properties": {"storageProfile": {}}}
    assert refusal(lambda: compute.images.begin_create_or_update("rg1", "i", body))[:2] == (400, "InvalidParameter")
