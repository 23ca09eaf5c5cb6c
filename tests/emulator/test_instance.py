"""What a machine is told about itself, by version, by part and in either form."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_azchroot.emulator.http import Request
from pytest_azchroot.emulator.imds import ADDRESS, NO_LIMITS, Imds
from pytest_azchroot.emulator.instance import SINCE, VERSIONS, compute
from pytest_azchroot.emulator.tokens import ManagedIdentities

from .azure import DISK_ID, SUBSCRIPTION, VM_ID, Azure, machine
from .metadata import LATEST, ask, content


@pytest.fixture
def imds(azure: Azure) -> Imds:
    return azure.imds


# -- documents


def primitives(value: object) -> list[object]:
    if isinstance(value, dict):
        return [each for part in value.values() for each in primitives(part)]
    return [each for part in value for each in primitives(part)] if isinstance(value, list) else [value]


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_all_primitives_are_text(imds: Imds, version: str) -> None:
    status, found = ask(imds, "/metadata/instance", ("api-version", version))
    assert status == 200 and {type(each) for each in primitives(found)} == {str}


@pytest.mark.parametrize("version", ["2017-04-02", "2017-08-01", "2017-12-01"])
def test_first_versions_are_flat(imds: Imds, version: str) -> None:
    """Packer decodes into a map of text to text."""
    _, found = ask(imds, "/metadata/instance/compute", ("api-version", version))
    assert {type(value) for value in found.values()} == {str}


def test_fields_of_2017_08_01(imds: Imds) -> None:
    """Those of the specification's example."""
    _, found = ask(imds, "/metadata/instance/compute", ("api-version", "2017-08-01"))
    assert list(found) == [
        *("location", "name", "offer", "osType", "placementGroupId", "platformFaultDomain", "platformUpdateDomain"),
        *("publisher", "resourceGroupName", "sku", "subscriptionId", "tags", "version", "vmId", "vmSize"),
    ]


@pytest.mark.parametrize(("path", "version"), SINCE.items())
def test_a_field_is_there_since_its_version(path: str, version: str) -> None:
    def has(at: str) -> bool:
        value: Any = compute(machine(), at)
        for name in path.split("."):
            value = value[0] if isinstance(value, list) else value
            if name not in value:
                return False
            value = value[name]
        return True

    assert has(version) and has(LATEST) and not has(VERSIONS[VERSIONS.index(version) - 1])


def test_versions_are_an_ordered_list_that_a_field_belongs_to() -> None:
    assert list(VERSIONS) == sorted(set(VERSIONS)) and set(SINCE.values()) <= set(VERSIONS)


def test_what_packer_reads(imds: Imds) -> None:
    _, found = ask(imds, "/metadata/instance/compute", ("api-version", "2017-08-01"))
    wanted = {"name": "vm1", "resourceGroupName": "rg1", "subscriptionId": SUBSCRIPTION, "location": "westus2"}
    assert wanted.items() <= found.items()


def test_values_of_the_latest_version(imds: Imds) -> None:
    _, found = ask(imds, "/metadata/instance/compute")
    assert found["resourceId"] == VM_ID
    assert found["zone"] == "3"
    assert found["version"] == "0.20250101.1"
    assert found["tags"] == "purpose:build;team:images"
    assert found["tagsList"] == [{"name": "purpose", "value": "build"}, {"name": "team", "value": "images"}]
    assert found["securityProfile"] == {
        "secureBootEnabled": "true",
        "virtualTpmEnabled": "true",
        "encryptionAtHost": "",
        "securityType": "TrustedLaunch",
    }
    assert found["osProfile"] == {
        "adminUsername": "azureuser",
        "computerName": "vm1",
        "disablePasswordAuthentication": "true",
    }


def test_data_disks(imds: Imds) -> None:
    _, found = ask(imds, "/metadata/instance/compute/storageProfile/dataDisks", ("api-version", "2019-06-01"))
    assert found == [
        {
            "caching": "ReadOnly",
            "createOption": "Attach",
            "diskSizeGB": "1024",
            "image": {"uri": ""},
            "lun": "0",
            "managedDisk": {"id": DISK_ID, "storageAccountType": "Premium_LRS"},
            "name": "data1",
            "vhd": {"uri": ""},
            "writeAcceleratorEnabled": "false",
        }
    ]


def test_disks_are_those_of_now(azure: Azure) -> None:
    vm = machine()
    imds = Imds(lambda: vm, ManagedIdentities(azure.tokens), limits=NO_LIMITS)
    path = "/metadata/instance/compute/storageProfile/dataDisks"
    assert len(ask(imds, path)[1]) == 1
    vm["properties"]["storageProfile"]["dataDisks"].clear()
    assert ask(imds, path) == (200, [])


def test_network(imds: Imds) -> None:
    _, found = ask(imds, "/metadata/instance/network/interface/0/ipv4")
    assert found == {
        "ipAddress": [{"privateIpAddress": "10.0.0.4", "publicIpAddress": ""}],
        "subnet": [{"address": "10.0.0.0", "prefix": "24"}],
    }


# -- parts and forms


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/metadata/instance", "compute/\nnetwork/"),
        ("/metadata/instance/compute/name", "vm1"),
        ("/metadata/Instance/Compute/Name/", "vm1"),
        ("/metadata/instance/compute/plan", "name\nproduct\npublisher"),
        ("/metadata/instance/network/interface", "0/"),
        ("/metadata/instance/network/interface/0/ipv4/ipAddress/0/privateIpAddress", "10.0.0.4"),
        ("/metadata/instance/compute/evictionPolicy", ""),
    ],
)
def test_text_form(imds: Imds, path: str, text: str) -> None:
    assert ask(imds, path, ("format", "text")) == (200, text)


def test_a_leaf_has_no_json_form(imds: Imds) -> None:
    assert ask(imds, "/metadata/instance/compute/name")[0] == 400
    assert ask(imds, "/metadata/instance/compute/name", ("format", "json"))[0] == 400


def test_an_unknown_form_is_refused(imds: Imds) -> None:
    assert ask(imds, "/metadata/instance", ("format", "xml"))[0] == 400


@pytest.mark.parametrize(
    "path",
    [
        *("/metadata", "/metadata/", "/metadata/nothing", "/metadata/instance/nothing", "/metadata/identity"),
        *("/metadata/instance/compute/name/more", "/metadata/instance/network/interface/1", "/metadata/versions/more"),
        *("/metadata/instance/network/interface/-1", "/metadata/identity/oauth2/nothing", "/metadata/loadbalancer"),
    ],
)
def test_what_does_not_exist(imds: Imds, path: str) -> None:
    assert ask(imds, path, ("format", "text")) == (404, {"error": "Not found"})


def test_a_field_does_not_exist_before_its_version(imds: Imds) -> None:
    query = (("api-version", "2017-08-01"), ("format", "text"))
    assert ask(imds, "/metadata/instance/compute/resourceId", *query)[0] == 404


# -- versions


def test_versions_need_no_version(imds: Imds) -> None:
    status, found = content(
        imds.answer(Request("GET", "http", ADDRESS, "/metadata/versions", headers={"metadata": "true"}))
    )
    assert status == 200 and found == {"apiVersions": list(VERSIONS)}


@pytest.mark.parametrize("version", ["", "latest", "2017-03-01", "2017-08-02", "2030-01-01"])
def test_an_unknown_version_is_told_the_newest(imds: Imds, version: str) -> None:
    """2017-03-01 is of scheduled events alone."""
    status, found = ask(imds, "/metadata/instance", ("api-version", version))
    assert status == 400
    assert found["error"].startswith("Bad request. api-version is invalid or was not specified in the request.")
    assert found["newest-versions"] == ["2025-04-07", "2024-07-17", "2024-03-15"]


def test_no_version_at_all(imds: Imds) -> None:
    request = Request("GET", "http", ADDRESS, "/metadata/instance", headers={"metadata": "true"})
    status, found = content(imds.answer(request))
    assert status == 400 and "newest-versions" in found
