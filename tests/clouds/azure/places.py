"""What tests of sources and destinations build from and for: the emulator's machine, orders, galleries, disks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.clouds import Order
from pytest_azchroot.clouds.azure.broker import Room
from pytest_azchroot.clouds.azure.calls import Calls
from pytest_azchroot.clouds.azure.client import Azure
from pytest_azchroot.clouds.azure.credentials import credential
from pytest_azchroot.clouds.azure.environments import PUBLIC
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.emulator.settings import SUBSCRIPTION
from pytest_azchroot.spec import BUILTIN_CLOUDS, load
from pytest_azchroot.spec.model import ImageSpec

MACHINE = Machine(
    name="vm1",
    subscription_id=SUBSCRIPTION,
    resource_group="rg1",
    location="westus2",
    resource_id=f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1",
    size="Standard_D4s_v5",
)
"""The machine that the emulator says this is."""
ZONAL = replace(MACHINE, zone="2")
COMPUTE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute"
SKU = "Debian:debian-12:12-gen2"
URN = f"{SKU}:0.20241201.10"
IMAGE = f"{COMPUTE}/images/golden"
VERSIONS = f"{COMPUTE}/galleries/linux/images/debian/versions"
GALLERY: dict[str, Any] = {
    "resource_group": "rg1",
    "gallery_name": "linux",
    "image_name": "debian",
    "image_version": "1.0.0",
}
DEFINITION: dict[str, Any] = {
    "osType": "Linux",
    "osState": "Generalized",
    "hyperVGeneration": "V2",
    "architecture": "x64",
    "identifier": {"publisher": "p", "offer": "o", "sku": "s"},
}

Make = Callable[..., Any]


def order(directory: Path, *, publish: bool = True, overwrite: bool = False, coming: str = "", **options: Any) -> Order:
    """An order for the image ``debian``, of a platform image for a managed image if the options say nothing else."""
    options = {"cloud": "azure", **({} if "from_scratch" in options else {"source": URN}), **options}
    if not options.keys() & {"image_resource_id", "shared_image_destination", "skip_create_image"}:
        options["image_resource_id"] = IMAGE
    directory.mkdir(exist_ok=True)
    path = directory / "image.yaml"
    path.write_text(json.dumps(options))
    configuration = load(path, clouds=BUILTIN_CLOUDS, environ={})
    known = frozenset(filter(None, [coming]))
    return Order("debian", directory, configuration, publish=publish, overwrite=overwrite, coming=known)


def spec(directory: Path, **options: Any) -> ImageSpec:
    """The spec of such an order."""
    return order(directory, **options).configuration.spec


def plenty() -> Room:
    """A machine with room."""
    return Room(used=1, limit=8)


@pytest.fixture
def azure(azure_emulator: AzureEmulator) -> Iterator[Azure]:
    """Azure, asked with the machine's identity."""
    found = Azure(credential(ImageSpec(), None, PUBLIC), calls=Calls())
    yield found
    found.close()


def asked(emulator: AzureEmulator) -> list[str]:
    """The names of the calls so far, but for tokens, sorted: many go at once."""
    return sorted(call["name"] for call in emulator.calls() if "token" not in call["name"])


class World:
    """Makes what is there already, as somebody else did."""

    def __init__(self, emulator: AzureEmulator) -> None:
        self.compute: Any = emulator.compute()
        self.emulator = emulator

    def disk(self, name: str = "golden", *, location: str = "westus2", **options: Any) -> str:
        """A disk of 2 GiB. Options are properties, or ``zones``."""
        body: dict[str, Any] = {"location": location}
        if "zones" in options:
            body["zones"] = options.pop("zones")
        body["properties"] = {"creationData": {"createOption": "Empty"}, "diskSizeGB": 2, **options}
        return str(self.compute.disks.begin_create_or_update("rg1", name, body).result()["id"])

    def image(self, name: str = "golden") -> str:
        """A managed image."""
        disk = {"osType": "Linux", "osState": "Generalized", "managedDisk": {"id": self.disk(f"{name}-disk")}}
        body = {"location": "westus2", "properties": {"storageProfile": {"osDisk": disk}}}
        return str(self.compute.images.begin_create_or_update("rg1", name, body).result()["id"])

    def gallery(self, *, location: str = "westus2") -> None:
        """The gallery ``linux``."""
        self.compute.galleries.begin_create_or_update("rg1", "linux", {"location": location}).result()

    def definition(self, name: str = "debian", *, location: str = "westus2", **properties: Any) -> None:
        """An image definition in a gallery ``linux``."""
        self.gallery(location=location)
        body = {"location": location, "properties": {**DEFINITION, **properties}}
        self.compute.gallery_images.begin_create_or_update("rg1", "linux", name, body).result()

    def version(self, name: str = "1.0.0", *, wait: bool = True, location: str = "westus2", **profile: Any) -> str:
        """A version of ``linux/debian``, whose definition must be there."""
        disk = self.disk(f"of-{name}-{location}", location=location, hyperVGeneration="V2", osType="Linux")
        body = {
            "location": location,
            "properties": {
                "publishingProfile": profile,
                "storageProfile": {"osDiskImage": {"source": {"id": disk}}},
            },
        }
        poller = self.compute.gallery_image_versions.begin_create_or_update("rg1", "linux", "debian", name, body)
        if wait:
            poller.result()
        return f"{VERSIONS}/{name}"

    def forget_calls(self) -> int:
        """How many calls there were so far."""
        return len(self.emulator.calls())


@pytest.fixture
def world(azure_emulator: AzureEmulator) -> World:
    """What is there already."""
    return World(azure_emulator)
