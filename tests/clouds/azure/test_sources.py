"""What an image is built from: Azure's answers as data, and the emulator's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.clouds.azure import versions
from pytest_azchroot.clouds.azure.client import Azure
from pytest_azchroot.clouds.azure.refusals import AzureError
from pytest_azchroot.clouds.azure.sources import (
    GIB,
    Source,
    disk_source,
    examine,
    latest_version,
    platform_source,
    resolve,
    version_source,
)
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.errors import DiskError
from pytest_azchroot.spec.azure_ids import parse_disk_id, parse_gallery_image_version_id, parse_platform_image

from . import places
from .places import COMPUTE, DEFINITION, MACHINE, SKU, URN, VERSIONS, ZONAL, World, asked, spec

azure = places.azure
world = places.world
MIB = 1024**2
PLAN = {"name": "n", "publisher": "p", "product": "q"}
DISK = f"{COMPUTE}/disks/golden"
OTHER = "99999999-9999-9999-9999-999999999999"


@pytest.fixture
def azure_emulator_images(tmp_path: Path) -> Mapping[str, Path]:
    path = tmp_path / "platform.raw"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    return {f"{SKU}:{version}": path for version in ("0.20241201.9", "0.20241201.10", "0.20240901.11")}


# -- versions


@pytest.mark.parametrize(
    ("names", "highest"),
    [
        (["0.20241201.9", "0.20241201.10"], "0.20241201.10"),
        (["9.9.9", "10.0.0", "2.100.5"], "10.0.0"),
        (["1.2", "1.2.0"], "1.2.0"),
        (["latest", "1.0.0", "x.y"], "1.0.0"),
        (["1.0.0", "1.0.rc"], "1.0.0"),
        ([], None),
    ],
)
def test_the_highest_version_is_so_by_number(names: list[str], highest: str | None) -> None:
    assert versions.highest(names) == highest
    assert versions.highest(reversed(names)) == highest


# -- platform images, as data


def platform(**properties: Any) -> Source:
    found = {"properties": {"osDiskImage": {"operatingSystem": "Linux", "sizeInBytes": 16 * MIB}, **properties}}
    return platform_source(parse_platform_image(URN), found, MACHINE)


def test_a_platform_image() -> None:
    source = platform(hyperVGeneration="V2", architecture="x64")
    reference = (
        f"/subscriptions/{MACHINE.subscription_id}/providers/Microsoft.Compute/locations/westus2/publishers/Debian"
        "/artifacttypes/vmimage/offers/debian-12/skus/12-gen2/versions/0.20241201.10"
    )
    assert source == Source(
        id=reference,
        name=reference.replace("artifacttypes", "ArtifactTypes"),
        title=URN,
        version="0.20241201.10",
        creation={"createOption": "FromImage", "imageReference": {"id": reference}},
        generation="V2",
        architecture="x64",
        size=16 * MIB,
    )


def test_its_size_is_that_of_the_disk_without_the_footer() -> None:
    assert platform(osDiskImage={"sizeInBytes": 32213303808, "sizeInGb": 31}).size == 32213303296
    assert platform(osDiskImage={"sizeInGb": 31}).size == 31 * GIB
    assert platform(osDiskImage={}).size is None


def test_its_plan_is_kept() -> None:
    assert platform(plan=PLAN).plan == PLAN
    assert platform(plan=None).plan is None


def test_arm64_and_old_answers() -> None:
    assert platform(architecture="Arm64").architecture == "Arm64"
    assert (platform().generation, platform().architecture) == ("V1", "x64")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("TrustedLaunchSupported", None),
        ("TrustedLaunchAndConfidentialVmSupported", None),
        ("Standard", None),
        ("TrustedLaunch", "TrustedLaunch"),
        ("ConfidentialVM", "ConfidentialVM"),
    ],
)
def test_what_supports_a_security_type_is_standard(value: str, expected: str | None) -> None:
    assert platform(features=[{"name": "SecurityType", "value": value}]).security_type == expected


def test_a_deprecated_one_says_what_follows_it() -> None:
    other = {"type": "Offer", "value": "debian-13"}
    status = {"imageState": "Deprecated", "alternativeOption": other}
    assert platform(imageDeprecationStatus=status).problems == (
        (
            f"{URN} is deprecated, and Azure makes no disk of it any more: Offer debian-13 is to follow it "
            "(name another version)"
        ),
    )


def test_one_that_will_be_deprecated_is_noticed() -> None:
    status = {"imageState": "ScheduledForDeprecation", "scheduledDeprecationTime": "2030-01-01T00:00:00+00:00"}
    source = platform(imageDeprecationStatus=status)
    assert source.notices == (f"{URN} will be deprecated at 2030-01-01T00:00:00+00:00",)
    assert not source.problems and not platform(imageDeprecationStatus={"imageState": "Active"}).notices


def test_an_image_of_windows() -> None:
    source = platform(osDiskImage={"operatingSystem": "Windows"})
    assert source.problems == (f"{URN} holds Windows, and images of Linux can be built alone",)


# -- managed disks, as data


def disk(tmp_path: Path, *, machine: Any = MACHINE, top: Any = None, options: Any = None, **properties: Any) -> Source:
    found = {"location": "westus2", **(top or {}), "properties": {"diskSizeGB": 2, **properties}}
    return disk_source(parse_disk_id(DISK), found, spec(tmp_path, **(options or {})), machine)


def test_a_disk(tmp_path: Path) -> None:
    capabilities = {"architecture": "Arm64"}
    security = {"securityType": "TrustedLaunch"}
    source = disk(
        tmp_path,
        hyperVGeneration="V2",
        diskSizeBytes=2 * GIB + 5,
        supportedCapabilities=capabilities,
        purchasePlan={**PLAN, "promotionCode": None},
        securityProfile=security,
    )
    assert source == Source(
        id=DISK,
        name=DISK,
        title="disk golden",
        creation={"createOption": "Copy", "sourceResourceId": DISK},
        generation="V2",
        architecture="Arm64",
        size=2 * GIB + 5,
        plan=PLAN,
        security_type="TrustedLaunch",
    )


def test_a_disk_that_does_not_say_its_generation(tmp_path: Path) -> None:
    assert disk(tmp_path).generation == "V1"
    assert disk(tmp_path, options={"image_hyperv_generation": "V2"}).generation == "V2"


@pytest.mark.parametrize(
    ("top", "properties", "problem"),
    [
        (
            {"location": "East US"},
            {},
            (
                "the source disk golden is in East US, and this machine in westus2: Azure copies disks within a region alone"
                " (build there, or copy it here first)"
            ),
        ),
        (
            {"zones": ["1"]},
            {},
            (
                "the source disk golden is in zone 1, and this machine in zone 2: Azure copies disks within a zone alone "
                "(build there, or from a gallery image version of it)"
            ),
        ),
        ({}, {"osType": "Windows"}, "the source disk golden holds Windows, and images of Linux can be built alone"),
        (
            {},
            {"diskState": "ReadyToUpload"},
            "the source disk golden is still to be uploaded (ReadyToUpload): end the upload with `az disk revoke-access`",
        ),
        (
            {},
            {"provisioningState": "Failed"},
            "the source disk golden is not usable: its provisioning state is Failed",
        ),
    ],
)
def test_what_is_wrong_with_a_disk(tmp_path: Path, top: Any, properties: Any, problem: str) -> None:
    assert disk(tmp_path, machine=ZONAL, top=top, **properties).problems == (problem,)


def test_zones_that_fit(tmp_path: Path) -> None:
    assert not disk(tmp_path, machine=ZONAL, top={"zones": ["2"]}).problems
    assert not disk(tmp_path, machine=ZONAL).problems
    assert not disk(tmp_path, top={"zones": ["1"], "location": "West US 2"}).problems


def test_a_disk_that_is_attached_is_noticed(tmp_path: Path) -> None:
    assert disk(tmp_path, top={"managedBy": "/x/virtualMachines/web"}).notices == (
        "the source disk golden is attached to web: the copy holds what is written at that moment",
    )


# -- gallery image versions, as data


def version(name: str = "1.0.0", *, state: str = "Succeeded", regions: Any = ("West US 2",), **profile: Any) -> Any:
    targets = [each if isinstance(each, dict) else {"name": each} for each in regions]
    storage = {"osDiskImage": {"sizeInGB": 30, "source": {"id": DISK}}}
    published = {"targetRegions": targets, **profile}
    properties = {"provisioningState": state, "publishingProfile": published, "storageProfile": storage}
    return {"name": name, "properties": properties}


def gallery(found: Any, **definition: Any) -> Source:
    asked = parse_gallery_image_version_id(f"{VERSIONS}/latest")
    return version_source(asked, {"properties": {**DEFINITION, **definition}}, found, MACHINE)


def test_a_gallery_version() -> None:
    trusted = [{"name": "SecurityType", "value": "TrustedLaunch"}]
    assert gallery(version(), architecture="Arm64", features=trusted, purchasePlan=PLAN) == Source(
        id=f"{VERSIONS}/1.0.0",
        name=f"{VERSIONS}/1.0.0",
        title="linux/debian/1.0.0",
        version="1.0.0",
        creation={"createOption": "FromImage", "galleryImageReference": {"id": f"{VERSIONS}/1.0.0"}},
        generation="V2",
        architecture="Arm64",
        size=30 * GIB,
        plan=PLAN,
        security_type="TrustedLaunch",
    )


def test_data_disks_are_not_lost_in_silence() -> None:
    found = version()
    assert gallery(found).notices == ()
    found["properties"]["storageProfile"]["dataDiskImages"] = [{"lun": 0}, {"lun": 1}]
    assert gallery(found).notices == (
        "linux/debian/1.0.0 has data disks (2): they are not copied, and what is published has none",
    )


def test_one_that_was_made_of_an_image_and_one_that_does_not_say() -> None:
    found = version()
    found["properties"]["storageProfile"] = {"source": {"id": "/an/image"}}
    assert gallery(found).name == "/an/image"
    found["properties"]["storageProfile"] = {}
    assert gallery(found).name == f"{VERSIONS}/1.0.0"


@pytest.mark.parametrize(
    ("found", "definition", "problem"),
    [
        (
            version(regions=["East US", "West US"]),
            {},
            (
                "linux/debian/1.0.0 is not stored in westus2, where this machine is, but in East US, West US (replicate it "
                "here, or build there)"
            ),
        ),
        (
            version(state="Creating"),
            {},
            "linux/debian/1.0.0 is still being made (wait until it is, or name another version)",
        ),
        (
            version(state="Failed"),
            {},
            "linux/debian/1.0.0 is not usable: its provisioning state is Failed (name another version)",
        ),
        (version(), {"osType": "Windows"}, "linux/debian/1.0.0 holds Windows, and images of Linux can be built alone"),
    ],
)
def test_what_is_wrong_with_a_gallery_version(found: Any, definition: Any, problem: str) -> None:
    assert gallery(found, **definition).problems == (problem,)


def test_latest_is_the_highest_that_is_ready_here_and_not_excluded() -> None:
    asked = parse_gallery_image_version_id(f"{VERSIONS}/latest")
    found = [
        version("1.9.0"),
        version("1.10.0"),
        version("1.11.0", excludeFromLatest=True),
        version("1.12.0", state="Failed"),
        version("1.13.0", regions=["East US"]),
        version("1.14.0", regions=[{"name": "westus2", "excludeFromLatest": True}]),
        version("1.15.0", state="Creating"),
    ]
    assert latest_version(asked, found, MACHINE)["name"] == "1.10.0"
    with pytest.raises(DiskError) as raised:
        latest_version(asked, found[2:], MACHINE)
    assert str(raised.value) == (
        "linux/debian has no latest version in westus2: of its 5 versions none is ready there and not excluded from "
        "latest\nhint: name a version in `source`"
    )


# -- what is asked of Azure


def test_scratch_asks_nobody(tmp_path: Path) -> None:
    wanted = spec(tmp_path, from_scratch=True, os_disk_size_gb=3, pre_mount_commands=["x"])
    source = resolve(None, wanted, MACHINE)  # type: ignore[arg-type]
    assert (source.id, source.name, source.size) == ("scratch", "scratch", 3 * GIB)


@pytest.mark.root
class TestAsked:
    """Looked up on an Azure."""

    def test_latest_is_resolved_by_number(self, azure: Azure, azure_emulator: AzureEmulator, tmp_path: Path) -> None:
        source = resolve(azure, spec(tmp_path, source=f"{SKU}:Latest"), MACHINE)
        assert source.title == URN and source.size == 16 * MIB and source.generation == "V2"
        assert len(asked(azure_emulator)) == 2

    def test_an_exact_platform_image_takes_one_call(
        self, azure: Azure, azure_emulator: AzureEmulator, tmp_path: Path
    ) -> None:
        assert resolve(azure, spec(tmp_path, source=f"{SKU}:0.20241201.9"), MACHINE).version == "0.20241201.9"
        assert len(asked(azure_emulator)) == 1

    @pytest.mark.parametrize("version", ["latest", "1.2.3"])
    def test_a_platform_image_that_is_not_there(self, azure: Azure, tmp_path: Path, version: str) -> None:
        with pytest.raises(DiskError) as raised:
            resolve(azure, spec(tmp_path, source=f"Debian:debian-12:typo:{version}"), MACHINE)
        assert raised.value.what == f"the platform image Debian:debian-12:typo:{version} is not there in westus2"
        assert "az vm image list --all --location westus2 --publisher Debian --offer debian-12" in str(raised.value)

    def test_a_disk_of_another_generation_than_asked_for(self, azure: Azure, world: World, tmp_path: Path) -> None:
        wanted = spec(tmp_path, source=world.disk(hyperVGeneration="V2"), image_hyperv_generation="V1")
        with pytest.raises(DiskError) as raised:
            resolve(azure, wanted, MACHINE)
        assert str(raised.value) == (
            "the source disk golden cannot be used: image_hyperv_generation is V1, and disk golden is of generation V2 "
            "(leave it out: the source knows)"
        )
        assert resolve(azure, spec(tmp_path, source=wanted.source), MACHINE).size == 2 * GIB

    def test_everything_wrong_is_said_at_once(self, azure: Azure, world: World, tmp_path: Path) -> None:
        there = world.disk(location="eastus", osType="Windows", hyperVGeneration="V2")
        found = examine(azure, spec(tmp_path, source=there, image_hyperv_generation="V1"), ZONAL)
        assert len(found.problems) == 3

    def test_a_disk_that_is_not_there(self, azure: Azure, tmp_path: Path) -> None:
        with pytest.raises(DiskError, match=r"the source disk .*/disks/golden is not there") as raised:
            resolve(azure, spec(tmp_path, source=DISK), MACHINE)
        assert "ResourceNotFound" in (raised.value.why or "")

    def test_a_disk_of_a_subscription_that_cannot_be_seen(self, azure: Azure, tmp_path: Path) -> None:
        """Its subscription is asked, not the machine's; what Azure says of that is not about the disk."""
        with pytest.raises(AzureError) as raised:
            resolve(azure, spec(tmp_path, source=DISK.replace(MACHINE.subscription_id, OTHER)), MACHINE)
        assert raised.value.code == "SubscriptionNotFound" and OTHER in str(raised.value)

    def test_a_gallery_version_takes_two_calls_at_once(
        self, azure: Azure, azure_emulator: AzureEmulator, world: World, tmp_path: Path
    ) -> None:
        world.definition()
        there = world.version()
        before = len(asked(azure_emulator))
        source = resolve(azure, spec(tmp_path, source=there), MACHINE)
        assert source.id == source.name == there and source.generation == "V2"
        assert len(asked(azure_emulator)) == before + 2

    def test_the_latest_gallery_version(self, azure: Azure, world: World, tmp_path: Path) -> None:
        world.definition()
        for name in ("1.9.0", "1.10.0"):
            world.version(name)
        world.version("2.0.0", excludeFromLatest=True)
        assert resolve(azure, spec(tmp_path, source=f"{VERSIONS}/latest"), MACHINE).version == "1.10.0"

    def test_a_gallery_version_that_is_not_there(self, azure: Azure, world: World, tmp_path: Path) -> None:
        world.definition()
        with pytest.raises(DiskError, match=r"the gallery image version .*/versions/1\.0\.0 is not there"):
            resolve(azure, spec(tmp_path, source=f"{VERSIONS}/1.0.0"), MACHINE)
