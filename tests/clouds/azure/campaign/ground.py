"""The Azure on which a build is tried: small, quick, with a gallery; a copy for each build."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_azchroot.emulator.assembly import Assembly, assembled
from pytest_azchroot.emulator.emulator import Endpoint
from pytest_azchroot.emulator.imds import ADDRESS, NO_LIMITS
from pytest_azchroot.emulator.settings import PlatformImage, Profile, Settings
from pytest_azchroot.emulator.surroundings import Surroundings

URN = "Debian:debian-12:12-gen2"
QUICK = Profile(
    {
        "disks.create": 0.1,
        "virtualMachines.attachDetach": 0.15,
        "images.create": 0.1,
        "versions.create": 0.2,
        "disks.delete": 0.1,
        "images.delete": 0.1,
        "versions.delete": 0.1,
    },
    detach_patience=3.0,
)
"""Long enough that every operation is asked about more than once."""
GALLERY = {"resource_group": "rg1", "gallery_name": "linux", "image_name": "debian", "image_version": "1.0.0"}
_DEFINITION = {
    "osType": "Linux",
    "osState": "Generalized",
    "hyperVGeneration": "V2",
    "architecture": "x64",
    "identifier": {"publisher": "p", "offer": "o", "sku": "s"},
}
_ARM = "https://management.azure.com/"
_MIB = 1024**2


def settings(directory: Path, platform: Path, **options: Any) -> Settings:
    """What the emulator is told."""
    images = (PlatformImage(f"{URN}:12.0.9", platform), PlatformImage(f"{URN}:12.0.10", platform))
    return Settings(directory, images=images, **{"profile": QUICK, **options})


def prepare(directory: Path, **options: Any) -> Settings:
    """Make an emulator's directory, with a gallery and its definition; it is to be copied."""
    platform = directory / "platform.raw"
    directory.mkdir(parents=True, exist_ok=True)
    with platform.open("wb") as file:
        file.truncate(8 * _MIB)
    told = settings(directory / "azure", platform, **{**options, "profile": Profile()})
    assembly = assembled(told)
    with assembly.emulator as emulator:
        token = _asked("GET", f"{emulator.url}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={_ARM}")
        group = f"{emulator.url}/subscriptions/{told.subscription}/resourceGroups/rg1/providers/Microsoft.Compute"
        for path, properties in (("galleries/linux", {}), ("galleries/linux/images/debian", _DEFINITION)):
            body = {"location": told.location, "properties": properties}
            _asked("PUT", f"{group}/{path}?api-version=2026-03-03", token=token["access_token"], body=body)
        running = emulator.azure.operations.running
        while running():
            time.sleep(0.01)
    return told


def copied(told: Settings, directory: Path, **changes: Any) -> Assembly:
    """The same Azure once more, in a directory of its own; not yet listening."""
    shutil.copytree(told.directory, directory)
    changed = replace(told, **{"directory": directory, "profile": QUICK, **changes})
    return assembled(changed, limits=NO_LIMITS, more=[Endpoint(ADDRESS, 80)])


def environment(assembly: Assembly) -> dict[str, str]:
    """What a build needs to find it."""
    emulator = assembly.emulator
    surroundings = Surroundings(
        emulator.settings,
        url=emulator.url,
        tls_url=f"https://127.0.0.1:{emulator.ports[1]}",
        ca_file=assembly.authority.certificate_file.absolute(),
    )
    return surroundings.environment


def _asked(method: str, url: str, *, token: str = "", body: Any = None) -> Any:
    headers = {"Metadata": "true"} if not token else {"Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data, headers, method=method)) as answer:
        return json.load(answer)
