"""``azchroot validate --online``: what builds on this machine would find, without beginning them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.cli import main
from pytest_azchroot.clouds.azure import shared
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator

from . import places
from .places import GALLERY, IMAGE, SKU, URN, VERSIONS, World, asked

world = places.world
pytestmark = pytest.mark.root


@pytest.fixture
def azure_emulator_images(tmp_path: Path) -> Mapping[str, Path]:
    path = tmp_path / "platform.raw"
    path.write_bytes(bytes(1 << 20))
    return {URN: path}


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "images"
    directory.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shared, "SYSTEM", tmp_path / "run")  # where builds of this host meet: not the real one
    return directory


def write(images: Path, name: str = "debian", **options: Any) -> None:
    """An image of these options, on azure of the platform image for a managed image if they say nothing else."""
    (images / name).mkdir()
    default = {"cloud": "azure", "source": URN, "image_resource_id": IMAGE}
    (images / name / "image.yaml").write_text(json.dumps(default | options))


def test_an_image_that_can_be_built(
    images: Path, azure_emulator: AzureEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    write(images, image_resource_id=IMAGE.replace("golden", "{{ vm.name }}"))
    assert main(["validate", "--online", "images"]) == 0
    assert capsys.readouterr() == ("ok  images/debian/image.yaml  (cloud azure)\n", "")
    assert any(call["path"].endswith("/images/vm1") for call in azure_emulator.calls())
    assert not [name for name in asked(azure_emulator) if not name.startswith("GET ")]


def test_everything_that_is_wrong(images: Path, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.image()
    write(images, source=f"{SKU}:9.9.9")
    write(images, "good", image_resource_id=f"{IMAGE}-2")
    assert main(["validate", "--online", "images"]) == 1
    out, err = capsys.readouterr()
    assert out == "ok  images/good/image.yaml  (cloud azure)\n"
    first, second = err.splitlines()
    assert first.startswith(f"images/debian/image.yaml: the platform image {SKU}:9.9.9 is not there in westus2")
    assert second.startswith("images/debian/image.yaml: the managed image golden in rg1 is there already")


def test_as_json(images: Path, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.image()
    write(images)
    assert main(["validate", "--online", "--json", "images"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["ok"] is False and "is there already" in found["problems"][0]["message"]


def test_offline_nobody_is_asked(images: Path, azure_emulator: AzureEmulator) -> None:
    write(images)
    assert main(["validate", "images"]) == 0
    assert azure_emulator.calls() == []


def test_of_other_clouds_nobody_is_asked(images: Path, azure_emulator: AzureEmulator) -> None:
    (images / "local").mkdir()
    (images / "local" / "image.yaml").write_text("cloud: local\nsource: a.vhd\noutput: b.vhd\n")
    assert main(["validate", "--online", "images"]) == 0
    assert azure_emulator.calls() == []


def test_a_source_that_another_image_publishes(images: Path, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.definition()
    write(images, "base", shared_image_destination=GALLERY)
    write(images, "web", source=f"{VERSIONS}/1.0.0", image_resource_id=f"{IMAGE}-2")
    assert main(["validate", "--online", "images/web"]) == 1
    assert f"the gallery image version {VERSIONS}/1.0.0 is not there" in capsys.readouterr().err
    assert main(["validate", "--online", "images/base", "images/web"]) == 0


def test_a_template_that_the_machine_breaks(
    images: Path, azure_emulator: AzureEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    write(images, source="{{ vm.name }}")
    assert main(["validate", "--online", "images"]) == 1
    (first, *_) = capsys.readouterr().err.splitlines()
    assert first.startswith("images/debian/image.yaml:1: source: 'vm1' names nothing on Azure")
