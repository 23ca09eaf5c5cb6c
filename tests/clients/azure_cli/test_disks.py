"""Disks and snapshots, in the words of azure-cli."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from pytest_azchroot.disk import vhd
from pytest_azchroot.emulator.isolation import no_way_out

from .cli import Cli
from .conftest import URN, marked

pytestmark = pytest.mark.root

MIB, GIB = 1024**2, 1024**3


def content(az: Cli, kind: str, name: str, directory: Path) -> Path:
    """The raw bytes of a disk or snapshot, downloaded by an access grant."""
    granted = az(f"{kind} grant-access -g rg1 -n {name} --duration-in-seconds 600")
    path = directory / f"{name}.vhd"
    proxies = {"https": az.told["url"]}
    with (
        no_way_out(),
        requests.get(granted["accessSAS"], proxies=proxies, verify=az.told["caFile"], timeout=60, stream=True) as got,
        path.open("wb") as file,
    ):
        got.raise_for_status()
        for chunk in got.iter_content(1024**2):
            file.write(chunk)
    az(f"{kind} revoke-access -g rg1 -n {name}")
    with no_way_out():
        again = requests.get(granted["accessSAS"], proxies=proxies, verify=az.told["caFile"], timeout=60)
        assert again.status_code == 403
    return path


def test_an_empty_disk(az: Cli) -> None:
    made = az("disk create -g rg1 -n empty --size-gb 4 --sku StandardSSD_LRS --tags team=images")
    assert (made["provisioningState"], made["diskState"], made["diskSizeGB"]) == ("Succeeded", "Unattached", 4)
    assert made["tags"] == {"team": "images"} and made["location"] == "westus2"
    shown = az("disk show -g RG1 -n EMPTY")
    assert (shown["name"], shown["sku"]["name"]) == ("empty", "StandardSSD_LRS")
    assert "empty" in [each["name"] for each in az("disk list -g rg1")]


def test_a_disk_is_resized(az: Cli) -> None:
    az("disk create -g rg1 -n resized --size-gb 4")
    assert az("disk update -g rg1 -n resized --size-gb 8")["diskSizeGB"] == 8
    az("disk update -g rg1 -n resized --size-gb 16 --no-wait")
    az("disk wait -g rg1 -n resized --updated --interval 1")
    assert az("disk show -g rg1 -n resized")["diskSizeBytes"] == 16 * GIB


def test_tags_in_all_three_ways(az: Cli) -> None:
    disk = az("disk create -g rg1 -n tagged --size-gb 1")["id"]
    assert az("disk update -g rg1 -n tagged --set tags.a=x")["tags"] == {"a": "x"}
    az(f"tag update --resource-id {disk} --operation merge --tags b=2")
    assert az(f"tag list --resource-id {disk}")["properties"]["tags"] == {"a": "x", "b": "2"}
    az(f"resource tag --ids {disk} --tags c=3")
    assert az("disk show -g rg1 -n tagged")["tags"] == {"c": "3"}
    assert [each["name"] for each in az("resource list --tag c=3")] == ["tagged"]


def test_a_disk_is_deleted(az: Cli) -> None:
    az("disk create -g rg1 -n gone --size-gb 1")
    az("disk delete -g rg1 -n gone --yes")
    assert "(ResourceNotFound)" in az.mistake("disk show -g rg1 -n gone")


@pytest.mark.parametrize("urn", [URN, URN.rpartition(":")[0] + ":latest"])
def test_a_disk_of_a_platform_image(az: Cli, urn: str, tmp_path: Path) -> None:
    name = f"platform-{'latest' in urn}"
    made = az(f"disk create -g rg1 -n {name} --image-reference {urn}")
    assert (made["hyperVGeneration"], made["osType"]) == ("V2", "Linux")
    assert made["creationData"]["imageReference"]["id"].endswith("/versions/0.20250101.1")
    path = content(az, "disk", name, tmp_path)
    assert marked(path)
    assert vhd.is_footer(path.read_bytes()[-vhd.FOOTER_SIZE :])


def test_a_disk_is_attached_written_and_detached(az: Cli, tmp_path: Path) -> None:
    az(f"disk create -g rg1 -n data --image-reference {URN}")
    az("vm disk attach -g rg1 --vm-name vm1 --name data --lun 5 --caching ReadOnly")
    (entry,) = az("vm show -g rg1 -n vm1")["storageProfile"]["dataDisks"]
    assert (entry["lun"], entry["name"], entry["caching"]) == (5, "data", "ReadOnly")
    assert az("disk show -g rg1 -n data")["managedBy"].endswith("/virtualMachines/vm1")
    with az.link(5).open("r+b") as device:
        device.seek(MIB)
        device.write(b"written through the device".ljust(512))
    az("vm disk detach -g rg1 --vm-name vm1 --name data")
    assert not az.link(5).is_symlink()
    assert az("vm show -g rg1 -n vm1")["storageProfile"]["dataDisks"] == []
    az("snapshot create -g rg1 -n of-data --source data --incremental true")
    az("disk create -g rg1 -n of-snapshot --source of-data")
    found = content(az, "disk", "of-snapshot", tmp_path).read_bytes()
    assert found[MIB : MIB + 512].strip() == b"written through the device"


def test_a_new_disk_is_attached_and_torn_away(az: Cli) -> None:
    az("vm disk attach -g rg1 --vm-name vm1 --name fresh --new --size-gb 1 --lun 7")
    assert az.link(7).is_block_device()
    with az.link(7).open("rb"):
        az("vm disk detach -g rg1 --vm-name vm1 --name fresh --force-detach")
    assert az("disk show -g rg1 -n fresh")["diskState"] == "Unattached"


def test_several_at_once(az: Cli) -> None:
    for name in ("first", "second"):
        az(f"disk create -g rg1 -n {name} --size-gb 1")
    az("vm disk attach -g rg1 --vm-name vm1 --disks first second")
    assert [each["lun"] for each in az("vm show -g rg1 -n vm1")["storageProfile"]["dataDisks"]] == [0, 1]
    az("vm disk detach -g rg1 --vm-name vm1 --disk-ids {compute}/disks/first {compute}/disks/second")
    assert az("vm show -g rg1 -n vm1")["storageProfile"]["dataDisks"] == []


def test_snapshots(az: Cli, tmp_path: Path) -> None:
    az(f"disk create -g rg1 -n origin --image-reference {URN}")
    made = az("snapshot create -g rg1 -n snap --source origin")
    assert (made["provisioningState"], made["creationData"]["createOption"]) == ("Succeeded", "Copy")
    assert "snap" in [each["name"] for each in az("snapshot list -g rg1")]
    assert az("snapshot update -g rg1 -n snap --set tags.k=v")["tags"] == {"k": "v"}
    assert marked(content(az, "snapshot", "snap", tmp_path))
    az("snapshot delete -g rg1 -n snap")
    assert "(ResourceNotFound)" in az.mistake("snapshot show -g rg1 -n snap")


def test_a_group_and_all_in_it(az: Cli) -> None:
    assert az("group create -n other -l eastus")["properties"]["provisioningState"] == "Succeeded"
    assert az("disk create -g other -n there --size-gb 1")["location"] == "eastus"
    az("group delete -n other --yes")
    assert az("group exists -n other") is False
    assert az("resource list --name there") == []


def test_what_a_region_offers(az: Cli) -> None:
    assert [each["urn"] for each in az("vm image list --all --publisher Debian -l westus2")] == [
        "Debian:debian-12:12-gen2:0.20241201.9",
        "Debian:debian-12:12-gen2:0.20250101.1",
    ]
    assert az(f"vm image show --urn {URN}")["hyperVGeneration"] == "V2"
    sizes = {each["name"]: each for each in az("vm list-skus -l westus2 --resource-type virtualMachines")}
    limits = {each["name"]: each["value"] for each in sizes["Standard_B1s"]["capabilities"]}
    assert limits["MaxDataDiskCount"] == "2"
    assert "westus2" in [each["name"] for each in az("account list-locations")]
