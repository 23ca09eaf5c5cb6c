"""The front door of Azure Resource Manager, and what is only read."""

from __future__ import annotations

import pytest

from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import Settings

from .conftest import URN, Compute, empty_disk
from .test_disks import refusal
from .wire import ask, compute_path

pytestmark = pytest.mark.root


def test_without_a_token_the_tenant_is_told(emulator: Emulator, settings: Settings) -> None:
    answer = ask(emulator, "GET", f"/subscriptions/{settings.subscription}", token=None)
    assert (answer.status, answer.error["code"]) == (401, "AuthenticationFailed")
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith(f'Bearer authorization_uri="https://login.windows.net/{settings.tenant}", error=')


def test_the_api_version_is_required(emulator: Emulator) -> None:
    answer = ask(emulator, "GET", f"{compute_path(emulator)}/disks?api-version=")
    assert (answer.status, answer.error["code"]) == (400, "MissingApiVersionParameter")


def test_paths_have_no_case(emulator: Emulator) -> None:
    path = f"{compute_path(emulator)}/virtualMachines/vm1".upper()
    assert ask(emulator, "GET", path).json["id"] == emulator.settings.machine_id


def test_every_answer_has_a_request_id(emulator: Emulator) -> None:
    answer = ask(emulator, "GET", "disks/none", headers={"x-ms-client-request-id": "mine"})
    assert len(answer.headers["x-ms-request-id"]) == 36
    assert answer.headers["x-ms-client-request-id"] == "mine"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/subscriptions/00000000-0000-0000-0000-000000000000/locations", 404, "SubscriptionNotFound"),
        ("GET", "toasters/t1", 404, "InvalidResourceType"),
        ("POST", "disks/d1/toast", 404, "InvalidResourceType"),
        ("DELETE", "disks", 405, "MethodNotAllowed"),
        ("GET", "/elsewhere", 404, "NotFound"),
    ],
)
def test_what_there_is_not(emulator: Emulator, method: str, path: str, status: int, code: str) -> None:
    answer = ask(emulator, method, path)
    assert (answer.status, answer.error["code"]) == (status, code)


@pytest.mark.parametrize("body", [b"{", b"[]", b'"text"', b"\xff\xfe"])
def test_a_body_that_is_no_object(emulator: Emulator, body: bytes) -> None:
    answer = ask(emulator, "PUT", "disks/d1", body)
    assert (answer.status, answer.error["code"]) == (400, "InvalidRequestContent")


def test_a_body_of_the_wrong_shape(emulator: Emulator) -> None:
    answer = ask(emulator, "PUT", "disks/d1", {"location": "westus2", "properties": 3})
    assert (answer.status, answer.error["code"]) == (400, "InvalidRequestContent")
    assert ask(emulator, "GET", "disks/d1").status == 404


def test_subscriptions_tenants_and_locations(emulator: Emulator, settings: Settings) -> None:
    assert ask(emulator, "GET", f"/subscriptions/{settings.subscription}").json["tenantId"] == settings.tenant
    (found,) = ask(emulator, "GET", "/subscriptions").json["value"]
    assert found["subscriptionId"] == settings.subscription and found["state"] == "Enabled"
    (found,) = ask(emulator, "GET", "/tenants").json["value"]
    assert found["tenantId"] == settings.tenant
    locations = ask(emulator, "GET", f"/subscriptions/{settings.subscription}/locations").json["value"]
    assert {"westus2": "West US 2"}.items() <= {each["name"]: each["displayName"] for each in locations}.items()


def test_providers(emulator: Emulator, settings: Settings) -> None:
    (found,) = ask(emulator, "GET", f"/subscriptions/{settings.subscription}/providers").json["value"]
    assert found["namespace"] == "Microsoft.Compute" and found["registrationState"] == "Registered"
    assert "disks" in [each["resourceType"] for each in found["resourceTypes"]]


def test_resource_groups(emulator: Emulator, settings: Settings) -> None:
    group = f"/subscriptions/{settings.subscription}/resourceGroups/new"
    assert ask(emulator, "HEAD", group).status == 404
    assert ask(emulator, "GET", group).error["code"] == "ResourceGroupNotFound"
    assert ask(emulator, "PUT", group, {"location": "West Europe"}).status == 201
    assert ask(emulator, "PUT", group, {"location": "westeurope", "tags": {"a": "b"}}).status == 200
    assert ask(emulator, "GET", group).json["tags"] == {"a": "b"}
    assert ask(emulator, "HEAD", group).status == 204
    names = [each["name"] for each in ask(emulator, "GET", group.rsplit("/", 1)[0]).json["value"]]
    assert names == ["rg1", "new"]
    answer = ask(emulator, "DELETE", group)
    assert answer.status == 202
    while ask(emulator, "GET", answer.headers["location"]).status == 202:
        pass
    assert ask(emulator, "GET", group).status == 404


@pytest.mark.parametrize("scope", ["virtualMachines/vm1", "group"])
def test_tags_at_a_scope(emulator: Emulator, scope: str) -> None:
    above = compute_path(emulator).removesuffix("/providers/Microsoft.Compute") if scope == "group" else ""
    path = f"{above or f'{compute_path(emulator)}/{scope}'}/providers/Microsoft.Resources/tags/default"
    assert ask(emulator, "PUT", path, {"properties": {"tags": {"a": "1", "b": "2"}}}).status == 200
    for operation, tags, after in (
        ("Merge", {"b": "3", "c": "4"}, {"a": "1", "b": "3", "c": "4"}),
        ("Delete", {"a": "1", "b": "2"}, {"b": "3", "c": "4"}),
        ("Replace", {"d": "5"}, {"d": "5"}),
    ):
        answer = ask(emulator, "PATCH", path, {"operation": operation, "properties": {"tags": tags}})
        assert answer.json["properties"]["tags"] == after
    assert ask(emulator, "GET", path).json["properties"]["tags"] == {"d": "5"}
    assert ask(emulator, "GET", path.rsplit("/providers/", 1)[0]).json["tags"] == {"d": "5"}
    assert ask(emulator, "DELETE", path).status == 200
    assert ask(emulator, "GET", path).json["properties"]["tags"] == {}
    assert ask(emulator, "GET", path.replace("vm1", "vm9").replace("rg1", "rg9")).status == 404


def test_resources_of_a_group(emulator: Emulator, compute: Compute, settings: Settings) -> None:
    empty_disk(compute, "d1")
    found = ask(emulator, "GET", f"/subscriptions/{settings.subscription}/resourceGroups/rg1/resources").json["value"]
    assert [each["type"] for each in found] == ["Microsoft.Compute/virtualMachines", "Microsoft.Compute/disks"]


# -- the marketplace


def test_versions_are_a_bare_list_by_name(compute: Compute) -> None:
    arguments = ("westus2", "Debian", "debian-12", "12-gen2")
    found = compute.virtual_machine_images.list(*arguments, top=2, orderby="name desc")
    assert [each.name for each in found] == ["0.20250101.1", "0.20241201.9"]  # by text, as Azure does
    assert len(compute.virtual_machine_images.list(*arguments)) == 3


def test_latest_is_the_highest_by_number(compute: Compute) -> None:
    found = compute.virtual_machine_images.get("westus2", "Debian", "debian-12", "12-gen2", "latest")
    assert found.name == URN.split(":")[3]
    assert found.properties.hyper_v_generation == "V2" and found.properties.architecture == "x64"
    assert found.properties.os_disk_image.operating_system == "Linux"


def test_the_marketplace_from_the_top(compute: Compute) -> None:
    images = compute.virtual_machine_images
    assert [each.name for each in images.list_publishers("westus2")] == ["Debian"]
    assert [each.name for each in images.list_offers("westus2", "Debian")] == ["debian-11", "debian-12"]
    assert [each.name for each in images.list_skus("westus2", "Debian", "debian-12")] == ["12-gen2"]
    assert images.get("westus2", "debian", "DEBIAN-11", "11", "0.20240101.1").properties.hyper_v_generation == "V1"


def test_an_image_that_is_not_there(compute: Compute) -> None:
    get = compute.virtual_machine_images.get
    text = "Artifact: VMImage was not found."
    assert refusal(lambda: get("westus2", "Debian", "debian-12", "12-gen2", "1.1.1")) == (404, "NotFound", text)
    refused = refusal(lambda: compute.virtual_machine_images.list("atlantis", "Debian", "debian-12", "12-gen2"))
    assert refused[:2] == (400, "NoRegisteredProviderFound")


def test_sizes_and_skus(compute: Compute) -> None:
    found = {each.name: each for each in compute.virtual_machine_sizes.list("westus2")}
    assert found["Standard_D4s_v5"].max_data_disk_count == 8
    skus = {sku.name: sku for sku in compute.resource_skus.list(filter="location eq 'westus2'")}
    capabilities = {each.name: each.value for each in skus["Standard_D4s_v6"].capabilities}
    assert capabilities["MaxDataDiskCount"] == "12" and capabilities["DiskControllerTypes"] == "NVMe"
    assert skus["Premium_LRS"].resource_type == "disks"
