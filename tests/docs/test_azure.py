"""The page about Azure, followed on the emulator."""

from __future__ import annotations

import json
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
    before = len(azure_emulator.calls())
    shell.follow(markdown.blocks(PAGE), tmp_path / "work")
    asked = {action for call in azure_emulator.calls()[before:] if (action := action_of(call))}
    assert {"Microsoft.Compute/disks/write", "Microsoft.Compute/galleries/images/versions/write"} < asked
    assert asked - {*allowed()} == set(), "the role on the page does not allow them"
    assert [disk["name"] for disk in azure_emulator.compute().disks.list()] == []


def allowed() -> list[str]:
    """The actions of the role on the page."""
    role = next(json.loads(block.text) for block in markdown.blocks(PAGE) if block.language == "json")
    actions: list[str] = role["Actions"]
    return actions


def action_of(call: dict[str, Any]) -> str | None:
    """The action that a call takes; None where the role Reader, which the page wants as well, has it or nothing is
    needed."""
    _, _, path = call["path"].partition("/providers/Microsoft.Compute/")
    if (
        not path
        or not call["path"].lower().startswith("/subscriptions/")
        or "/resourcegroups/" not in call["path"].lower()
    ):
        return None
    names = path.split("/")
    kind = "/".join(names[::2])  # of types and names by turns; what is posted to comes last
    verb = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete", "POST": "action"}[call["method"]]
    return f"Microsoft.Compute/{kind}/{verb}"


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
