"""An emulator that is killed, and started again in its directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.disk.loop import wait_until_free
from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import Settings
from pytest_azchroot.errors import UnavailableError

from .conftest import Compute, attach, connect, detach, empty_disk, loops_below, settled
from .test_machines import lun_link

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]


@contextmanager
def serving(settings: Settings, *, seconds: float = 0) -> Iterator[Compute]:
    """A client of an emulator in another process, which is killed on exit."""
    command = [sys.executable, "-m", "tests.emulator.serve", str(settings.directory), str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield connect(process.stdout.readline().strip(), settings)
    finally:
        process.kill()
        process.communicate()


def test_resources_and_devices_are_there_again(settings: Settings, again: Callable[..., Emulator]) -> None:
    with serving(settings) as compute:
        first, second = empty_disk(compute, "d1"), empty_disk(compute, "d2")
        attach(compute, first.id, lun=4)
        with lun_link(settings, 4).open("r+b") as device:
            device.write(b"before")
    assert all(wait_until_free(name, "") for name in loops_below(settings.directory))
    with again() as emulator:
        compute = connect(emulator.url, settings)
        assert [disk.name for disk in compute.disks.list()] == ["d1", "d2"]
        entries = compute.virtual_machines.get("rg1", "vm1").properties.storage_profile.data_disks
        assert [(entry.lun, entry.name) for entry in entries] == [(4, "d1")]
        with lun_link(settings, 4).open("rb") as device:
            assert device.read(6) == b"before"
        attach(compute, second.id)
        detach(compute, first.id)
    assert loops_below(settings.directory) == []


def test_a_killed_emulator_leaves_no_device(settings: Settings) -> None:
    with serving(settings) as compute:
        attach(compute, empty_disk(compute, "d1").id)
        (name,) = loops_below(settings.directory)
        backing = Path(f"/sys/block/{name}/loop/backing_file").read_text().strip()
    assert wait_until_free(name, backing)


def test_a_mounted_device_is_taken_up_again(settings: Settings, again: Callable[..., Emulator], tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with serving(settings) as compute:
        disk = empty_disk(compute, "d1").id
        attach(compute, disk)
        subprocess.run(["mkfs.ext4", "-q", lun_link(settings, 0)], check=True)
        subprocess.run(["mount", lun_link(settings, 0), place], check=True)
    try:
        before = loops_below(settings.directory)
        with again() as emulator:
            assert loops_below(settings.directory) == before
            assert lun_link(settings, 0).resolve() == Path(f"/dev/{before[0]}")
            (place / "file").write_text("still works")
            subprocess.run(["umount", place], check=True)
            detach(connect(emulator.url, settings), disk)
            assert loops_below(settings.directory) == []
    finally:
        subprocess.run(["umount", "--quiet", place], check=False)


def test_what_was_running_goes_on(settings: Settings, again: Callable[..., Emulator]) -> None:
    with serving(settings) as compute:
        disk = empty_disk(compute, "d1").id
    with serving(settings, seconds=60) as compute:
        creation = {"createOption": "Copy", "sourceResourceId": disk}
        body: dict[str, Any] = {"location": "westus2", "properties": {"creationData": creation}}
        compute.disks.begin_create_or_update("rg1", "d2", body, polling=False)
        request: dict[str, Any] = {"dataDisksToAttach": [{"diskId": disk}]}
        compute.virtual_machines.begin_attach_detach_data_disks("rg1", "vm1", request, polling=False)
        assert compute.disks.get("rg1", "d2").properties.provisioning_state == "Updating"
    with again() as emulator:
        compute = connect(emulator.url, settings)
        settled(lambda: compute.virtual_machines.get("rg1", "vm1").properties.provisioning_state == "Succeeded")
        assert lun_link(settings, 0).is_block_device()
        settled(lambda: compute.disks.get("rg1", "d2").properties.provisioning_state == "Succeeded")
        assert compute.disks.get("rg1", "d2").properties.disk_state == "Unattached"
        assert len(list(emulator.azure.store.directory.iterdir())) == 2


def test_files_that_nobody_knows_are_removed(settings: Settings, again: Callable[..., Emulator]) -> None:
    with again() as emulator:
        kept = empty_disk(connect(emulator.url, settings), "d1").id
        file = emulator.azure.store.path(emulator.azure.resource(kept).hidden["file"])
        stray = emulator.azure.store.path("stray.raw.part")
        stray.write_bytes(b"half of a disk")
    with again():
        assert file.exists() and not stray.exists()


def test_a_directory_has_one_emulator(emulator: Emulator, again: Callable[..., Emulator]) -> None:
    with pytest.raises(UnavailableError, match="another emulator runs"):
        again().start()
    assert emulator.ports


def test_an_emulator_can_be_started_again(settings: Settings) -> None:
    emulator = Emulator(settings)
    for _ in range(2):
        with emulator:
            assert connect(emulator.url, settings).virtual_machines.get("rg1", "vm1").name == "vm1"
