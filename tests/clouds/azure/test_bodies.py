"""What Azure is asked to make. As data."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.clouds.azure.bodies import (
    disk_body,
    disk_id,
    image_body,
    target_regions,
    temporary_name,
    version_body,
)
from pytest_azchroot.clouds.azure.sources import Source, disk_source, scratch
from pytest_azchroot.spec.azure_ids import parse_disk_id

from . import places
from .places import COMPUTE, GALLERY, MACHINE, ZONAL, World, order, spec

world = places.world
TAGS = {"azchroot-run": "r1"}
SOURCE = Source(
    id="/a/version",
    name="/a/Version",
    title="a:b:c:1.2.3",
    version="1.2.3",
    creation={"createOption": "FromImage", "imageReference": {"id": "/a/version"}},
    generation="V2",
    architecture="Arm64",
    size=30 << 30,
)
PLAN = {"name": "n", "publisher": "p", "product": "q"}
DISK = f"{COMPUTE}/disks/d"


def test_a_disk_says_all_that_its_source_says(tmp_path: Path) -> None:
    body = disk_body(SOURCE, spec(tmp_path), MACHINE, tags=TAGS)
    assert body == {
        "location": "westus2",
        "sku": {"name": "Premium_LRS"},
        "tags": TAGS,
        "properties": {
            "osType": "Linux",
            "hyperVGeneration": "V2",
            "supportedCapabilities": {"architecture": "Arm64"},
            "creationData": {"createOption": "FromImage", "imageReference": {"id": "/a/version"}},
        },
    }


def test_a_disk_is_enlarged_only_if_somebody_says_so(tmp_path: Path) -> None:
    assert "diskSizeGB" not in disk_body(SOURCE, spec(tmp_path), MACHINE, tags=TAGS)["properties"]
    assert disk_body(SOURCE, spec(tmp_path, os_disk_size_gb=64), MACHINE, tags=TAGS)["properties"]["diskSizeGB"] == 64


def test_a_disk_keeps_plan_and_security_type(tmp_path: Path) -> None:
    source = replace(SOURCE, plan=PLAN, security_type="TrustedLaunch")
    properties = disk_body(source, spec(tmp_path), MACHINE, tags=TAGS)["properties"]
    assert properties["purchasePlan"] == PLAN and properties["securityProfile"] == {"securityType": "TrustedLaunch"}


@pytest.mark.parametrize(
    ("machine", "storage", "zones"),
    [
        (MACHINE, "Premium_LRS", None),
        (ZONAL, "Premium_LRS", ["2"]),
        (ZONAL, "StandardSSD_LRS", ["2"]),
        (ZONAL, "Premium_ZRS", None),
        (ZONAL, "StandardSSD_ZRS", None),
    ],
)
def test_a_disk_is_in_the_zone_of_its_machine(tmp_path: Path, machine: Any, storage: str, zones: Any) -> None:
    body = disk_body(SOURCE, spec(tmp_path, os_disk_storage_account_type=storage), machine, tags=TAGS)
    assert body.get("zones") == zones and body["sku"] == {"name": storage}


def test_a_disk_from_scratch(tmp_path: Path) -> None:
    wanted = spec(tmp_path, from_scratch=True, os_disk_size_gb=8, pre_mount_commands=["x"])
    properties = disk_body(scratch(wanted), wanted, MACHINE, tags=TAGS)["properties"]
    assert properties["creationData"] == {"createOption": "Empty"}
    assert properties["diskSizeGB"] == 8 and properties["hyperVGeneration"] == "V1"


def test_a_managed_image_keeps_generation_caching_and_storage(tmp_path: Path) -> None:
    options = {"os_disk_cache_type": "ReadWrite", "os_disk_storage_account_type": "StandardSSD_LRS"}
    body = image_body(SOURCE, spec(tmp_path, **options), MACHINE, disk_id=DISK, tags=TAGS)
    assert body["location"] == "westus2" and body["tags"] == TAGS
    assert body["properties"] == {
        "hyperVGeneration": "V2",
        "storageProfile": {
            "osDisk": {
                "osType": "Linux",
                "osState": "Generalized",
                "managedDisk": {"id": DISK},
                "caching": "ReadWrite",
                "storageAccountType": "StandardSSD_LRS",
            },
            "dataDisks": [],
        },
    }


def test_a_gallery_version_is_made_of_the_disk_itself(tmp_path: Path) -> None:
    found = spec(tmp_path, shared_image_destination={**GALLERY, "exclude_from_latest": True})
    assert found.shared_image_destination is not None
    body = version_body(found, found.shared_image_destination, MACHINE, disk_id=DISK, tags=TAGS)
    assert body == {
        "location": "westus2",
        "tags": TAGS,
        "properties": {
            "publishingProfile": {
                "targetRegions": [{"name": "westus2", "regionalReplicaCount": 1}],
                "excludeFromLatest": True,
            },
            "storageProfile": {"osDiskImage": {"hostCaching": "ReadOnly", "source": {"id": DISK}}},
        },
    }


def test_target_regions_have_the_defaults_that_are_documented(tmp_path: Path) -> None:
    regions = [{"name": "westus2"}, {"name": "East US", "replicas": 3, "storage_account_type": "Premium_LRS"}]
    found = spec(tmp_path, shared_image_destination={**GALLERY, "target_regions": regions})
    assert found.shared_image_destination is not None
    assert target_regions(found.shared_image_destination, MACHINE) == [
        {"name": "westus2", "regionalReplicaCount": 1, "storageAccountType": "Standard_ZRS"},
        {"name": "East US", "regionalReplicaCount": 3, "storageAccountType": "Premium_LRS"},
    ]


class TestNames:
    """What is temporary has a name that nobody else has, and that Azure takes."""

    @pytest.mark.parametrize(
        ("image", "run"),
        [
            ("debian", "20250101T000000Z-4f3a"),
            ("x" * 200, "20250101T000000Z-4f3a"),
            ("_köln.-", "r"),
            ("a", "y" * 300),
            ("trailing-._" * 8, "r"),
        ],
    )
    def test_azure_takes_it(self, image: str, run: str) -> None:
        name = temporary_name(image, run)
        assert re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,78}[A-Za-z0-9_]", name)

    def test_it_says_whose_it_is(self) -> None:
        assert temporary_name("debian", "r1", unique="u") == "azchroot-debian-r1-u"

    def test_a_long_image_loses_nothing_that_makes_it_unique(self) -> None:
        assert temporary_name("x" * 100, "run", unique="abcd").endswith("-run-abcd")

    def test_two_of_one_image_and_run_differ(self) -> None:
        assert temporary_name("debian", "r1") != temporary_name("debian", "r1")

    def test_long_runs_that_begin_the_same_differ(self) -> None:
        one, other = (temporary_name("d", "r" * 60 + end, unique="u") for end in "ab")
        assert one != other

    def test_it_is_beside_the_machine(self, tmp_path: Path) -> None:
        assert str(disk_id(order(tmp_path), MACHINE, "r1", unique="u")) == f"{COMPUTE}/disks/azchroot-debian-r1-u"

    def test_the_spec_may_name_it(self, tmp_path: Path) -> None:
        wanted = order(tmp_path, temporary_os_disk_id=f"{COMPUTE}/disks/mine")
        assert str(disk_id(wanted, MACHINE, "r1")) == f"{COMPUTE}/disks/mine"


@pytest.mark.root
class TestTaken:
    """Azure takes them, and makes of them what they say."""

    def test_by_azure(self, world: World, tmp_path: Path) -> None:
        world.definition()
        wanted = spec(tmp_path, shared_image_destination=GALLERY, os_disk_size_gb=3)
        origin = disk_source(parse_disk_id(world.disk(hyperVGeneration="V2")), {"location": "westus2"}, wanted, MACHINE)
        origin = replace(origin, generation="V2", plan=PLAN)
        compute, destination = world.compute, wanted.shared_image_destination
        assert destination is not None
        body = disk_body(origin, wanted, ZONAL, tags=TAGS)
        made = compute.disks.begin_create_or_update("rg1", "work", body).result()
        assert made["zones"] == ["2"] and made["tags"] == TAGS and made["properties"]["diskSizeGB"] == 3
        assert made["properties"]["purchasePlan"] == PLAN

        body = image_body(origin, wanted, MACHINE, disk_id=made["id"], tags=TAGS)
        image = compute.images.begin_create_or_update("rg1", "golden", body).result()["properties"]
        assert image["hyperVGeneration"] == "V2"
        assert image["storageProfile"]["osDisk"]["caching"] == "ReadOnly"
        assert image["storageProfile"]["osDisk"]["storageAccountType"] == "Premium_LRS"

        place = ("rg1", "linux", "debian", "1.0.0")
        body = version_body(wanted, destination, MACHINE, disk_id=made["id"], tags=TAGS)
        version = compute.gallery_image_versions.begin_create_or_update(*place, body).result()
        (region,) = version["properties"]["publishingProfile"]["targetRegions"]
        assert (region["name"], region["regionalReplicaCount"]) == ("West US 2", 1)
