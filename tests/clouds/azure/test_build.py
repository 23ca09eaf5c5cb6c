"""Whole builds on Azure: what they publish, by its bytes, and what they leave."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pytest_azchroot.disk.digest import digest_of
from pytest_azchroot.emulator.settings import Family, Profile, Settings

from .workshop import AzureWorkshop

pytestmark = pytest.mark.root


@pytest.fixture
def azure_emulator_images() -> dict[str, Path]:
    """The workshop fills it."""
    return {}


@pytest.fixture(params=["scsi", "nvme"])
def family(request: pytest.FixtureRequest) -> str:
    """How the machine sees its disks."""
    return str(request.param)


@pytest.fixture
def azure_emulator_settings(azure_emulator_settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Of one kind of machine, where the test asks for both; and detaching takes a moment."""
    family: Family = request.getfixturevalue("family") if "family" in request.fixturenames else "scsi"
    profile = Profile({"virtualMachines.attachDetach": 0.3, "images.create": 0.2, "versions.create": 0.4})
    return replace(azure_emulator_settings, family=family, profile=profile)


def test_a_managed_image(azure_workshop: AzureWorkshop, family: str) -> None:
    azure_workshop.image()
    azure_workshop.run().assert_outcomes(passed=3)
    assert azure_workshop.read("/etc/marker", azure_workshop.image_id()) == "hello\n"
    azure_workshop.nothing_is_left()


def test_a_gallery_version_of_the_disk_itself(azure_workshop: AzureWorkshop, family: str) -> None:
    azure_workshop.image(shared_image_destination=azure_workshop.gallery())
    azure_workshop.run().assert_outcomes(passed=3)
    assert azure_workshop.read("/etc/marker", azure_workshop.version_id()) == "hello\n"
    assert not {"PUT images", "PUT snapshots"} & set(azure_workshop.names())
    azure_workshop.nothing_is_left()


def test_both_are_made_side_by_side(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image(image_resource_id=azure_workshop.image_id(), shared_image_destination=azure_workshop.gallery())
    azure_workshop.run().assert_outcomes(passed=3)
    for id in (azure_workshop.image_id(), azure_workshop.version_id()):
        assert azure_workshop.read("/etc/marker", id) == "hello\n"
    calls = azure_workshop.azure.calls()
    begun = [call["name"] for call in calls].index("PUT galleries/images/versions")
    ended = [
        call for call in calls[:begun] if call["name"] == "GET operations" and call.get("operation") == "Succeeded"
    ]
    assert not [call for call in ended if call["at"] > calls[begun]["at"] - 0.2]
    azure_workshop.nothing_is_left()


def test_publishing_does_not_wait_for_the_detaching(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image()
    azure_workshop.run()
    names = azure_workshop.names()
    last = len(names) - 1 - names[::-1].index("POST virtualMachines/attachDetachDataDisks")
    assert names[last + 1] == "PUT images"


def test_a_failing_check_publishes_nothing_and_leaves_nothing(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image(files={"test_it": "def test_it(host): assert host.file('/nothing').exists"})
    azure_workshop.run().assert_outcomes(failed=1, skipped=1)
    assert "PUT images" not in azure_workshop.names()
    azure_workshop.nothing_is_left()


def test_the_latest_version_is_that_of_the_highest_number(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image(files={"test_it": "def test_it(image, host): assert image.source_version == '12.0.10'"})
    azure_workshop.run().assert_outcomes(passed=2)


def test_what_a_suite_knows_of_its_build(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image(
        files={
            "test_it": """
                import pytest

                @pytest.mark.provision
                def test_step(chroot, image):
                    found = dict(line.split("=", 1) for line in chroot.run("env").stdout.splitlines())
                    assert found["AZCHROOT_LUN"] == str(image.lun) == "0"
                    assert found["AZCHROOT_DISK_ID"] == image.disk.id
                    assert found["AZCHROOT_SOURCE"] == image.source
                    assert found["AZCHROOT_SOURCE_VERSION"] == image.source_version == "12.0.10"
                    assert found["AZCHROOT_VM_NAME"] == image.vm.name == "vm1"
                    assert found["AZCHROOT_VM_LOCATION"] == image.vm.location == "westus2"
                    assert image.vm.size == "Standard_D4s_v5"

                def test_check(host):
                    pass
            """
        }
    )
    azure_workshop.run().assert_outcomes(passed=3)


def test_templates_know_the_machine(azure_workshop: AzureWorkshop) -> None:
    group = "/subscriptions/{{ vm.subscription_id }}/resourceGroups/{{ vm.resource_group }}"
    azure_workshop.image(image_resource_id=f"{group}/providers/Microsoft.Compute/images/in-{{{{ vm.location }}}}")
    azure_workshop.run().assert_outcomes(passed=3)
    assert azure_workshop.read("/etc/marker", azure_workshop.image_id("in-westus2")) == "hello\n"


def test_the_end_says_where_the_time_went(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image()
    result = azure_workshop.run()
    result.stdout.re_match_lines([r"x  published  /subscriptions/.*; \d+ requests answered in .* s, .* s waiting .*"])


def test_everything_temporary_says_whose_it_is(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.azure.fault(call="DELETE disks", status=403, code="AuthorizationFailed")
    azure_workshop.image(shared_image_gallery_timeout=100 * 3600)
    result = azure_workshop.run()
    result.assert_outcomes(passed=3)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*the disk azchroot-x-* was not deleted*", "*azchroot sweep*"])
    [disk] = azure_workshop.azure.compute().disks.list()
    tags = disk.tags or {}
    assert tags.keys() == {"azchroot-run", "azchroot-host", "azchroot-expires"}
    assert tags["azchroot-host"] == azure_workshop.azure.settings.vm_id
    expires = datetime.fromisoformat(tags["azchroot-expires"].replace("Z", "+00:00"))
    assert timedelta(hours=299) < expires - datetime.now(timezone.utc) < timedelta(hours=301)
    [journal] = azure_workshop.journals()
    assert str(disk.id) in journal


def test_what_takes_longer_than_it_may_is_taken_up_by_the_next_run(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.azure.fault(operation="versions.create", delay=2.5)
    directory = azure_workshop.image(shared_image_destination=azure_workshop.gallery(), shared_image_gallery_timeout=1)
    first = azure_workshop.run()
    first.assert_outcomes(passed=2, failed=1)
    first.stdout.fnmatch_lines(["*version 1.0.0*is not complete*", "*run again*"])
    assert azure_workshop.disks()
    azure_workshop.image(shared_image_destination=azure_workshop.gallery())
    assert directory.is_dir()
    second = azure_workshop.run("-rs")
    second.assert_outcomes(passed=1, skipped=2)
    second.stdout.fnmatch_lines(["*has tested it*taken up*"])
    assert azure_workshop.read("/etc/marker", azure_workshop.version_id()) == "hello\n"
    assert azure_workshop.names().count("PUT galleries/images/versions") == 1
    azure_workshop.nothing_is_left()


def test_what_another_recipe_has_made_is_not_taken_up(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.azure.fault(operation="versions.create", delay=2.5)
    destination = azure_workshop.gallery()
    azure_workshop.image(shared_image_destination=destination, shared_image_gallery_timeout=1)
    azure_workshop.run().assert_outcomes(passed=2, failed=1)
    directory = azure_workshop.image(shared_image_destination=destination)
    (directory / "test_10_step.py").write_text((directory / "test_10_step.py").read_text() + "\n# another one\n")
    again = azure_workshop.run()
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    again.stderr.fnmatch_lines(["x: *1.0.0*"])


def test_the_next_disk_is_made_while_this_one_is_checked(azure_workshop: AzureWorkshop) -> None:
    for name in ("a", "b"):
        azure_workshop.image(name)
    azure_workshop.run("--azchroot-ahead").assert_outcomes(passed=6)
    names = azure_workshop.names()
    first = names.index("PUT disks")
    assert names.index("PUT disks", first + 1) < names.index("PUT images")
    azure_workshop.nothing_is_left()


def test_a_disk_that_was_made_ahead_for_nothing_is_deleted(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image("a", files={"test_it": "def test_it(host): assert False"})
    azure_workshop.image("b")
    azure_workshop.run("--azchroot-ahead", "-x")
    assert azure_workshop.names().count("PUT disks") == 2
    azure_workshop.nothing_is_left()


def test_a_disk_that_is_attached_once_more_is_written_down_once(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.azure.fault(call="POST virtualMachines/attachDetachDataDisks", nth=1, status=400, code="BadRequest")
    azure_workshop.image()
    azure_workshop.run("--reruns", "2").assert_outcomes(passed=3)
    azure_workshop.nothing_is_left()


def test_a_disk_that_is_not_detached_does_not_undo_a_good_image(azure_workshop: AzureWorkshop) -> None:
    for nth in range(2, 6):
        call = "POST virtualMachines/attachDetachDataDisks"
        azure_workshop.azure.fault(call=call, nth=nth, status=403, code="AuthorizationFailed")
    azure_workshop.image(polling_duration_timeout=30)
    result = azure_workshop.run()
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["x  published *", "x: the disk * is still there: *AuthorizationFailed*", "*sweep*"])
    assert azure_workshop.read("/etc/marker", azure_workshop.image_id()) == "hello\n"
    [journal] = azure_workshop.journals()
    assert '"attachment"' in journal


def test_a_resource_lock_is_not_waited_for(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.azure.fault(call="DELETE disks", status=409, code="ScopeLocked")
    azure_workshop.image()
    result = azure_workshop.run()
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*was not deleted: *ScopeLocked*"])
    assert azure_workshop.names().count("DELETE disks") == 1


def test_a_disk_that_could_not_be_made_ahead_is_tried_again(azure_workshop: AzureWorkshop) -> None:
    for name in ("a", "b"):
        azure_workshop.image(name)
    azure_workshop.azure.fault(call="PUT disks", nth=2, status=409, code="SkuNotAvailable")
    azure_workshop.run("--azchroot-ahead", "--reruns", "1").assert_outcomes(passed=6)
    assert azure_workshop.names().count("PUT disks") == 3
    azure_workshop.nothing_is_left()


def test_a_disk_can_be_kept(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image(files={"test_it": "def test_it(host): assert False"})
    result = azure_workshop.run("--azchroot-keep=failed")
    [disk] = azure_workshop.azure.compute().disks.list()
    result.stdout.fnmatch_lines(["*its disk was kept: */disks/azchroot-x-*", "*az disk delete*"])
    assert "azchroot-expires" not in (disk.tags or {})
    assert (azure_workshop.attached(), azure_workshop.journals()) == ([], [])


def test_skip_cleanup_keeps_it_too(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image(skip_cleanup=True)
    azure_workshop.run().assert_outcomes(passed=3)
    [disk] = azure_workshop.azure.compute().disks.list()
    assert "azchroot-expires" not in (disk.tags or {})
    assert (azure_workshop.attached(), azure_workshop.journals()) == ([], [])


def test_an_image_that_is_there_is_verified(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image(shared_image_destination=azure_workshop.gallery())
    azure_workshop.run().assert_outcomes(passed=3)
    result = azure_workshop.run("--azchroot-verify", azure_workshop.version_id())
    result.assert_outcomes(passed=1, deselected=2)
    azure_workshop.nothing_is_left()


def test_an_artifact_is_replaced_only_where_that_is_asked_for(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image()
    azure_workshop.run()
    again = azure_workshop.run()
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    again.stderr.fnmatch_lines(["x: the managed image x in rg1 is there already *--azchroot-overwrite*"])
    azure_workshop.run("--azchroot-overwrite").assert_outcomes(passed=3)
    assert azure_workshop.names().count("DELETE images") == 1
    azure_workshop.nothing_is_left()


def test_what_was_to_be_replaced_is_told_to_be_gone(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image()
    azure_workshop.run()
    azure_workshop.azure.fault(call="PUT images", status=403, code="AuthorizationFailed")
    result = azure_workshop.run("--azchroot-overwrite")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*nothing was published, and what had its name is deleted*"])
    azure_workshop.nothing_is_left()


def test_the_digest_is_that_of_what_is_published(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image()
    azure_workshop.run("--azchroot-output=out").assert_outcomes(passed=3)
    found = json.loads((azure_workshop.pytester.path / "out/x/manifest.json").read_text())
    file = azure_workshop.azure.disk_file(azure_workshop.image_id())
    assert found["disk"]["digest"] == found["artifacts"][0]["digest"] == digest_of(file)
    image = azure_workshop.azure.compute().images.get("rg1", "x")
    assert (image.tags or {})["azchroot-digest"] == digest_of(file)
    assert found["requests"]["count"] > 10 and found["source"]["version"] == "12.0.10"


def test_what_is_written_behind_the_seal_is_noticed(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image(
        files={
            "test_it": """
                import os

                def test_it(host, image):
                    link = os.environ["AZCHROOT_DEVICES"] + "/disk/azure/scsi1/lun0"
                    device = os.open(link, os.O_WRONLY)
                    os.pwrite(device, b"x", 15 << 20)
                    os.fsync(device)
                    os.close(device)
            """
        }
    )
    result = azure_workshop.run()
    result.assert_outcomes(passed=1, errors=1, skipped=1)
    azure_workshop.nothing_is_left()
