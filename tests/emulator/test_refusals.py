"""What Azure says to mistakes that azure-cli lets its users make; and the filters that it sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import Machine, Settings

from .wire import Answer, ask, compute_path

EMPTY: dict[str, Any] = {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}


def made(emulator: Emulator, name: str, *, location: str = "westus2", **body: Any) -> str:
    """An empty disk's id."""
    answer = ask(emulator, "PUT", f"disks/{name}", {"location": location, "properties": EMPTY, **body})
    assert answer.status == 202, answer.body
    assert ask(emulator, "GET", answer.headers["azure-asyncoperation"]).json["status"] == "Succeeded"
    return f"{compute_path(emulator)}/disks/{name}"


def attached(emulator: Emulator, disk: str) -> Answer:
    return ask(emulator, "POST", "virtualMachines/vm1/attachDetachDataDisks", {"dataDisksToAttach": [{"diskId": disk}]})


def test_a_disk_of_another_region_is_not_attached(emulator: Emulator) -> None:
    disk = made(emulator, "d1", location="eastus")
    answer = attached(emulator, disk)
    assert (answer.status, answer.error["code"]) == (400, "BadRequest")
    assert answer.error["message"] == (
        f"Disk {disk} cannot be attached to the VM because it is not in the same location as the VM. VM location: "
        "'westus2'. Disk location: 'eastus'."
    )


@pytest.mark.parametrize(
    ("zone", "disk", "said"),
    [
        ("1", {}, "it is not in zone '1'."),
        ("1", {"zones": ["2"]}, "it is not in the same zone as the VM. VM zone: '1'. Disk zone: '2'."),
        (None, {"zones": ["2"]}, "it is not in the same zone as the VM. VM zone: ''. Disk zone: '2'."),
        ("1", {"zones": ["1"]}, None),
        ("1", {"sku": {"name": "Premium_ZRS"}}, None),
    ],
)
@pytest.mark.root
def test_a_disk_of_another_zone_is_not_attached(
    again: Callable[..., Emulator], zone: str | None, disk: dict[str, Any], said: str | None
) -> None:
    with again(machine=Machine(zone=zone)) as emulator:
        id_ = made(emulator, "d1", **disk)
        answer = attached(emulator, id_)
        if said is None:
            assert answer.status == 202
        else:
            text = f"Disk {id_} cannot be attached to the VM because {said}"
            assert (answer.status, answer.error) == (400, {"code": "BadRequest", "message": text})


def test_an_image_is_not_made_of_a_machine_that_is_not_generalized(emulator: Emulator) -> None:
    source = {"sourceVirtualMachine": {"id": emulator.settings.machine_id}}
    answer = ask(emulator, "PUT", "images/i1", {"location": "westus2", "properties": source})
    text = "The operation 'Create Image' requires the Virtual Machine 'vm1' to be Generalized."
    assert (answer.status, answer.error) == (409, {"code": "OperationNotAllowed", "message": text})


def test_an_image_is_in_the_region_of_its_disk(emulator: Emulator) -> None:
    disk = {"osType": "Linux", "osState": "Generalized", "managedDisk": {"id": made(emulator, "d1", location="eastus")}}
    body = {"location": "westus2", "properties": {"storageProfile": {"osDisk": disk}}}
    answer = ask(emulator, "PUT", "images/i1", body)
    assert (answer.status, answer.error["code"]) == (400, "InvalidParameter")
    assert "'eastus'" in answer.error["message"] and ".raw" not in answer.error["message"]


def test_what_is_nested_is_named_by_its_path(emulator: Emulator) -> None:
    definition = {
        "osType": "Linux",
        "osState": "Generalized",
        "hyperVGeneration": "V1",
        "identifier": {"publisher": "p", "offer": "o", "sku": "s"},
    }
    disk = made(emulator, "d1")
    version = {
        "publishingProfile": {"targetRegions": [{"name": "westus2"}]},
        "storageProfile": {"osDiskImage": {"source": {"id": disk}}},
    }
    for path, properties in (
        ("galleries/g", {}),
        ("galleries/g/images/d", definition),
        ("galleries/g/images/d/versions/1.0.0", version),
    ):
        answer = ask(emulator, "PUT", path, {"location": "westus2", "properties": properties})
        assert answer.status == 201, answer.body
    for path, nested in (("galleries/g", "images/d"), ("galleries/g/images/d", "versions/1.0.0")):
        answer = ask(emulator, "DELETE", path)
        assert (answer.status, answer.error["code"]) == (409, "CannotDeleteResource")
        assert f"IDs include: 'Microsoft.Compute/{path}/{nested}'." in answer.error["message"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("tagName eq 'a' and tagValue eq '1'", ["d1"]),
        ("tagname eq 'A'", ["d1", "d2"]),
        ("tagName eq 'c'", []),
        ("resourceType eq 'Microsoft.Compute/disks' and location eq 'westus2'", ["d1", "d2"]),
        ("name eq 'VM1'", ["vm1"]),
        ("resourceGroup eq 'RG1' and name eq 'd2'", ["d2"]),
        ("tagName eq 'b' and tagValue eq 'it''s'", ["d2"]),
        ("resourceGroup eq 'rg2'", []),
        ("", ["vm1", "d1", "d2"]),
    ],
)
def test_resources_are_filtered(emulator: Emulator, settings: Settings, asked: str, found: list[str]) -> None:
    made(emulator, "d1", tags={"a": "1"})
    made(emulator, "d2", tags={"a": "2", "b": "it's"})
    path = f"/subscriptions/{settings.subscription}/resources?$filter={asked.replace(' ', '%20')}"
    assert [each["name"] for each in ask(emulator, "GET", path).json["value"]] == found


def test_a_filter_that_is_not_known_is_refused(emulator: Emulator, settings: Settings) -> None:
    path = f"/subscriptions/{settings.subscription}/resources?$filter=startswith(tagName,%20'a')"
    assert ask(emulator, "GET", path).error["code"] == "InvalidFilterInQueryString"
