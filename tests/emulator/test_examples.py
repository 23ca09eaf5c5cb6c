"""The examples of the REST API's specification are answered in kind: status, headers, and fields of their types."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from pytest_azchroot.emulator.arm import ROUTES
from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import Machine, Settings

TABLES = Path(__file__).parent / "examples"
GROUP = "myResourceGroup"
KINDS: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "number": (int, float),
    "flag": bool,
    "list": list,
    "object": dict,
}


def _examples() -> Iterator[Any]:
    for path in sorted(TABLES.glob("*.yaml")):
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        for example in table["examples"]:
            marks = [pytest.mark.root] if example.get("root") else []
            yield pytest.param(table["api-version"], example, id=example["example"].rsplit("/")[-1], marks=marks)


class Client:
    """Sends plain HTTP requests, and waits for operations."""

    def __init__(self, emulator: Emulator) -> None:
        self._url = emulator.url
        self.subscription = f"/subscriptions/{emulator.settings.subscription}"
        self.group = f"{self.subscription}/resourceGroups/{GROUP}"
        self.compute = f"{self.group}/providers/Microsoft.Compute"

    def filled(self, value: Any) -> Any:
        """A body with the ids of this emulator."""
        names = {"group": self.group, "compute": self.compute, "subscription": self.subscription.split("/")[-1]}
        return json.loads(Template(json.dumps(value)).substitute(names))

    def send(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, dict[str, str], Any]:
        """Status, headers (by lower-case name) and content of the answer."""
        base = f"{self.subscription}/providers/Microsoft.Compute" if path.startswith("/") else f"{self.compute}/"
        url = f"{self._url}{base}{path}?{urllib.parse.urlencode(query)}"
        return self._open(method, url, body)

    def result(self, headers: dict[str, str]) -> Any:
        """What the operation that an answer names ends in."""
        status = "InProgress"
        while status == "InProgress":
            _, _, operation = self._open("GET", headers["azure-asyncoperation"])
            status = operation["status"]
        assert status == "Succeeded", operation
        if "location" not in headers:
            return None
        return self._open("GET", headers["location"])[2]

    def make(self, path: str, body: Any, *, method: str = "PUT") -> None:
        """Send a request that must succeed, and wait."""
        status, headers, answer = self.send(method, path, self.filled(body), **{"api-version": "2024-03-02"})
        assert status in (200, 201, 202), answer
        if "azure-asyncoperation" in headers:
            self.result(headers)

    def _open(self, method: str, url: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": "Bearer token", "Content-Type": "application/json"}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with opener.open(request, timeout=30) as answer:
                content, status, found = answer.read(), answer.status, answer.headers
        except urllib.error.HTTPError as error:
            content, status, found = error.read(), error.code, error.headers
        parsed = json.loads(content) if content else None
        return status, {name.lower(): value for name, value in found.items()}, parsed


def _disk(client: Client, name: str) -> None:
    client.make(f"disks/{name}", _resource({"creationData": {"createOption": "Empty"}, "diskSizeGB": 4}))


def _platform_disk(client: Client, name: str) -> None:
    version = (
        "/subscriptions/$subscription/providers/Microsoft.Compute/locations/westus/publishers/Debian/artifacttypes/"
        "vmimage/offers/debian-12/skus/12-gen2/versions/0.20250101.1"
    )
    creation = {"createOption": "FromImage", "imageReference": {"id": version}}
    properties = {"osType": "Linux", "hyperVGeneration": "V2", "securityProfile": {"securityType": "TrustedLaunch"}}
    client.make(f"disks/{name}", _resource({"creationData": creation, "diskSizeGB": 4, **properties}))


def _snapshot(client: Client, name: str, *, incremental: bool = False) -> None:
    creation = {"createOption": "Copy", "sourceResourceId": "$compute/disks/myDisk0"}
    client.make(f"snapshots/{name}", _resource({"creationData": creation, "incremental": incremental}))


def _image(client: Client, name: str) -> None:
    os_disk = {"osType": "Linux", "osState": "Generalized", "managedDisk": {"id": "$compute/disks/myDisk0"}}
    data = [{"lun": 1, "managedDisk": {"id": "$compute/disks/myDisk1"}}]
    properties = {"hyperVGeneration": "V1", "storageProfile": {"osDisk": os_disk, "dataDisks": data}}
    client.make(f"images/{name}", _resource(properties))


def _gallery(client: Client, name: str) -> None:
    client.make(f"galleries/{name}", _resource({"description": "for images"}))


def _definition(client: Client, name: str) -> None:
    identifier = {"publisher": "myPublisherName", "offer": "myOfferName", "sku": "mySkuName"}
    properties = {"osType": "Linux", "osState": "Generalized", "hyperVGeneration": "V1", "identifier": identifier}
    client.make(f"galleries/myGalleryName/images/{name}", _resource(properties))


def _version(client: Client, name: str) -> None:
    source = {"osDiskImage": {"source": {"id": "$compute/disks/myDisk0"}}}
    properties = {
        "publishingProfile": {"targetRegions": [{"name": "West US", "excludeFromLatest": False}]},
        "storageProfile": source,
        "safetyProfile": {"allowDeletionOfReplicatedLocations": False},
    }
    client.make(f"galleries/myGalleryName/images/myGalleryImageName/versions/{name}", _resource(properties))


def _grant(client: Client, path: str) -> None:
    client.make(f"{path}/beginGetAccess", {"access": "Read", "durationInSeconds": 300}, method="POST")


def _attached(client: Client, name: str) -> None:
    body = {"dataDisksToAttach": [{"diskId": f"$compute/disks/{name}"}]}
    client.make("virtualMachines/myVM/attachDetachDataDisks", body, method="POST")


def _machine(client: Client, name: str) -> None:
    image = {"publisher": "Debian", "offer": "debian-12", "sku": "12-gen2", "version": "latest"}
    storage = {"imageReference": image, "osDisk": {"createOption": "FromImage"}}
    client.make(
        f"virtualMachines/{name}",
        _resource({"hardwareProfile": {"vmSize": "Standard_D4s_v5"}, "storageProfile": storage}),
    )


def _resource(properties: dict[str, Any]) -> dict[str, Any]:
    tags = {"department": "Development", "project": "Emulator"}
    return {"location": "West US", "tags": tags, "properties": properties}


RECIPES: dict[str, Callable[[Client, str], None]] = {
    "disk": _disk,
    "platform disk": _platform_disk,
    "snapshot": _snapshot,
    "incremental snapshot": lambda client, name: _snapshot(client, name, incremental=True),
    "image": _image,
    "gallery": _gallery,
    "definition": _definition,
    "version": _version,
    "grant": _grant,
    "attached": _attached,
    "machine": _machine,
}
"""How what an example needs is made."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, location="westus", machine=Machine(group=GROUP, name="myVM"))


@pytest.mark.parametrize(("version", "example"), list(_examples()))
def test_an_example_is_answered_in_kind(emulator: Emulator, version: str, example: dict[str, Any]) -> None:
    client = Client(emulator)
    for need in example.get("needs", ()):
        kind, _, name = need.rpartition(" ")
        RECIPES[kind](client, name)
    method, path = example["call"].split()
    query = {"api-version": version, **example.get("query", {})}
    status, headers, answer = client.send(method, path, client.filled(example.get("body")), **query)
    assert status in example["status"], answer
    assert {name.lower() for name in example.get("headers", {}).get(status, ())} <= headers.keys()
    ended = client.result(headers) if "azure-asyncoperation" in headers else None
    if method in ("PUT", "PATCH") and status != 202:
        _, _, ended = client.send("GET", path, **{"api-version": version})
    wanted = {(kind, path) for kind in KINDS for path in example.get(kind, "").split()}
    missing = {path for kind, path in wanted if not any(is_of(KINDS[kind], each, path) for each in (answer, ended))}
    assert " ".join(sorted(missing)) == " ".join(sorted(example.get("lacks", "").split()))


def is_of(kind: type | tuple[type, ...], value: Any, path: str) -> bool:
    """Whether what a path leads to is there and of a kind."""
    for part in path.replace("[]", ".[]").strip(".").split("."):
        if part == "[]":
            if not isinstance(value, list) or not value:
                return False
            value = value[0]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return False
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


WITHOUT_EXAMPLE = {("GET", "locations/vmsizes/*")}
"""Routes of which the specification has no example."""


def test_every_operation_has_an_example() -> None:
    routes = {_route(*each.values[1]["call"].split()) for each in _examples()}
    assert set(ROUTES) - routes == WITHOUT_EXAMPLE and routes <= set(ROUTES)


def _route(method: str, path: str) -> tuple[str, str]:
    parts = path.strip("/").lower().split("/")
    if parts[0] == "locations":
        parts = ["locations", *parts[1:]]
        types, whole = ["locations", *parts[2::2]], len(parts) % 2 == 0
    else:
        types, whole = parts[0::2], len(parts) % 2 == 0
    return method, "/".join(types) + ("" if whole else "/*")
