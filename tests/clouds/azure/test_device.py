"""The device of a data disk: on machines as they were recorded, and on the emulator's."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from pytest_azchroot.clouds.azure import device
from pytest_azchroot.clouds.azure.blocks import Roots, blocks, number_of
from pytest_azchroot.clouds.azure.device import find, snapshot, wait_for
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.emulator.settings import Family, Profile, Settings
from pytest_azchroot.errors import DiskError

from .trees import GIB, NAMES, Tree, grown

SIZE = 32 * GIB


@pytest.fixture
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    """A machine; of generation 1 unless a test says otherwise."""
    return grown(getattr(request, "param", "gen1"), tmp_path)


def on(*names: str) -> pytest.MarkDecorator:
    """The test is for these machines."""
    return pytest.mark.parametrize("tree", names, indirect=True)


def found(tree: Tree, lun: int, *, size: int | None = None, **options: Any) -> str | None:
    """The name of a device."""
    path = find(lun, size=size, before=options.pop("before", None), roots=replace(tree.roots, **options))
    return None if path is None else path.name


def refusal(tree: Tree, lun: int, *, size: int | None = SIZE, **options: Any) -> str:
    """What somebody reads who waits in vain."""
    roots = replace(tree.roots, links_only=options.pop("links_only", False))
    with pytest.raises(DiskError) as caught:
        wait_for(lun, size=size, before=options.pop("before", None), timeout=0, roots=roots)
    return str(caught.value)


# -- where it is


@on(*NAMES)
def test_every_lun(tree: Tree) -> None:
    assert {lun: name for lun in range(64) if (name := found(tree, lun))} == tree.luns


@on(*NAMES)
def test_every_lun_without_udev(tree: Tree) -> None:
    tree.without_links()
    assert {lun: name for lun in range(64) if (name := found(tree, lun))} == tree.luns


@on("gen1", "gen2", "nvme")
def test_every_lun_by_links_alone(tree: Tree) -> None:
    assert {lun: name for lun in range(64) if (name := found(tree, lun, links_only=True))} == tree.luns


def test_the_path_is_that_of_the_node(tree: Tree) -> None:
    assert find(1, size=SIZE, before=None, roots=tree.roots) == tree.node("sdd")


@on("nvme")
def test_local_disks_are_nobodys_lun(tree: Tree) -> None:
    for name in ("nvme1n2", "nvme1n3"):
        tree.unplug(name)
    assert found(tree, 0) is None and found(tree, 1) is None


@on("gen2")
def test_the_systems_disks_are_nobodys_lun(tree: Tree) -> None:
    for name in ("sda", "sdd"):
        tree.unplug(name)
    assert [found(tree, lun) for lun in range(3)] == [None] * 3


@on(*NAMES)
def test_what_the_kernel_says(tree: Tree) -> None:
    there = list(blocks(tree.roots))
    assert {each.lun: each.name for each in there if each.lun is not None} == tree.luns
    assert all(each.place for each in there if not each.partition)


# -- whether it is the one


def test_size(tree: Tree) -> None:
    assert found(tree, 0, size=SIZE) == "sdaa"
    assert found(tree, 0, size=SIZE - 512) is None
    text = refusal(tree, 0, size=SIZE - 512)
    by_lun, scsi1 = (tree.node(link) for link in ("disk/azure/data/by-lun/0", "disk/azure/scsi1/lun0"))
    way = f"{by_lun} and {scsi1} and LUN 0 of the SCSI controller {{f8b3781b-1e82-4818-a1c3-63d806ec15bb}}"
    assert f"{way} is {tree.node('sdaa')}, but that has {SIZE} bytes and not {SIZE - 512}" in text
    assert "hint: detach the disk that is there" in text


@on("gen1", "nvme", "old_kernel")
def test_a_disk_that_was_there_before(tree: Tree) -> None:
    before = snapshot(tree.roots)
    for lun in tree.luns:
        assert found(tree, lun, before=before) is None
        assert "was there before the disk was attached" in refusal(tree, lun, size=None, before=before)


@on("gen1", "nvme")
def test_a_new_disk_with_name_and_number_of_one_that_has_left(tree: Tree) -> None:
    before = snapshot(tree.roots)
    for lun, name in tree.luns.items():
        tree.unplug(name)
        assert found(tree, lun, before=before) is None
        tree.plug(name)
        assert found(tree, lun, before=before) == name


@on("old_kernel")
def test_a_new_disk_where_the_kernel_does_not_count_them(tree: Tree) -> None:
    before = snapshot(tree.roots)
    (tree.roots.sys / "class/block/sdb").resolve().rename(tree.directory / "left")  # whose inode is taken as long
    tree.unplug("sdb")
    tree.plug("sdb")
    assert found(tree, 4, before=before) == "sdb"


def test_the_disk_of_another_build(tree: Tree) -> None:
    tree.unplug("sdd")
    before = snapshot(tree.roots)
    for lun, name in ((30, "sdg"), (1, "sdd")):
        tree.text["disks"][name] = tree.text["disks"]["sdd"]
        tree.plug(name, address=f"3:0:0:{lun}", number=f"8:{100 + lun}")
    assert (found(tree, 1, size=SIZE, before=before), found(tree, 30, before=before)) == ("sdd", "sdg")


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("sdf", "LUN 2 of the SCSI controller {f8b3781b-1e82-4818-a1c3-63d806ec15bb}"),
        ("sda", "LUN 0 of the SCSI controller {00000000-0000-8899-0000-000000000000}"),
        ("sdd1", "that is a partition"),
        ("null", "that is no block device"),
    ],
)
def test_a_link_that_leads_elsewhere(tree: Tree, target: str, complaint: str) -> None:
    tree.node("null").write_text("character device")
    for link in ("disk/azure/data/by-lun/1", "disk/azure/scsi1/lun1"):
        tree.link(link, str(tree.node(target)))
    assert found(tree, 1) == "sdd"
    assert found(tree, 1, links_only=True) is None
    assert complaint in refusal(tree, 1, size=None, links_only=True)


@on("nvme")
def test_a_link_to_another_namespace(tree: Tree) -> None:
    tree.link("disk/azure/data/by-lun/0", "../../../../nvme1n2")
    assert found(tree, 0, size=SIZE) == "nvme1n3"
    assert "namespace 3 of the NVMe controller 'MSFT" in refusal(tree, 0, links_only=True)


def test_a_link_to_a_disk_that_has_left(tree: Tree) -> None:
    tree.unplug("sdd")
    assert found(tree, 1) is None
    assert "nothing is there" in refusal(tree, 1)


def test_a_link_to_itself(tree: Tree) -> None:
    tree.link("disk/azure/scsi1/lun1", "lun1")
    assert found(tree, 1) == "sdd"


def test_a_node_that_belongs_to_another_disk(tree: Tree) -> None:
    tree.without_links()
    tree.node("sdd").write_text("8:80")
    assert found(tree, 1) is None
    tree.node("sdd").unlink()
    assert "there is no such node" in refusal(tree, 1)


def test_a_link_whose_node_is_not_called_as_the_kernel_does(tree: Tree) -> None:
    tree.node("azsdd").write_text("8:48")
    tree.link("disk/azure/scsi1/lun1", "../../../azsdd")
    tree.link("disk/azure/data/by-lun/1", "../scsi1/../../../../azsdd")
    assert found(tree, 1, size=SIZE, links_only=True) == "azsdd"


def test_two_disks_at_one_lun(tree: Tree) -> None:
    other = "{f8b3781c-1e82-4818-a1c3-63d806ec15bb}"
    tree.text["controllers"]["more"] = {"path": f"devices/VMBUS:00/{other[1:-1]}", "device_id": other}
    tree.text["disks"]["sdz"] = {"at": "more", "address": "4:0:0:1", "number": "65:144", "gib": 32}
    before = snapshot(tree.roots)
    tree.plug("sdz")
    assert found(tree, 1, size=SIZE) is None
    assert f"{tree.node('sdd')} and {tree.node('sdz')} are both at LUN 1" in refusal(tree, 1)
    assert found(tree, 1, size=SIZE, before=before) == "sdz"


def test_a_disk_that_leaves_while_it_is_looked_at(tree: Tree) -> None:
    home = (tree.roots.sys / "class/block/sdd").resolve()
    for attribute in ("size", "dev"):
        (home / attribute).rename(home / "gone")
        assert found(tree, 1) is None
        (home / "gone").rename(home / attribute)
    home.rename(tree.directory / "left")
    assert found(tree, 1) is None and found(tree, 2) == "sdf"


def test_a_disk_whose_size_the_kernel_does_not_know_yet(tree: Tree) -> None:
    for links_only in (False, True):
        tree.plug("sdd", gib=0)
        assert found(tree, 1, links_only=links_only) is None
        assert "that has no size" in refusal(tree, 1, size=None, links_only=links_only)


# -- waiting


def test_it_is_waited_for(tree: Tree) -> None:
    tree.unplug("sdd")
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            tree.plug("sdd")

    assert wait_for(1, size=SIZE, before=None, timeout=60, check=check, roots=tree.roots) == tree.node("sdd")
    assert len(calls) == 3


def test_a_failed_attach_ends_the_waiting(tree: Tree) -> None:
    def check() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        wait_for(7, size=None, before=None, timeout=60, check=check, roots=tree.roots)


def test_how_often_it_looks(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(device, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    with pytest.raises(DiskError, match=r"the disk at LUN 7 has not become a block device in 60 s"):
        wait_for(7, size=None, before=None, timeout=60, roots=tree.roots)
    assert clock[0] == pytest.approx(60)
    assert 0.01 <= pauses[0] <= 0.02 and max(pauses) == 0.2 and 400 < len(pauses) < 460


def test_what_was_looked_at(tree: Tree) -> None:
    dev, sys = tree.roots.dev, tree.roots.sys
    text = refusal(tree, 7)
    assert (
        f"{dev}/disk/azure/data/by-lun/7 and {dev}/disk/azure/scsi1/lun7, and at SCSI and NVMe disks in {sys}" in text
    )
    assert "nothing is there" in text and "hint: if Azure shows the disk as attached" in text
    text = refusal(tree, 7, links_only=True)
    assert "AZCHROOT_DEVICES names that directory" in text and str(sys) not in text


def test_an_emulators_directory_replaces_dev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZCHROOT_DEVICES", raising=False)
    assert Roots.default() == Roots(Path("/dev"), Path("/sys"))
    monkeypatch.setenv("AZCHROOT_DEVICES", "/some/where")
    assert Roots.default() == Roots(Path("/some/where"), Path("/sys"), links_only=True)


def test_numbers_of_nodes(tmp_path: Path) -> None:
    assert number_of(tmp_path) is None
    assert number_of(tmp_path / "nothing") is None
    assert number_of(Path("/dev/null")) is None


# -- on the emulator


@pytest.fixture(params=["scsi", "nvme"])
def azure_emulator_settings(request: pytest.FixtureRequest, azure_emulator_settings: Settings) -> Settings:
    """In both families; a device comes a moment after the operation has begun."""
    family: Family = request.param
    return replace(azure_emulator_settings, family=family, profile=Profile({"virtualMachines.attachDetach": 0.3}))


def make(azure_emulator: AzureEmulator, name: str) -> str:
    """An empty disk of 1 GiB; returns its id."""
    properties = {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}
    body: Any = {"location": "westus2", "properties": properties}
    disk = azure_emulator.compute().disks.begin_create_or_update("rg1", name, body).result()
    return str(disk.id)


def change(azure_emulator: AzureEmulator, **wanted: Any) -> Any:
    """Begin to attach or detach."""
    return azure_emulator.compute().virtual_machines.begin_attach_detach_data_disks("rg1", "vm1", wanted)  # type: ignore[call-overload]


@pytest.mark.root
def test_from_attach_to_detach(azure_emulator: AzureEmulator, tmp_path: Path) -> None:
    disks = [make(azure_emulator, name) for name in ("one", "two")]
    before = snapshot()
    wanted = [{"diskId": disk, "lun": lun} for disk, lun in zip(disks, (63, 0), strict=True)]
    attaching = change(azure_emulator, dataDisksToAttach=wanted)
    nodes = [wait_for(lun, size=GIB, before=before, timeout=30) for lun in (63, 0)]
    attaching.result()
    assert all(re.fullmatch(r"/dev/loop\d+", str(node)) for node in nodes) and nodes[0] != nodes[1]
    subprocess.run(["mkfs.ext4", "-q", "-L", "azchroot", nodes[0]], check=True)
    subprocess.run(["sfdisk", "-q", "--no-reread", "--no-tell-kernel", nodes[1]], input=b"size=8MiB\n", check=True)
    os.sync()
    label = subprocess.run(["blkid", "-p", "-o", "value", "-s", "LABEL", nodes[0]], check=True, capture_output=True)
    assert label.stdout == b"azchroot\n"
    with azure_emulator.disk_file(disks[0]).open("rb") as file:
        file.seek(1024 + 56)
        assert file.read(2) == b"\x53\xef"  # ext4
    assert find(63, size=GIB, before=None) == nodes[0], "attached again"
    assert find(0, size=GIB, before=None) == nodes[1], "now it has a partition"
    assert find(0, size=GIB, before=snapshot()) is None
    change(azure_emulator, dataDisksToDetach=[{"diskId": disk} for disk in disks]).result()
    assert [find(lun, size=None, before=None) for lun in (0, 63)] == [None, None]


@pytest.mark.root
def test_a_device_of_another_size(azure_emulator: AzureEmulator) -> None:
    change(azure_emulator, dataDisksToAttach=[{"diskId": make(azure_emulator, "one"), "lun": 5}]).result()
    with pytest.raises(DiskError, match=rf"/dev/loop\d+, but that has {GIB} bytes and not {2 * GIB}"):
        wait_for(5, size=2 * GIB, before=None, timeout=0.1)


@pytest.mark.root
def test_a_device_that_never_comes(azure_emulator: AzureEmulator) -> None:
    azure_emulator.fault(operation="virtualMachines.attachDetach", no_device=True)
    attaching = change(azure_emulator, dataDisksToAttach=[{"diskId": make(azure_emulator, "one"), "lun": 0}])
    before = snapshot()
    attaching.result()
    with pytest.raises(DiskError, match="nothing is there"):
        wait_for(0, size=GIB, before=before, timeout=0.1)


@pytest.mark.root
def test_an_attach_that_fails(azure_emulator: AzureEmulator) -> None:
    azure_emulator.fault(operation="virtualMachines.attachDetach", code="Planned", message="no")
    before = snapshot()
    attaching = change(azure_emulator, dataDisksToAttach=[{"diskId": make(azure_emulator, "one"), "lun": 0}])

    def check() -> None:
        if attaching.done():
            attaching.result()

    with pytest.raises(HttpResponseError, match="Planned"):
        wait_for(0, size=GIB, before=before, timeout=30, check=check)
