"""The virtual machine and its data disks, by the SDK; and the devices that appear."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import ResourceModifiedError

from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import Profile, Settings

from .conftest import (
    MARK,
    MARK_AT,
    Compute,
    attach,
    connect,
    detach,
    empty_disk,
    loops_below,
    platform_disk,
)
from .test_disks import refusal

pytestmark = pytest.mark.root


def data_disks(compute: Compute) -> list[Any]:
    """As GET shows them."""
    return list(compute.virtual_machines.get("rg1", "vm1").properties.storage_profile.data_disks)


def lun_link(settings: Settings, lun: int) -> Path:
    """Where a client looks for a device."""
    return settings.device_directory / f"disk/azure/scsi1/lun{lun}"


def test_the_machine_has_no_data_disks_and_says_so(compute: Compute) -> None:
    machine = compute.virtual_machines.get("rg1", "vm1")
    assert machine.properties.storage_profile.data_disks == []
    assert machine.etag == '"1"'


def test_an_attached_disk_is_a_device_with_its_bytes(compute: Compute, settings: Settings) -> None:
    disk = platform_disk(compute, settings, "d1")
    profile = attach(compute, disk.id, caching="ReadOnly")
    (entry,) = profile.data_disks
    assert (entry.lun, entry.name, entry.caching, entry.to_be_detached) == (0, "d1", "ReadOnly", False)
    assert compute.disks.get("rg1", "d1").managed_by == settings.machine_id
    assert compute.disks.get("rg1", "d1").properties.disk_state == "Attached"
    link = lun_link(settings, 0)
    assert os.readlink(link) == "../../../azsdc"
    assert link.is_block_device()
    with link.open("rb") as device:
        device.seek(MARK_AT)
        assert device.read(len(MARK)) == MARK
    assert link.with_name("lun0-part1").is_block_device() and link.with_name("lun0-part2").is_block_device()


def test_what_is_written_to_the_device_is_in_the_disk(compute: Compute, emulator: Emulator, settings: Settings) -> None:
    disk = empty_disk(compute, "d1")
    attach(compute, disk.id)
    with lun_link(settings, 0).open("r+b") as device:
        device.seek(4096)
        device.write(b"written on the machine")
    detach(compute, disk.id)
    assert not lun_link(settings, 0).is_symlink()
    assert loops_below(settings.directory) == []
    found = compute.disks.get("rg1", "d1")
    assert found.managed_by is None and found.properties.disk_state == "Unattached"
    path = emulator.azure.store.path(emulator.azure.resource(disk.id).hidden["file"])
    with path.open("rb") as file:
        file.seek(4096)
        assert file.read(22) == b"written on the machine"


def test_nvme_names(settings: Settings) -> None:
    nvme = replace(settings, family="nvme")
    with Emulator(nvme) as emulator:
        compute = connect(emulator.url, nvme)
        disk = platform_disk(compute, nvme, "d1")
        attach(compute, disk.id, lun=3)
        link = nvme.device_directory / "disk/azure/data/by-lun/3"
        assert os.readlink(link) == "../../../../aznvme0n5"
        assert link.is_block_device() and link.with_name("3-part1").is_block_device()
        assert os.readlink(nvme.device_directory / "aznvme0n5p1").endswith("p1")
        machine = compute.virtual_machines.get("rg1", "vm1")
        assert machine.properties.storage_profile.disk_controller_type == "NVMe"


def test_an_attached_disk_grows(compute: Compute, settings: Settings) -> None:
    disk = empty_disk(compute, "d1")
    attach(compute, disk.id)
    compute.disks.begin_update("rg1", "d1", {"properties": {"diskSizeGB": 2}}).result()
    done = subprocess.run(["blockdev", "--getsize64", lun_link(settings, 0)], capture_output=True, check=True)
    assert int(done.stdout) == 2 * 1024**3


def test_put_replaces_the_list(compute: Compute, settings: Settings) -> None:
    first, second = empty_disk(compute, "d1"), empty_disk(compute, "d2")
    machine = compute.virtual_machines.get("rg1", "vm1").as_dict()
    entries = machine["properties"]["storageProfile"]["dataDisks"]
    entries.append({"lun": 5, "createOption": "Attach", "managedDisk": {"id": first.id}})
    compute.virtual_machines.begin_create_or_update("rg1", "vm1", machine).result()
    assert [(entry.lun, entry.name) for entry in data_disks(compute)] == [(5, "d1")]
    entries[:] = [{"lun": 5, "createOption": "Attach", "managedDisk": {"id": second.id}}]
    compute.virtual_machines.begin_create_or_update("rg1", "vm1", machine).result()
    assert [(entry.lun, entry.name) for entry in data_disks(compute)] == [(5, "d2")]
    assert lun_link(settings, 5).is_block_device()


def test_put_makes_empty_disks(compute: Compute) -> None:
    wanted = [{"lun": 0, "name": "made", "createOption": "Empty", "diskSizeGB": 1, "managedDisk": {}}]
    body = {"properties": {"storageProfile": {"dataDisks": wanted}}}
    compute.virtual_machines.begin_update("rg1", "vm1", body).result()
    assert compute.disks.get("rg1", "made").properties.disk_state == "Attached"


def test_patch_of_tags_leaves_the_disks(compute: Compute) -> None:
    attach(compute, empty_disk(compute, "d1").id)
    machine = compute.virtual_machines.begin_update("rg1", "vm1", {"tags": {"a": "b"}}).result()
    assert machine.tags == {"a": "b"} and [entry.name for entry in data_disks(compute)] == ["d1"]


def test_a_stale_etag(compute: Compute) -> None:
    machine = compute.virtual_machines.get("rg1", "vm1")
    attach(compute, empty_disk(compute, "d1").id)
    with pytest.raises(ResourceModifiedError) as caught:
        compute.virtual_machines.begin_update(
            "rg1", "vm1", {"tags": {}}, etag=machine.etag, match_condition=MatchConditions.IfNotModified
        )
    assert caught.value.status_code == 412
    etag = compute.virtual_machines.get("rg1", "vm1").etag
    compute.virtual_machines.begin_update(
        "rg1", "vm1", {"tags": {}}, etag=etag, match_condition=MatchConditions.IfNotModified
    ).result()


def test_another_machine(compute: Compute, settings: Settings) -> None:
    disk = empty_disk(compute, "d1")
    entry = {"lun": 0, "createOption": "Attach", "managedDisk": {"id": disk.id}, "deleteOption": "Delete"}
    body = {
        "location": "westus2",
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_B2s"},
            "storageProfile": {"dataDisks": [entry]},
        },
    }
    other = compute.virtual_machines.begin_create_or_update("rg1", "vm2", body).result()
    assert other.properties.provisioning_state == "Succeeded"
    assert [machine.name for machine in compute.virtual_machines.list("rg1")] == ["vm1", "vm2"]
    assert loops_below(settings.directory) == []  # only the machine that is played here has devices
    text = f"Disk '{disk.id}' cannot be attached as the disk is already owned by VM '{other.id}'."
    assert refusal(lambda: attach(compute, disk.id)) == (409, "ConflictingUserInput", text)
    compute.virtual_machines.begin_delete("rg1", "vm2").result()
    compute.disks.begin_delete("rg1", "d1").result()
    assert list(compute.disks.list()) == []


def test_the_power_state(compute: Compute) -> None:
    view = compute.virtual_machines.instance_view("rg1", "vm1")
    assert [status.code for status in view.statuses] == ["ProvisioningState/succeeded", "PowerState/running"]


# -- refusals


def test_a_lun_is_used_once(compute: Compute) -> None:
    first, second = empty_disk(compute, "d1"), empty_disk(compute, "d2")
    attach(compute, first.id, lun=0)
    text = "A disk at LUN 0 already exists."
    assert refusal(lambda: attach(compute, second.id, lun=0)) == (400, "InvalidParameter", text)
    assert [entry.name for entry in data_disks(compute)] == ["d1"]


def test_a_lun_s_range(compute: Compute) -> None:
    disk = empty_disk(compute, "d1")
    text = (
        "The value '64' of parameter 'dataDisk.lun' is out of range. Value '64' must be between '0' and '63' inclusive."
    )
    assert refusal(lambda: attach(compute, disk.id, lun=64)) == (400, "InvalidParameter", text)


def test_the_size_limits_the_disks(compute: Compute) -> None:
    body = {"properties": {"hardwareProfile": {"vmSize": "Standard_D2s_v5"}}}
    compute.virtual_machines.begin_update("rg1", "vm1", body).result()
    disks = [empty_disk(compute, f"d{number}").id for number in range(5)]
    attach(compute, *disks[:4])
    text = "The maximum number of data disks allowed to be attached to a VM of this size is 4."
    assert refusal(lambda: attach(compute, disks[4])) == (409, "OperationNotAllowed", text)


def test_a_disk_that_is_not_there(compute: Compute, settings: Settings) -> None:
    id_ = settings.machine_id.replace("virtualMachines/vm1", "disks/none")
    assert refusal(lambda: attach(compute, id_))[:2] == (404, "ResourceNotFound")
    assert refusal(lambda: detach(compute, id_))[:2] == (400, "InvalidParameter")


def test_a_busy_device_stays_attached_until_it_is_let_go(settings: Settings) -> None:
    impatient = replace(settings, profile=Profile(detach_patience=0.3))
    with Emulator(impatient) as emulator:
        compute = connect(emulator.url, impatient)
        disk = empty_disk(compute, "d1")
        attach(compute, disk.id)
        with lun_link(impatient, 0).open("rb"):
            _, code, message = refusal(lambda: detach(compute, disk.id))
            assert code == "DetachDiskFailed" and "a process has it open" in message
            assert [entry.to_be_detached for entry in data_disks(compute)] == [True]
            assert lun_link(impatient, 0).is_block_device()
            assert refusal(lambda: attach(compute, disk.id))[:2] == (409, "AttachDiskWhileBeingDetached")
            assert refusal(lambda: compute.disks.begin_delete("rg1", "d1"))[1] == "OperationNotAllowed"
            other = empty_disk(compute, "d2")
            assert [entry.lun for entry in attach(compute, other.id).data_disks] == [0, 1]
        detach(compute, disk.id)
        assert [entry.name for entry in data_disks(compute)] == ["d2"]


def test_force_detach_takes_a_busy_device(compute: Compute, settings: Settings) -> None:
    disk = empty_disk(compute, "d1")
    attach(compute, disk.id)
    with lun_link(settings, 0).open("r+b") as device:
        device.write(b"before")
        device.flush()
        os.fsync(device.fileno())
        detach(compute, disk.id, detachOption="ForceDetach")
        assert not lun_link(settings, 0).is_symlink()
        device.write(b"after")
    assert loops_below(settings.directory) == []
    attach(compute, disk.id)
    with lun_link(settings, 0).open("rb") as device:
        assert device.read(11) == b"before\0\0\0\0\0"


def test_while_it_goes_a_disk_is_marked(settings: Settings) -> None:
    slow = replace(settings, profile=Profile({"virtualMachines.attachDetach": 0.6}))
    with Emulator(slow) as emulator:
        compute = connect(emulator.url, slow)
        disk = empty_disk(compute, "d1")
        body: dict[str, Any] = {"dataDisksToAttach": [{"diskId": disk.id}]}
        poller = compute.virtual_machines.begin_attach_detach_data_disks("rg1", "vm1", body)
        assert [entry.name for entry in data_disks(compute)] == ["d1"]  # the goal is shown at once
        assert compute.virtual_machines.get("rg1", "vm1").properties.provisioning_state == "Updating"
        assert compute.disks.get("rg1", "d1").properties.disk_state == "Unattached"
        assert not lun_link(slow, 0).is_symlink()
        poller.result()
        body = {"dataDisksToDetach": [{"diskId": disk.id}]}
        poller = compute.virtual_machines.begin_attach_detach_data_disks("rg1", "vm1", body)
        assert [entry.to_be_detached for entry in data_disks(compute)] == [True]
        text = (
            "Cannot attach data disk 'd1' to VM 'vm1' because the disk is currently being detached or the last detach "
            "operation failed. Please wait until the disk is completely detached and then try again or delete/detach "
            "the disk explicitly again."
        )
        again = {"lun": 0, "createOption": "Attach", "managedDisk": {"id": disk.id}}
        body = {"properties": {"storageProfile": {"dataDisks": [again]}}}
        refused = refusal(lambda: compute.virtual_machines.begin_update("rg1", "vm1", body))
        assert refused == (409, "AttachDiskWhileBeingDetached", text)
        poller.result()
        assert data_disks(compute) == []


def test_an_update_during_another_if_asked(settings: Settings, again: Callable[..., Emulator]) -> None:
    profile = Profile({"virtualMachines.update": 0.5})
    with again(overlap="conflict", profile=profile) as emulator:
        compute = connect(emulator.url, settings)
        poller = compute.virtual_machines.begin_update("rg1", "vm1", {"tags": {"a": "b"}})
        text = "The request failed due to conflict with a concurrent request."
        refused = refusal(lambda: compute.virtual_machines.begin_update("rg1", "vm1", {"tags": {"a": "c"}}))
        assert refused == (409, "Conflict", text)
        poller.result()
