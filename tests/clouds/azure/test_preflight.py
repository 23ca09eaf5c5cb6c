"""Everything that would fail later, in one list, before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.clouds import Order
from pytest_azchroot.clouds.azure.broker import Room
from pytest_azchroot.clouds.azure.client import Azure
from pytest_azchroot.clouds.azure.credentials import credential
from pytest_azchroot.clouds.azure.environments import PUBLIC
from pytest_azchroot.clouds.azure.preflight import is_coming, preflight, problems
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.emulator.settings import PlatformImage, Profile, Settings
from pytest_azchroot.spec.model import ImageSpec

from . import places
from .places import COMPUTE, GALLERY, IMAGE, MACHINE, SKU, URN, VERSIONS, World, asked, order, plenty

azure = places.azure
world = places.world
LATEST = f"{SKU}:latest"
NOBODY = "00000000-0000-0000-0000-00000000dead"
TEMPORARY = f"{COMPUTE}/disks/mine"


@pytest.fixture
def azure_emulator_images(tmp_path: Path) -> Mapping[str, Path]:
    path = tmp_path / "platform.raw"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    return {URN: path}


# -- what needs no Azure


@pytest.mark.parametrize(
    ("source", "coming", "expected"),
    [
        (f"{VERSIONS}/1.0.0", f"{VERSIONS}/1.0.0", True),
        (f"{VERSIONS}/1.0.0", f"{VERSIONS}/1.0.0".upper(), True),
        (f"{VERSIONS}/latest", f"{VERSIONS}/1.0.0", True),
        (f"{VERSIONS}/latest", f"{VERSIONS}/1.0.0".replace("debian", "alma"), False),
        (f"{VERSIONS}/1.0.0", f"{VERSIONS}/1.0.1", False),
        (f"{VERSIONS}/1.0.0", "", False),
        (URN, IMAGE, False),
    ],
)
def test_whether_an_image_before_makes_the_source(tmp_path: Path, source: str, coming: str, expected: bool) -> None:
    assert is_coming(order(tmp_path, source=source, coming=coming)) is expected


# -- what is asked of Azure


@pytest.mark.root
class TestNothingWrong:
    """And how much is asked to know it."""

    def test_a_managed_image(self, azure: Azure, azure_emulator: AzureEmulator, tmp_path: Path) -> None:
        found = preflight(azure, order(tmp_path, source=LATEST), MACHINE, room=plenty)
        assert found.problems == [] and found.source is not None and found.source.title == URN
        path = "publishers/artifacttypes/offers/skus/versions"
        assert asked(azure_emulator) == ["GET images", f"GET {path}", f"GET {path}"]

    def test_image_and_gallery_version(
        self, azure: Azure, azure_emulator: AzureEmulator, world: World, tmp_path: Path
    ) -> None:
        world.definition()
        before = len(asked(azure_emulator))
        destination = {**GALLERY, "target_regions": [{"name": "westus2"}, {"name": "eastus"}]}
        wanted = order(tmp_path, image_resource_id=IMAGE, shared_image_destination=destination)
        assert problems(azure, wanted, MACHINE, room=plenty) == []
        # source, image, definition, version, and the region that is not the machine's
        assert len(asked(azure_emulator)) == before + 5

    def test_a_test_run_looks_at_no_destination(
        self, azure: Azure, azure_emulator: AzureEmulator, tmp_path: Path
    ) -> None:
        wanted = order(tmp_path, publish=False, shared_image_destination=GALLERY)
        assert problems(azure, wanted, MACHINE, room=plenty) == []
        wanted = order(tmp_path, skip_create_image=True, shared_image_destination=GALLERY)
        assert problems(azure, wanted, MACHINE, room=plenty) == []
        assert len(asked(azure_emulator)) == 2

    def test_a_source_that_is_coming_is_not_looked_for(
        self, azure: Azure, azure_emulator: AzureEmulator, tmp_path: Path
    ) -> None:
        there = f"{VERSIONS}/1.0.0"
        found = preflight(azure, order(tmp_path, source=there, coming=there), MACHINE, room=plenty)
        assert found.problems == [] and found.source is None
        assert asked(azure_emulator) == ["GET images"]

    def test_what_is_noticed_is_logged(
        self, azure: Azure, world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        there = world.disk()
        machine = world.compute.virtual_machines
        disks = {"dataDisksToAttach": [{"diskId": there}]}
        machine.begin_attach_detach_data_disks("rg1", "vm1", disks).result()
        assert problems(azure, order(tmp_path, source=there), MACHINE, room=plenty) == []
        detach = {"dataDisksToDetach": [{"diskId": there}]}
        machine.begin_attach_detach_data_disks("rg1", "vm1", detach).result()
        assert "debian: the source disk golden is attached to vm1" in caplog.text


@pytest.mark.root
class TestWrong:
    """Each sentence."""

    def test_a_source_that_is_not_there(self, azure: Azure, tmp_path: Path) -> None:
        (problem,) = problems(azure, order(tmp_path, source=f"{SKU}:9.9.9"), MACHINE, room=plenty)
        assert problem.startswith(f"the platform image {SKU}:9.9.9 is not there in westus2: NotFound: Artifact:")
        assert problem.endswith("is found in the machine's own region alone)")

    def test_a_source_that_cannot_be_used(self, azure: Azure, world: World, tmp_path: Path) -> None:
        found = preflight(azure, order(tmp_path, source=world.disk(location="eastus")), MACHINE, room=plenty)
        assert found.problems == [
            (
                "the source disk golden is in eastus, and this machine in westus2: Azure copies disks within a region alone "
                "(build there, or copy it here first)"
            )
        ]
        assert found.source is None

    def test_a_disk_that_would_shrink(self, azure: Azure, tmp_path: Path) -> None:
        (problem,) = problems(azure, order(tmp_path, os_disk_size_gb=2), MACHINE, room=plenty)
        assert problem == (
            f"os_disk_size_gb says 2 GiB, and {URN} has 3 GiB: it only enlarges (leave it out, or name a smaller source)"
        )
        assert problems(azure, order(tmp_path, os_disk_size_gb=3), MACHINE, room=plenty) == []

    def test_no_room(self, azure: Azure, tmp_path: Path) -> None:
        (problem,) = problems(azure, order(tmp_path), MACHINE, room=lambda: Room(used=8, limit=8))
        assert problem == (
            "no further disk can be attached to vm1: its size Standard_D4s_v5 allows 8 data disks, and it has 8 "
            "(detach one that nobody needs, or build on a larger size)"
        )
        assert problems(azure, order(tmp_path), MACHINE, room=lambda: Room(used=8, limit=None)) == []

    @pytest.mark.parametrize(("storage", "name"), [("PremiumV2_LRS", "Premium SSD v2"), ("UltraSSD_LRS", "Ultra")])
    def test_disks_for_data_alone(
        self, azure: Azure, azure_emulator: AzureEmulator, tmp_path: Path, storage: str, name: str
    ) -> None:
        wanted = order(tmp_path, os_disk_storage_account_type=storage)
        assert problems(azure, wanted, MACHINE, room=plenty) == [
            (
                f"os_disk_storage_account_type is {storage}, and Azure takes {name} disks neither for operating systems nor "
                "for galleries (Premium_LRS is the fastest that can become an image)"
            )
        ]
        assert "GET skus" not in asked(azure_emulator)

    def test_storage_that_the_region_does_not_offer(
        self, azure: Azure, azure_emulator: AzureEmulator, tmp_path: Path
    ) -> None:
        wanted = order(tmp_path, os_disk_storage_account_type="Premium_ZRS")
        (problem,) = problems(azure, wanted, replace(MACHINE, zone="7"), room=plenty)
        assert "zone 7 of westus2" in problem
        azure_emulator.fault(call="GET skus", status=403)
        assert problems(azure, wanted, replace(MACHINE, zone="7"), room=plenty) == []

    def test_a_temporary_disk_that_is_there(self, azure: Azure, world: World, tmp_path: Path) -> None:
        wanted = order(tmp_path, temporary_os_disk_id=TEMPORARY)
        assert problems(azure, wanted, MACHINE, room=plenty) == []
        world.disk("mine")
        assert problems(azure, wanted, MACHINE, room=plenty) == [
            "temporary_os_disk_id names mine, which is there already (delete that disk, or leave it out)"
        ]

    def test_a_temporary_disk_elsewhere(self, azure: Azure, tmp_path: Path) -> None:
        other = TEMPORARY.replace(MACHINE.subscription_id, "other")
        assert problems(azure, order(tmp_path, temporary_os_disk_id=other), MACHINE, room=plenty) == [
            (
                f"temporary_os_disk_id is in the subscription other, and this machine in {MACHINE.subscription_id}: Azure "
                "attaches disks within a subscription alone (leave it out)"
            )
        ]
        other = TEMPORARY.replace("rg1", "typo")
        (problem,) = problems(azure, order(tmp_path, temporary_os_disk_id=other), MACHINE, room=plenty)
        assert problem.startswith(f"looking for temporary_os_disk_id {other} failed: ResourceGroupNotFound:")

    def test_nothing_to_publish(self, azure: Azure, tmp_path: Path) -> None:
        asked_for = order(tmp_path)
        empty = asked_for.configuration.spec.model_copy(update={"image_resource_id": None})
        wanted = replace(asked_for, configuration=replace(asked_for.configuration, spec=empty))
        assert problems(azure, wanted, MACHINE, room=plenty) == [
            (
                "image.yaml names nothing to publish (set image_resource_id or shared_image_destination, or "
                "skip_create_image: true)"
            )
        ]

    def test_a_managed_image_that_is_there(self, azure: Azure, world: World, tmp_path: Path) -> None:
        world.image()
        (problem,) = problems(azure, order(tmp_path), MACHINE, room=plenty)
        assert problem.startswith("the managed image golden in rg1 is there already")
        assert problems(azure, order(tmp_path, overwrite=True), MACHINE, room=plenty) == []

    def test_a_version_that_is_there(self, azure: Azure, world: World, tmp_path: Path) -> None:
        world.definition()
        world.version()
        wanted = order(tmp_path, shared_image_destination=GALLERY)
        (problem,) = problems(azure, wanted, MACHINE, room=plenty)
        assert problem.startswith("the gallery image version linux/debian/1.0.0 is there already")
        assert problems(azure, replace(wanted, overwrite=True), MACHINE, room=plenty) == []

    def test_an_operation_of_azures_that_fails_is_said_with_its_reason(
        self, azure: Azure, azure_emulator: AzureEmulator, tmp_path: Path
    ) -> None:
        azure_emulator.fault(call="GET images", status=403)
        (problem,) = problems(azure, order(tmp_path), MACHINE, room=plenty)
        assert problem.startswith(f"looking for the managed image {IMAGE} failed: ")


@pytest.mark.root
class TestAVersionThatIsBeingMade:
    """It is neither free nor to be replaced."""

    @pytest.fixture
    def azure_emulator_settings(self, tmp_path: Path) -> Settings:
        path = tmp_path / "platform.raw"
        path.write_bytes(bytes(1 << 20))
        images = (PlatformImage(URN, path),)
        return Settings(tmp_path / "azure", images=images, profile=Profile({"versions.create": 60.0}))

    def test_it_has_a_sentence_of_its_own(self, azure: Azure, world: World, tmp_path: Path) -> None:
        world.definition()
        world.version(wait=False)
        wanted = order(tmp_path, shared_image_destination=GALLERY, overwrite=True)
        assert problems(azure, wanted, MACHINE, room=plenty) == [
            (
                "the gallery image version linux/debian/1.0.0 is still being made (wait until it is, or set another "
                "image_version; `azchroot sweep` deletes one that an interrupted build has given up)"
            )
        ]


@pytest.mark.root
class TestTogether:
    """Of many lookups one list."""

    def bad(self, directory: Path) -> Order:
        destination = {**GALLERY, "image_name": "typo", "target_regions": [{"name": "nowhere"}]}
        return order(
            directory,
            source=f"{SKU}:9.9.9",
            image_resource_id=IMAGE,
            shared_image_destination=destination,
            os_disk_storage_account_type="UltraSSD_LRS",
        )

    def test_all_problems_are_in_one_list(self, azure: Azure, world: World, tmp_path: Path) -> None:
        world.definition()
        world.image()
        found = problems(azure, self.bad(tmp_path), MACHINE, room=lambda: Room(used=8, limit=8))
        beginnings = [
            "the platform image",
            "no further disk",
            "os_disk_storage_account_type is UltraSSD_LRS",
            "the managed image golden in rg1 is there already",
            "the gallery linux in rg1 has no image definition typo: it has debian",
            "shared_image_destination.target_regions has nowhere, and not westus2",
            "shared_image_destination.target_regions has nowhere, which is no region",
        ]
        assert len(found) == len(beginnings)
        for problem, beginning in zip(found, beginnings, strict=True):
            assert problem.startswith(beginning)

    def test_a_credential_that_does_not_work_is_said_once(self, azure_emulator: AzureEmulator, tmp_path: Path) -> None:
        unknown = ImageSpec(client_id=NOBODY)
        azure = Azure(credential(unknown, None, PUBLIC))
        found = problems(azure, order(tmp_path, shared_image_destination=GALLERY), MACHINE, room=plenty)
        azure.close()
        assert len(found) == 1 and found[0].startswith(f"Azure gives no token to the managed identity {NOBODY}")

    def test_a_token_that_is_refused_is_said_once(
        self, azure: Azure, azure_emulator: AzureEmulator, tmp_path: Path
    ) -> None:
        for call in ("GET images", "GET galleries/*", "GET publishers/*"):
            azure_emulator.fault(call=call, status=401)
        (problem,) = problems(azure, order(tmp_path, shared_image_destination=GALLERY), MACHINE, room=plenty)
        assert "the token was refused" in problem

    def test_a_subscription_that_is_not_there_is_said_once(self, azure: Azure, tmp_path: Path) -> None:
        other = "99999999-9999-9999-9999-999999999999"
        options: dict[str, Any] = {"client_secret": "secret", "client_id": "me", "subscription_id": other}
        wanted = order(tmp_path, shared_image_destination=GALLERY, **options)
        (problem,) = problems(azure, wanted, MACHINE, room=plenty)
        assert "SubscriptionNotFound" in problem and other in problem

    def test_lookups_go_at_once(
        self, azure: Azure, azure_emulator: AzureEmulator, world: World, tmp_path: Path
    ) -> None:
        """What is asked first is answered last: whoever asked in a row would be answered in that order."""
        world.definition()
        before = len(azure_emulator.calls())
        for call in ("GET publishers/artifacttypes/offers/skus/versions", "GET images"):
            azure_emulator.fault(call=call, delay=0.3)
        wanted = order(tmp_path, image_resource_id=IMAGE, shared_image_destination=GALLERY)
        assert problems(azure, wanted, MACHINE, room=plenty) == []
        ended = [call["name"] for call in azure_emulator.calls()[before:]]
        assert ended.index("GET galleries/images") < ended.index("GET publishers/artifacttypes/offers/skus/versions")
        assert ended.index("GET galleries/images/versions") < ended.index("GET images")
