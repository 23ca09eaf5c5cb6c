"""The page about Azure, followed on the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from azure.core.rest import HttpRequest

from pytest_azchroot.emulator.pytest_plugin import (
    AzureEmulator,
    azure_emulator,
    azure_emulator_accounts,
    azure_emulator_isolation,
    azure_emulator_settings,
)

from . import markdown, shell, userland

__all__ = ["azure_emulator", "azure_emulator_accounts", "azure_emulator_isolation", "azure_emulator_settings"]

PAGE = markdown.ROOT / "docs" / "how-to" / "azure.md"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A small disk, which both clouds start from."""
    userland.busybox(tmp_path / "root")
    path = tmp_path / "work" / "images" / "web" / "debian.raw"
    path.parent.mkdir(parents=True)
    return userland.disk(tmp_path / "root", path, size="64M")


@pytest.fixture
def azure_emulator_images(base: Path) -> dict[str, Path]:
    return {"Debian:debian-12:12-gen2:0.20250101.1": base}


@pytest.mark.root
def test_it_is_true(azure_emulator: AzureEmulator, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZCHROOT_STATE_DIR", str(tmp_path / "state"))
    make_what_az_makes(azure_emulator)
    shell.follow(markdown.blocks(PAGE), tmp_path / "work")
    assert [disk["name"] for disk in azure_emulator.compute().disks.list()] == []


def make_what_az_makes(azure: AzureEmulator) -> None:
    """The group, the gallery and the definition, which the page has commands for."""
    compute: Any = azure.compute()  # its types know models, and not what is on the wire
    place = {"location": "westus2"}
    group = f"{azure.base_url}/subscriptions/{azure.subscription_id}/resourceGroups/images?api-version=2024-03-01"
    compute.send_request(HttpRequest("PUT", group, json=place)).raise_for_status()
    compute.galleries.begin_create_or_update("images", "gallery", place).result()
    definition = {
        "osType": "Linux",
        "osState": "Generalized",
        "hyperVGeneration": "V2",
        "identifier": {"publisher": "example", "offer": "web", "sku": "web"},
    }
    body = {**place, "properties": definition}
    compute.gallery_images.begin_create_or_update("images", "gallery", "web", body).result()
