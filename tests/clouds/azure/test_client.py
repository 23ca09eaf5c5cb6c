"""Asking Azure, and waiting for what it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pytest_azchroot.clouds.azure.calls import Calls
from pytest_azchroot.clouds.azure.client import Azure, Operation
from pytest_azchroot.clouds.azure.credentials import credential
from pytest_azchroot.clouds.azure.environments import PUBLIC
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.spec.model import ImageSpec

pytestmark = pytest.mark.root

EMPTY = {"location": "westus2", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}}


@pytest.fixture
def azure(azure_emulator: AzureEmulator) -> Iterator[Azure]:
    """With the machine's identity."""
    found = Azure(credential(ImageSpec(), None, PUBLIC), calls=Calls())
    yield found
    found.close()


def make(azure: Azure, emulator: AzureEmulator, name: str = "x", **options: Any) -> Operation[Any]:
    """Begin to make an empty disk."""
    disks = azure.compute(emulator.subscription_id).disks
    return azure.begin(f"creating disk {name}", disks.begin_create_or_update, "rg1", name, EMPTY, **options)


def test_an_operation_ends(azure: Azure, azure_emulator: AzureEmulator) -> None:
    disk = make(azure, azure_emulator).wait(10)
    assert disk["properties"]["diskState"] == "Unattached"
    assert [call["name"] for call in azure_emulator.calls()] == [
        "GET /metadata/identity/oauth2/token",
        "PUT disks",
        "GET DiskOperations",
        "GET disks",
    ]
