"""An emulator of one's own, and clients that nobody here wrote."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.compute import ComputeManagementClient

from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import PlatformImage, Settings

from .isolation import plain_environment, pytest_runtest_protocol
from .parts import azure, azure_directory, proxied, served

# pytest finds them here
__all__ = ["azure", "azure_directory", "plain_environment", "proxied", "pytest_runtest_protocol", "served"]

MIB = 1024**2
Compute = Any
"""Azure's client. Its types know models and no plain dictionaries, which are what is sent here."""
URN = "Debian:debian-12:12-gen2:0.20250101.1"
MARK = b"this is the platform image"
MARK_AT = 5 * MIB


class StaticCredential:
    """A token that is as good as any."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Of the SDK's protocol."""
        return AccessToken("token", int(time.time()) + 3600)


class PlainHttp(SansIOHTTPPolicy[Any, Any]):
    """Lets the SDK send its token without TLS, polls included."""

    def on_request(self, request: Any) -> None:
        """Of the SDK's protocol."""
        request.context.options["enforce_https"] = False


def connect(url: str, settings: Settings, **options: Any) -> Compute:
    """Azure's SDK, pointed at an emulator."""
    return ComputeManagementClient(
        StaticCredential(),
        settings.subscription,
        base_url=url,
        credential_scopes=["https://management.azure.com/.default"],
        per_call_policies=[PlainHttp()],
        polling_interval=0.05,
        **options,
    )


@pytest.fixture(scope="session")
def platform_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk image of 16 MiB with two partitions, and a mark in the first."""
    path = tmp_path_factory.mktemp("platform") / "debian.raw"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
        file.seek(MARK_AT)
        file.write(MARK)
    table = b"label: gpt\nstart=4MiB, size=8MiB\nsize=1MiB\n"
    subprocess.run(["sfdisk", "--quiet", "--no-tell-kernel", path], input=table, check=True)
    return path


@pytest.fixture
def settings(tmp_path: Path, platform_file: Path) -> Settings:
    """Of the emulator; override it for another."""
    images = (
        PlatformImage(URN, platform_file),
        PlatformImage("Debian:debian-12:12-gen2:0.20241201.10", platform_file),
        PlatformImage("Debian:debian-12:12-gen2:0.20241201.9", platform_file),
        PlatformImage("Debian:debian-11:11:0.20240101.1", platform_file),
    )
    return Settings(directory=tmp_path / "azure", images=images)


@pytest.fixture
def emulator(settings: Settings) -> Iterator[Emulator]:
    """It runs."""
    with Emulator(settings) as running:
        yield running


@pytest.fixture
def compute(emulator: Emulator) -> Compute:
    """The SDK's client of that emulator."""
    return connect(emulator.url, emulator.settings)


@pytest.fixture
def again(settings: Settings) -> Callable[..., Emulator]:
    """Another emulator in the same directory, not yet started."""
    return lambda **changes: Emulator(replace(settings, **changes))


def image_id(settings: Settings, urn: str = URN) -> str:
    """The id of a version in the marketplace."""
    publisher, offer, sku, version = urn.split(":")
    return (
        f"/subscriptions/{settings.subscription}/providers/Microsoft.Compute/locations/westus2/publishers/{publisher}"
        f"/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions/{version}"
    )


def empty_disk(compute: Compute, name: str, *, size: int = 1, **properties: Any) -> Any:
    """Make an empty disk of so many GiB, and wait for it."""
    body = {
        "location": "westus2",
        "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": size, **properties},
    }
    return compute.disks.begin_create_or_update("rg1", name, body).result()


def disk_of(compute: Compute, name: str, creation: dict[str, Any], **properties: Any) -> Any:
    """Make a disk of something, and wait for it."""
    body = {"location": "westus2", "properties": {"creationData": creation, **properties}}
    return compute.disks.begin_create_or_update("rg1", name, body).result()


def platform_disk(compute: Compute, settings: Settings, name: str) -> Any:
    """Make a disk of the platform image, and wait for it."""
    return disk_of(compute, name, {"createOption": "FromImage", "imageReference": {"id": image_id(settings)}})


def attach(compute: Compute, *disks: str, **options: Any) -> Any:
    """Attach disks to the machine, and wait; returns its storage profile."""
    wanted = [{"diskId": disk, **options} for disk in disks]
    poller = compute.virtual_machines.begin_attach_detach_data_disks("rg1", "vm1", {"dataDisksToAttach": wanted})
    return poller.result()


def detach(compute: Compute, *disks: str, **options: Any) -> Any:
    """Detach disks, and wait; returns the storage profile."""
    wanted = [{"diskId": disk, **options} for disk in disks]
    poller = compute.virtual_machines.begin_attach_detach_data_disks("rg1", "vm1", {"dataDisksToDetach": wanted})
    return poller.result()


def loops_below(directory: Path) -> list[str]:
    """Loop devices of files in a directory."""
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = entry.read_text()
        except OSError:  # released just now
            continue
        if backing.startswith(str(directory) + os.sep):
            found.append(entry.parts[3])
    return found


def settled(holds: Callable[[], bool]) -> None:
    """Wait until it is so: threads, and the kernel, end a moment after what they did can be seen."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
