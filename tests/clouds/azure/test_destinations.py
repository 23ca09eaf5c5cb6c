"""What is to be published: why it cannot be, from Azure's answers as data, and from the emulator's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.clouds.azure import regions
from pytest_azchroot.clouds.azure.client import Azure
from pytest_azchroot.clouds.azure.destinations import (
    definition_problems,
    find_definition,
    find_image,
    find_version,
    image_problems,
    region_problems,
    unknown_region,
    version_id,
    version_problems,
)
from pytest_azchroot.clouds.azure.refusals import AzureError
from pytest_azchroot.clouds.azure.sources import Source, scratch
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.errors import PublishError
from pytest_azchroot.spec.azure_ids import parse_gallery_image_version_id, parse_image_id

from . import places
from .places import DEFINITION, GALLERY, IMAGE, MACHINE, VERSIONS, World, asked, spec

azure = places.azure
world = places.world

SOURCE = Source(
    id="/a/version", name="/a/version", title="a:b:c:1", creation={"createOption": "FromImage"}, generation="V2",
    architecture="x64",
)  # fmt: skip
TRUSTED = replace(SOURCE, security_type="TrustedLaunch")
CONFIDENTIAL = replace(SOURCE, security_type="ConfidentialVM_VMGuestStateOnlyEncryptedWithPlatformKey")
ARM = replace(SOURCE, architecture="Arm64")
IMAGE_ID = parse_image_id(IMAGE)
VERSION_ID = parse_gallery_image_version_id(f"{VERSIONS}/1.0.0")


def at(state: str) -> dict[str, Any]:
    """A resource in a provisioning state."""
    return {"location": "westus2", "properties": {"provisioningState": state}}


# -- the managed image, as data


@pytest.mark.parametrize(
    ("found", "overwrite", "problem"),
    [
        (None, False, None),
        (at("Failed"), False, None),
        (at("Succeeded"), True, None),
        (
            at("Succeeded"),
            False,
            "is there already (name another in image_resource_id, or replace it with --azchroot-overwrite)",
        ),
        (at("Deleting"), True, "is just being deleted (try again when it is gone)"),
        (
            at("Creating"),
            True,
            "is being changed by somebody else (wait until it is done, or name another image)",
        ),
    ],
)
def test_a_managed_image_that_is_there(found: Any, overwrite: bool, problem: str | None) -> None:
    said = list(image_problems(IMAGE_ID, found, SOURCE, overwrite=overwrite))
    assert said == ([] if problem is None else [f"the managed image golden in rg1 {problem}"])


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            TRUSTED,
            (
                "a:b:c:1 has the security type TrustedLaunch, of which Azure makes no managed images (publish to a gallery "
                "instead: shared_image_destination)"
            ),
        ),
        (
            ARM,
            (
                "a:b:c:1 is for Arm64, of which Azure makes no managed images (publish to a gallery instead: "
                "shared_image_destination)"
            ),
        ),
    ],
)
def test_what_no_managed_image_is_made_of(source: Source, problem: str) -> None:
    assert list(image_problems(IMAGE_ID, None, source, overwrite=False)) == [problem]
    assert not list(image_problems(IMAGE_ID, None, None, overwrite=False))


# -- the gallery image version, as data


def definition(*, location: str = "westus2", security: str | None = None, **properties: Any) -> dict[str, Any]:
    """An image definition as GET has it."""
    found = {**DEFINITION, **properties}
    if security is not None:
        found["features"] = [{"name": "SecurityType", "value": security}]
    return {"location": location, "properties": found}


def said(found: dict[str, Any], source: Source | None = SOURCE) -> list[str]:
    return list(definition_problems(VERSION_ID, found, source, MACHINE))


def test_a_definition_that_fits() -> None:
    assert said(definition()) == said(definition(location="West US 2")) == []


@pytest.mark.parametrize(
    ("found", "source", "problem"),
    [
        (
            definition(location="eastus"),
            SOURCE,
            (
                "is in eastus, and this machine in westus2: Azure makes versions of disks of the same region alone (build "
                "there, or publish to a gallery here and replicate)"
            ),
        ),
        (
            definition(osType="Windows"),
            SOURCE,
            "is for Windows, and images of Linux can be built alone (name another definition)",
        ),
        (
            definition(osState="Specialized"),
            SOURCE,
            (
                "is for specialized images, and what is built of steps is a generalized one (name a definition with OS "
                "state Generalized)"
            ),
        ),
        (
            definition(hyperVGeneration="V1"),
            SOURCE,
            "is for generation V1, and a:b:c:1 is of generation V2 (name a definition for V2)",
        ),
        (
            definition(architecture="Arm64"),
            SOURCE,
            "is for Arm64, and a:b:c:1 for x64 (name a definition for x64)",
        ),
        (
            definition(security="TrustedLaunch"),
            SOURCE,
            "is for the security type TrustedLaunch, and a:b:c:1 has Standard (name a definition for Standard)",
        ),
        (
            definition(),
            CONFIDENTIAL,
            (
                "is for the security type Standard, and a:b:c:1 has "
                "ConfidentialVM_VMGuestStateOnlyEncryptedWithPlatformKey (name a definition for ConfidentialVM)"
            ),
        ),
    ],
)
def test_a_definition_that_does_not_fit(found: Any, source: Source, problem: str) -> None:
    assert said(found, source) == [f"the image definition linux/debian {problem}"]


@pytest.mark.parametrize(
    ("security", "source", "fits"),
    [
        ("TrustedLaunchSupported", SOURCE, True),
        ("TrustedLaunchAndConfidentialVmSupported", SOURCE, True),
        ("TrustedLaunchSupported", TRUSTED, False),
        ("TrustedLaunch", TRUSTED, True),
        ("ConfidentialVM", CONFIDENTIAL, True),
        (None, TRUSTED, False),
        ("None", SOURCE, False),
    ],
)
def test_security_types(security: str | None, source: Source, fits: bool) -> None:
    assert (not said(definition(security=security), source)) is fits


def test_scratch_can_still_choose_its_generation(tmp_path: Path) -> None:
    source = scratch(spec(tmp_path, from_scratch=True, os_disk_size_gb=1, pre_mount_commands=["x"]))
    (problem,) = said(definition(), replace(source, architecture="x64"))
    assert problem.endswith("(set image_hyperv_generation: V2, or name a definition for V1)")


def test_all_of_it_at_once_and_less_without_a_source() -> None:
    found = definition(location="eastus", osState="Specialized", hyperVGeneration="V1", architecture="Arm64")
    assert len(said(found)) == 4 and len(said(found, None)) == 2


@pytest.mark.parametrize(
    ("found", "overwrite", "problem"),
    [
        (None, False, None),
        (at("Failed"), False, None),
        (at("Succeeded"), True, None),
        (
            at("Succeeded"),
            False,
            "is there already (set another image_version, or replace it with --azchroot-overwrite)",
        ),
        (
            at("Creating"),
            True,
            (
                "is still being made (wait until it is, or set another image_version; `azchroot sweep` deletes one "
                "that an interrupted build has given up)"
            ),
        ),
        (
            at("Deleting"),
            True,
            "is just being deleted (try again when it is gone, or set another image_version)",
        ),
    ],
)
def test_a_version_that_is_there(found: Any, overwrite: bool, problem: str | None) -> None:
    said = list(version_problems(VERSION_ID, found, overwrite=overwrite))
    assert said == ([] if problem is None else [f"the gallery image version linux/debian/1.0.0 {problem}"])


@pytest.mark.parametrize(
    ("names", "fits"), [([], True), (["westus2"], True), (["East US", "West US 2"], True), (["eastus"], False)]
)
def test_target_regions_hold_that_of_the_machine(tmp_path: Path, names: list[str], fits: bool) -> None:
    wanted = spec(tmp_path, shared_image_destination={**GALLERY, "target_regions": [{"name": each} for each in names]})
    assert wanted.shared_image_destination is not None
    problem = (
        "shared_image_destination.target_regions has eastus, and not westus2: Azure makes a version where the machine "
        "and its disk are, and stores it there, too (add it)"
    )
    assert list(region_problems(wanted.shared_image_destination, MACHINE)) == ([] if fits else [problem])


def test_the_gallery_is_where_the_credential_works(tmp_path: Path) -> None:
    wanted = spec(tmp_path, shared_image_destination=GALLERY)
    assert version_id(wanted, MACHINE) == VERSION_ID
    other = version_id(wanted.model_copy(update={"subscription_id": "other"}), MACHINE)
    assert other is not None and other.subscription_id == "other"
    assert version_id(spec(tmp_path), MACHINE) is None


# -- what regions offer, as data


@pytest.mark.parametrize(
    ("size", "premium"),
    [
        ("Standard_D4s_v5", True),
        ("Standard_D4_v5", False),
        ("Standard_DS1_v2", True),
        ("Standard_D1_v2", False),
        ("Standard_GS5", True),
        ("Standard_B1s", True),
        ("Standard_E16-4s_v5", True),
        ("Standard_NC4as_T4_v3", True),
        ("Standard_NV6", False),
        ("Standard_HB120-16rs_v3", True),
        ("Standard_M416s_8_v2", True),
        ("", False),
    ],
)
def test_which_sizes_promise_premium_disks(size: str, premium: bool) -> None:
    assert regions.takes_premium(size) is premium


DISKS = {
    "resourceType": "disks",
    "name": "Premium_ZRS",
    "locationInfo": [{"location": "westus2", "zones": ["1", "2"]}],
    "restrictions": [],
}
ELSEWHERE = {"type": "Zone", "values": ["westus2"], "restrictionInfo": {"zones": ["2"]}}
RESTRICTED = {"type": "Location", "values": ["westus2"], "reasonCode": "NotAvailableForSubscription"}
SMALL = {
    "resourceType": "virtualMachines",
    "name": MACHINE.size,
    "capabilities": [{"name": "PremiumIO", "value": "False"}],
}


@pytest.mark.parametrize(
    ("offered", "zone", "problem"),
    [
        ([DISKS], None, None),
        ([DISKS], "2", None),
        ([DISKS, {**SMALL, "capabilities": []}], "2", None),
        ([{**DISKS, "locationInfo": [{"location": "westus2", "zones": []}]}], "1", None),
        ([{**DISKS, "restrictions": [ELSEWHERE]}], "1", None),
        (
            [{**DISKS, "restrictions": [ELSEWHERE]}],
            "2",
            "and zone 2 of westus2, where this machine is, offers no such disks (Premium_LRS is everywhere)",
        ),
        ([], None, "and westus2 offers no such disks (Premium_LRS is everywhere)"),
        (
            [{**DISKS, "restrictions": [RESTRICTED]}],
            None,
            "and westus2 offers no such disks (Premium_LRS is everywhere)",
        ),
        (
            [DISKS],
            "3",
            "and zone 3 of westus2, where this machine is, offers no such disks (Premium_LRS is everywhere)",
        ),
        (
            [DISKS, SMALL],
            None,
            (
                "and this machine's size Standard_D4s_v5 takes no premium disks (set os_disk_storage_account_type: "
                "StandardSSD_ZRS, or build on a size that does)"
            ),
        ),
    ],
)
def test_what_a_region_offers(offered: Any, zone: str | None, problem: str | None) -> None:
    said = regions.storage_problems_of(offered, replace(MACHINE, zone=zone), "Premium_ZRS")
    assert said == ([] if problem is None else [f"os_disk_storage_account_type is Premium_ZRS, {problem}"])


# -- what is asked of Azure


@pytest.mark.root
class TestAsked:
    """Looked up on an Azure."""

    def test_a_managed_image(self, azure: Azure, azure_emulator: AzureEmulator, world: World) -> None:
        assert find_image(azure, IMAGE_ID) is None
        world.image()
        before = len(asked(azure_emulator))
        found = find_image(azure, IMAGE_ID)
        assert found is not None and found["name"] == "golden" and len(asked(azure_emulator)) == before + 1

    def test_a_group_that_is_not_there(self, azure: Azure) -> None:
        with pytest.raises(PublishError) as raised:
            find_image(azure, parse_image_id(IMAGE.replace("rg1", "typo")))
        assert str(raised.value) == (
            f"image_resource_id names the resource group typo, which is not in the subscription "
            f"{MACHINE.subscription_id}\nhint: make it, or name another"
        )
        with pytest.raises(PublishError, match="shared_image_destination names the resource group typo"):
            find_definition(azure, replace(VERSION_ID, resource_group="typo"))

    def test_who_may_not_look_is_told_so(self, azure: Azure, azure_emulator: AzureEmulator) -> None:
        """And not that there is no such image."""
        azure_emulator.fault(call="GET images", status=403)
        with pytest.raises(AzureError) as raised:
            find_image(azure, IMAGE_ID)
        assert raised.value.status == 403

    def test_a_gallery_that_is_not_there(self, azure: Azure) -> None:
        with pytest.raises(PublishError) as raised:
            find_definition(azure, VERSION_ID)
        assert str(raised.value) == (
            "the gallery linux in rg1 is not there\nhint: set shared_image_destination.gallery_name, or make it: az sig "
            "create"
        )

    def test_a_definition_that_is_not_there(self, azure: Azure, world: World) -> None:
        world.gallery()
        with pytest.raises(PublishError, match="no image definition debian: it has none at all"):
            find_definition(azure, VERSION_ID)
        world.definition("ubuntu")
        world.definition("alma")
        with pytest.raises(PublishError) as raised:
            find_definition(azure, VERSION_ID)
        assert str(raised.value) == (
            "the gallery linux in rg1 has no image definition debian: it has alma, ubuntu\nhint: set "
            "shared_image_destination.image_name, or make it: az sig image-definition create --os-type Linux "
            "--os-state Generalized"
        )

    def test_definition_and_version_take_a_call_each(
        self, azure: Azure, azure_emulator: AzureEmulator, world: World
    ) -> None:
        world.definition()
        assert find_version(azure, VERSION_ID) is None
        world.version()
        before = len(asked(azure_emulator))
        found = find_version(azure, VERSION_ID)
        assert said(dict(find_definition(azure, VERSION_ID))) == []
        assert found is not None and found["properties"]["provisioningState"] == "Succeeded"
        assert len(asked(azure_emulator)) == before + 2

    def test_regions(self, azure: Azure, azure_emulator: AzureEmulator) -> None:
        assert unknown_region(azure, MACHINE.subscription_id, "East US") == []
        (problem,) = unknown_region(azure, MACHINE.subscription_id, "East Us 9")
        assert problem == (
            "shared_image_destination.target_regions has East Us 9, which is no region of this subscription (see `az "
            "account list-locations -o table`)"
        )
        azure_emulator.fault(call="GET publishers/artifacttypes/offers", status=403)
        assert unknown_region(azure, MACHINE.subscription_id, "nowhere") == []

    def test_common_disks_are_not_looked_up(self, azure: Azure, azure_emulator: AzureEmulator) -> None:
        assert regions.storage_problems(azure, MACHINE, "Premium_LRS") == [] == asked(azure_emulator)
        assert regions.storage_problems(azure, replace(MACHINE, size="Standard_D4_v5"), "StandardSSD_LRS") == []
        assert asked(azure_emulator) == []
        assert regions.storage_problems(azure, MACHINE, "Premium_ZRS") == []
        assert regions.storage_problems(azure, replace(MACHINE, size="Standard_D4_v5"), "Premium_LRS") == []
        assert asked(azure_emulator) == ["GET skus", "GET skus"]
