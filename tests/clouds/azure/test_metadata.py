"""Which virtual machine this is."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from pytest_azchroot.clouds.azure import metadata
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.metadata import machine, parsed
from pytest_azchroot.emulator.http import Request, Response
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.emulator.settings import Machine as Played
from pytest_azchroot.emulator.settings import Settings
from pytest_azchroot.errors import UnavailableError
from tests.emulator.azure import Azure
from tests.emulator.parts import azure_directory
from tests.emulator.serving import serving

# pytest finds it here
__all__ = ["azure_directory"]

COMPUTE = {
    "azEnvironment": "AzureUSGovernmentCloud",
    "location": "usgovvirginia",
    "name": "vm1",
    "resourceGroupName": "rg1",
    "resourceId": "/subscriptions/s/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1",
    "subscriptionId": "s",
    "tagsList": [{"name": "team", "value": "images; and:more"}],
    "vmId": "44444444-4444-4444-4444-444444444444",
    "vmScaleSetName": "",
    "vmSize": "Standard_D4s_v5",
    "zone": "2",
}


@pytest.fixture
def azure_emulator_settings(azure_emulator_settings: Settings) -> Settings:
    return dataclasses.replace(azure_emulator_settings, machine=Played(group="rg7", name="vm7", zone="3"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "_PAUSES", (0.01,))
    monkeypatch.setattr(metadata, "_ANSWER_WITHIN", 0.2)


def test_a_machine() -> None:
    assert parsed({"compute": COMPUTE}) == Machine(
        name="vm1",
        subscription_id="s",
        resource_group="rg1",
        location="usgovvirginia",
        resource_id=COMPUTE["resourceId"],  # type: ignore[arg-type]
        zone="2",
        size="Standard_D4s_v5",
        vm_id="44444444-4444-4444-4444-444444444444",
        environment="AzureUSGovernmentCloud",
        tags={"team": "images; and:more"},
    )


@pytest.mark.parametrize(
    ("said", "end"),
    [
        ({}, "virtualMachines/vm1"),
        ({"name": "set-a_3", "vmScaleSetName": "set-a"}, "virtualMachineScaleSets/set-a/virtualMachines/3"),
        ({"name": "set-a_000003", "vmScaleSetName": "other"}, "virtualMachines/set-a_000003"),
        # flexible orchestration: a machine of its own, although it belongs to a set
        ({"name": "set-a_1f2e3d4c", "vmScaleSetName": "set-a"}, "virtualMachines/set-a_1f2e3d4c"),
    ],
)
def test_its_id_where_the_service_does_not_say_it(said: Mapping[str, str], end: str) -> None:
    compute = {**COMPUTE, "resourceId": "", **said}
    assert parsed({"compute": compute}).resource_id == (
        f"/subscriptions/s/resourceGroups/rg1/providers/Microsoft.Compute/{end}"
    )


def test_what_may_be_missing() -> None:
    needed = ("name", "subscriptionId", "resourceGroupName", "location")
    found = parsed({"compute": {name: COMPUTE[name] for name in needed}})
    assert (found.zone, found.size, found.vm_id, found.environment, found.tags) == (
        None,
        "",
        "",
        "AzurePublicCloud",
        {},
    )


@pytest.mark.parametrize("document", [None, [], {}, {"compute": None}, {"compute": {"name": "vm1"}}, "text"])
def test_something_else(document: Any) -> None:
    with pytest.raises(UnavailableError, match=r"does not describe a virtual machine(.|\n)*azchroot emulator"):
        parsed(document)


@pytest.mark.root
class TestOnAMachine:
    def test_it_says_what_it_is(self, azure_emulator: AzureEmulator) -> None:
        found = machine()
        assert found.resource_id == azure_emulator.vm_id
        assert (found.name, found.resource_group, found.zone, found.location) == ("vm7", "rg7", "3", "westus2")
        assert found.subscription_id == azure_emulator.subscription_id and found.vm_id and found.size

    def test_at_the_usual_address(self, azure_emulator: AzureEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
        """And not through a proxy, whatever the environment says."""
        monkeypatch.delenv("AZURE_POD_IDENTITY_AUTHORITY_HOST")
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        assert machine().name == "vm7"

    @pytest.mark.parametrize(
        "fault", [{"status": 429, "retry_after": 1}, {"status": 410}, {"status": 500}, {"status": 503}, {"reset": True}]
    )
    def test_it_stumbles(self, azure_emulator: AzureEmulator, fault: dict[str, Any]) -> None:
        azure_emulator.fault(call="GET /metadata/instance", nth=1, **fault)
        assert machine().name == "vm7"
        assert [call["status"] for call in azure_emulator.calls()] == [fault.get("status"), 200]

    @pytest.mark.usefixtures("impatient")
    @pytest.mark.parametrize("fault", [{"status": 429}, {"status": 410}, {"status": 500}, {"reset": True}])
    def test_it_does_not_recover(self, azure_emulator: AzureEmulator, fault: dict[str, Any]) -> None:
        azure_emulator.fault(call="GET /metadata/instance", **fault)
        with pytest.raises(UnavailableError, match="the metadata service does not answer in time"):
            machine(timeout=0.3)
        assert len(azure_emulator.calls()) > 2

    def test_it_refuses(self, azure_emulator: AzureEmulator) -> None:
        azure_emulator.fault(call="GET /metadata/instance", status=403, message="not here")
        with pytest.raises(UnavailableError, match=r"refuses to answer: it answers 403: .*not here"):
            machine()
        assert len(azure_emulator.calls()) == 1


def test_nobody_is_there() -> None:
    with pytest.raises(UnavailableError) as error:
        machine(address="http://127.0.0.1:1")
    told = str(error.value)
    assert told.startswith("no metadata service answers at http://127.0.0.1:1: this is no Azure VM: ")
    assert "hint: " in told and "azchroot emulator" in told


@pytest.mark.usefixtures("impatient")
def test_nobody_answers() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(UnavailableError, match="no metadata service answers at "):
        machine(address=f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Response(302, {"Location": "http://127.0.0.1:1/metadata/instance"}, b""), "refuses to answer: it answers 302"),
        (Response(200, {"Content-Type": "text/html"}, b"<html>log in</html>"), "answers with no JSON"),
        (Response.of_json(200, {"hello": "world"}), "does not describe a virtual machine"),
    ],
)
def test_somebody_else_answers(azure_directory: Any, answer: Response, said: str) -> None:
    asked: list[Request] = []

    def answered(request: Request) -> Response:
        asked.append(request)
        return answer

    with serving(answered, Azure(azure_directory).authority) as served, pytest.raises(UnavailableError, match=said):
        machine(address=served.url)
    assert len(asked) == 1 and asked[0].header("Metadata") == "true"
