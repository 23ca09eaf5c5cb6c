"""What belongs to somebody else: it is not deleted, not replaced, and not called ours."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.clouds.azure import disks, publishing
from pytest_azchroot.emulator.settings import Profile, Settings

from .workshop import CHECK, STEP, URN, VERSIONS, AzureWorkshop

pytestmark = pytest.mark.root


@pytest.fixture
def azure_emulator_images() -> dict[str, Path]:
    """The workshop fills it."""
    return {}


@pytest.fixture
def azure_emulator_settings(azure_emulator_settings: Settings) -> Settings:
    """Detaching takes a moment."""
    return replace(azure_emulator_settings, profile=Profile({"virtualMachines.attachDetach": 0.3}))


def stranger(workshop: AzureWorkshop) -> str:
    """A disk that somebody else has; its id."""
    publisher, offer, sku = URN.split(":")
    settings = workshop.azure.settings
    reference = (
        f"/subscriptions/{settings.subscription}/providers/Microsoft.Compute/locations/{settings.location}"
        f"/publishers/{publisher}/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions/{VERSIONS[0]}"
    )
    body: Any = {
        "location": settings.location,
        "properties": {"creationData": {"createOption": "FromImage", "imageReference": {"id": reference}}},
        "tags": {"owner": "somebody"},
    }
    return str(workshop.azure.compute().disks.begin_create_or_update("rg1", "theirs", body).result().id)


def image_of(workshop: AzureWorkshop, disk: str) -> None:
    """Somebody publishes an image of the name that ours is to have."""
    system = {"osType": "Linux", "osState": "Generalized", "managedDisk": {"id": disk}}
    body: Any = {
        "location": workshop.azure.settings.location,
        "properties": {"hyperVGeneration": "V2", "storageProfile": {"osDisk": system}},
        "tags": {"owner": "somebody"},
    }
    workshop.azure.compute().images.begin_create_or_update("rg1", "x", body).result()


def version_of(workshop: AzureWorkshop, disk: str) -> None:
    """The same, a gallery version."""
    body: Any = {
        "location": workshop.azure.settings.location,
        "properties": {"storageProfile": {"osDiskImage": {"source": {"id": disk}}}, "publishingProfile": {}},
        "tags": {"owner": "somebody"},
    }
    versions = workshop.azure.compute().gallery_image_versions
    versions.begin_create_or_update("rg1", "g1", "tiny", "1.0.0", body).result()


@pytest.mark.parametrize("kind", ["image", "version"])
def test_an_artifact_that_somebody_else_makes_meanwhile(
    azure_workshop: AzureWorkshop, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = stranger(azure_workshop)
    if kind == "image":
        azure_workshop.image()
    else:
        azure_workshop.image(shared_image_destination=azure_workshop.gallery())
    targets = publishing.targets

    def late(*arguments: Any) -> Any:
        (image_of if kind == "image" else version_of)(azure_workshop, theirs)
        return targets(*arguments)

    monkeypatch.setattr(publishing, "targets", late)
    result = azure_workshop.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*made of another disk*"])
    id = azure_workshop.image_id() if kind == "image" else azure_workshop.version_id()
    assert not azure_workshop.read("/etc/marker", id)
    assert (azure_workshop.disks(), azure_workshop.attached(), azure_workshop.journals()) == (["theirs"], [], [])


def test_a_disk_that_somebody_else_makes_meanwhile(
    azure_workshop: AzureWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = f"{azure_workshop.group}/providers/Microsoft.Compute"
    azure_workshop.image(temporary_os_disk_id=f"{compute}/disks/theirs")
    refuse = disks._refuse_existing

    def late(*arguments: Any) -> Any:
        refuse(*arguments)
        stranger(azure_workshop)

    monkeypatch.setattr(disks, "_refuse_existing", late)
    azure_workshop.azure.fault(call="PUT disks", nth=2, status=409, code="PropertyChangeNotAllowed")
    azure_workshop.run("-x").assert_outcomes(errors=1)
    assert azure_workshop.disks() == ["theirs"]
    assert azure_workshop.journals() == []


def sent(workshop: AzureWorkshop) -> None:
    """A run sends a version that takes longer than it may."""
    workshop.azure.fault(operation="versions.create", delay=2)
    workshop.image(shared_image_destination=workshop.gallery(), shared_image_gallery_timeout=1)
    workshop.run().assert_outcomes(passed=2, failed=1)
    workshop.image(shared_image_destination=workshop.gallery())


def test_a_version_that_somebody_else_made_is_not_taken_up(azure_workshop: AzureWorkshop) -> None:
    sent(azure_workshop)
    versions = azure_workshop.azure.compute().gallery_image_versions
    place = ("rg1", "g1", "tiny", "1.0.0")
    while versions.get(*place).properties.provisioning_state != "Succeeded":  # type: ignore[union-attr]
        time.sleep(0.1)
    versions.begin_delete(*place).result()
    version_of(azure_workshop, stranger(azure_workshop))
    result = azure_workshop.run()
    result.assert_outcomes(skipped=2, failed=1)
    result.stdout.fnmatch_lines(["*is not what was sent*"])
    assert not azure_workshop.read("/etc/marker", azure_workshop.version_id())


def test_a_version_that_is_taken_up_is_good_even_if_its_disk_stays(azure_workshop: AzureWorkshop) -> None:
    sent(azure_workshop)
    azure_workshop.azure.fault(call="DELETE disks", status=403, code="AuthorizationFailed")
    result = azure_workshop.run()
    result.assert_outcomes(passed=1, skipped=2, warnings=1)
    result.stdout.fnmatch_lines(["*is left (deleting the disk * failed: *azchroot sweep*"])
    assert len(azure_workshop.journals()) == 1


def test_a_version_is_not_taken_up_by_what_has_changed_while_it_was_built(azure_workshop: AzureWorkshop) -> None:
    text = (
        CHECK
        + """
    def test_edit(image):
        (image.path / "test_95_later.py").write_text("def test_it(host): assert False")
"""
    )
    azure_workshop.azure.fault(operation="versions.create", delay=2)
    destination = azure_workshop.gallery()
    files = {"test_10_step": STEP, "test_90_check": text}
    azure_workshop.image(shared_image_destination=destination, shared_image_gallery_timeout=1, files=files)
    azure_workshop.run().assert_outcomes(passed=3, failed=1)
    azure_workshop.image(shared_image_destination=destination, files=files)
    again = azure_workshop.run()
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    again.stderr.fnmatch_lines(["*1.0.0 is still being made*"])
