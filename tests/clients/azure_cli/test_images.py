"""Managed images and galleries, in the words of azure-cli."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cli import Cli
from .conftest import URN, marked
from .test_disks import content

pytestmark = pytest.mark.root

OFFER = "--publisher p --offer o --os-type Linux --os-state Generalized"
VERSION = "-g rg1 -r images -i debian"


@pytest.fixture(scope="module")
def source(az: Cli) -> str:
    """A disk with something in it."""
    return str(az(f"disk create -g rg1 -n source --image-reference {URN}")["id"])


@pytest.fixture(scope="module")
def gallery(az: Cli) -> str:
    """A gallery with a definition of the second generation."""
    made = az("sig create -g rg1 -r images")
    assert made["provisioningState"] == "Succeeded"
    made = az(
        f"sig image-definition create {VERSION} {OFFER} -s v2 --hyper-v-generation V2 --features SecurityType=Standard"
    )
    assert (made["hyperVGeneration"], made["architecture"]) == ("V2", "x64")
    return "images"


def test_a_managed_image(az: Cli, source: str) -> None:
    made = az("image create -g rg1 -n image --source source --os-type Linux --hyper-v-generation V2 --tags a=b")
    assert (made["provisioningState"], made["hyperVGeneration"]) == ("Succeeded", "V2")
    assert made["storageProfile"]["osDisk"]["managedDisk"]["id"] == source
    assert az("image show -g rg1 -n image")["tags"] == {"a": "b"}
    assert [each["name"] for each in az("image list -g rg1")] == ["image"]
    az("image update -g rg1 -n image --set tags.a=c")
    assert az("image show -g rg1 -n image")["tags"] == {"a": "c"}
    az("image delete -g rg1 -n image")
    assert az("image list -g rg1") == []


def test_a_version_of_a_disk_becomes_a_disk(az: Cli, source: str, gallery: str, tmp_path: Path) -> None:
    made = az(f"sig image-version create {VERSION} -e 1.0.0 --target-regions westus2 eastus=2 --os-snapshot {source}")
    assert made["provisioningState"] == "Succeeded"
    shown = az(f"sig image-version show {VERSION} -e 1.0.0 --expand ReplicationStatus")
    assert shown["replicationStatus"]["aggregatedState"] == "Completed"
    assert [each["region"] for each in shown["replicationStatus"]["summary"]] == ["West US 2", "East US"]
    az(
        "disk create -g rg1 -n of-version --gallery-image-reference {compute}/galleries/images/images/debian/versions/1.0.0"
    )
    assert marked(content(az, "disk", "of-version", tmp_path))


def test_a_version_of_a_managed_image(az: Cli, source: str, gallery: str) -> None:
    az("image create -g rg1 -n between --source source --os-type Linux --hyper-v-generation V2")
    az(f"sig image-version create {VERSION} -e 1.1.0 --managed-image between")
    az("image delete -g rg1 -n between")
    assert az(f"sig image-version show {VERSION} -e 1.1.0")["provisioningState"] == "Succeeded"


def test_a_version_is_changed(az: Cli, source: str, gallery: str) -> None:
    az(f"sig image-version create {VERSION} -e 1.2.0 --os-snapshot {source}")
    shown = az(f"sig image-version update {VERSION} -e 1.2.0 --set publishingProfile.excludeFromLatest=true")
    assert shown["publishingProfile"]["excludeFromLatest"] is True
    az(f"sig image-version update {VERSION} -e 1.2.0 --add publishingProfile.targetRegions name=eastus")
    regions = az(f"sig image-version show {VERSION} -e 1.2.0")["publishingProfile"]["targetRegions"]
    assert [each["name"] for each in regions] == ["West US 2", "East US"]


def test_all_of_it_is_deleted_from_below(az: Cli, source: str) -> None:
    az("sig create -g rg1 -r deleted")
    below = "-g rg1 -r deleted -i debian"
    az(f"sig image-definition create {below} {OFFER} -s v2 --hyper-v-generation V2 --features SecurityType=Standard")
    az(f"sig image-version create {below} -e 1.0.0 --os-snapshot {source}")
    assert [each["name"] for each in az(f"sig image-version list {below}")] == ["1.0.0"]
    said = az.mistake("sig delete -g rg1 -r deleted")
    assert "(CannotDeleteResource)" in said and "'Microsoft.Compute/galleries/deleted/images/debian'" in said
    az(f"sig image-version delete {below} -e 1.0.0")
    az(f"sig image-definition delete {below}")
    az("sig delete -g rg1 -r deleted")
    assert "deleted" not in [each["name"] for each in az("sig list -g rg1")]
