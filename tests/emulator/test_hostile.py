"""Requests that nobody should send are refused, and nothing of them is left."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from pytest_azchroot.emulator.arm import ROUTES
from pytest_azchroot.emulator.emulator import Emulator

from .conftest import Compute, empty_disk, settled
from .test_images import definition
from .wire import ask, compute_path

pytestmark = pytest.mark.root

WRONG: tuple[Any, ...] = (None, -1, "text", [], [1], {}, {"id": 3, "name": []}, [{}])
"""In place of what should be there."""
FIELDS = (
    "location",
    "tags",
    "sku",
    "properties",
    "properties.creationData",
    "properties.creationData.createOption",
    "properties.creationData.imageReference",
    "properties.creationData.galleryImageReference",
    "properties.creationData.sourceResourceId",
    "properties.diskSizeGB",
    "properties.securityProfile",
    "properties.osType",
    "properties.storageProfile",
    "properties.storageProfile.osDisk",
    "properties.storageProfile.osDisk.managedDisk",
    "properties.storageProfile.dataDisks",
    "properties.storageProfile.osDiskImage",
    "properties.storageProfile.osDiskImage.source",
    "properties.storageProfile.dataDiskImages",
    "properties.storageProfile.source",
    "properties.publishingProfile",
    "properties.publishingProfile.targetRegions",
    "properties.publishingProfile.replicaCount",
    "properties.identifier",
    "properties.features",
    "properties.hyperVGeneration",
    "properties.hardwareProfile",
    "properties.hardwareProfile.vmSize",
    "properties.osProfile",
    "properties.networkProfile",
    "dataDisksToAttach",
    "dataDisksToDetach",
    "access",
    "durationInSeconds",
)
GOOD: dict[str, Any] = {
    "location": "westus2",
    "sku": {"name": "Standard_LRS"},
    "access": "Read",
    "durationInSeconds": 60,
    "properties": {
        "creationData": {"createOption": "Empty"},
        "diskSizeGB": 1,
        "osType": "Linux",
        "osState": "Generalized",
        "identifier": {"publisher": "p", "offer": "o", "sku": "s"},
        "hardwareProfile": {"vmSize": "Standard_B2s"},
        "storageProfile": {},
        "publishingProfile": {},
    },
}


def with_field(field: str, value: object) -> dict[str, Any]:
    """A body in which one thing is wrong."""

    def changed(body: dict[str, Any], names: list[str]) -> dict[str, Any]:
        inner = value if len(names) == 1 else changed(body.get(names[0]) or {}, names[1:])
        return {**body, names[0]: inner}

    return changed(GOOD, field.split("."))


TARGETS = sorted({(method, kind) for method, kind in ROUTES if method in {"PUT", "PATCH", "POST"}})


def path_of(kind: str, last: str | None = None) -> str:
    """A path of a kind, below the resource group; of what is there, or of another name."""
    types = kind.removesuffix("/*").split("/")
    names = {"virtualmachines": "vm1", "disks": "d1", "galleries": "gal", "images": "def", "versions": "1.0.0"}
    parts = [part for each in types for part in (each, names.get(each, "x"))]
    if kind.endswith("/*"):
        return "/".join(parts[:-1])
    return "/".join([*parts[:-1], last or parts[-1]])


@pytest.mark.parametrize(("method", "kind"), TARGETS)
def test_no_body_breaks_it(emulator: Emulator, compute: Compute, method: str, kind: str) -> None:
    empty_disk(compute, "d1")
    definition(compute)
    broken = []
    for number, (field, value) in enumerate((field, value) for field in FIELDS for value in WRONG):
        body = with_field(field, value)
        for path in {path_of(kind), path_of(kind, f"1.0.{number}" if kind.endswith("versions") else f"new{number}")}:
            answer = ask(emulator, method, path, body)
            if answer.status >= 500:
                broken.append((path, field, value, answer.body))
    assert broken == []
    settled(lambda: emulator.azure.operations.running() == [])
    failed = [each for each in emulator.azure.state.records("operation").values() if each["status"] == "Failed"]
    assert [each["error"] for each in failed if each["error"]["code"].startswith("Internal")] == []


@pytest.mark.parametrize(
    "text",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /subscriptions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET /subscriptions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"PUT /subscriptions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"BREW /subscriptions HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
)
def test_what_is_no_request(emulator: Emulator, text: bytes) -> None:
    address = urlsplit(emulator.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert ask(emulator, "GET", "virtualMachines/vm1").status == 200


@pytest.mark.parametrize("path", ["../../../etc/passwd", "disks/..%2F..%2Fetc", "disks/%00", "disks/a%2Fb", "disks/é"])
def test_paths_that_lead_elsewhere(emulator: Emulator, path: str) -> None:
    body = {"location": "westus2", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}}
    quoted = path.replace("é", "%C3%A9")
    assert 400 <= ask(emulator, "PUT", f"{compute_path(emulator)}/{quoted}", body).status < 500
    assert list(emulator.azure.store.directory.iterdir()) == []
