"""``azchroot inspect``: any format, any layout, nothing written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot import inspection
from pytest_azchroot.cli import main
from pytest_azchroot.disk import vhd

from .disk import lvm_disk
from .disk.lvm_writer import Group, Volume, write
from .disk.tables import MIB, make, make_4096, read

SCRIPT = 'label: gpt\n1: start=21M, size=+\n14: start=1M, size=8M, type=21686148-6449-6E6F-744E-656564454649\n15: start=9M, size=12M, type=uefi, name="esp"\n'
UUID = "11111111-2222-3333-4444-555555555555"
FSTAB = f"UUID={UUID} / ext4\nLABEL=ESP /boot/efi vfat umask=0077\n/dev/sr0 /media udf noauto\n"


def fill(path: Path, tree: Path, *, fstab: str) -> Path:
    """A root with a system on the partition 1 of a disk, made without a device."""
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "fstab").write_text(fstab)
    (tree / "etc" / "os-release").write_text("PRETTY_NAME='Test OS'\n")
    partition = next(each for each in read(path).partitions if each.number == 1)
    options = f"offset={partition.start}"
    # blocks of 4096 bytes: no file system has smaller ones than its disk has sectors
    command = ["mkfs.ext4", "-q", "-b", "4096", "-L", "root", "-U", UUID, "-d", str(tree), "-E", options]
    command += [str(path), str(partition.size >> 12)]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """The layout of a cloud image: root 1, BIOS boot 14, ESP 15."""
    path = fill(make(tmp_path / "disk.raw", SCRIPT, size=64 * MIB), tmp_path / "tree", fstab=FSTAB)
    esp = tmp_path / "esp"
    esp.write_bytes(bytes(12 * MIB))
    subprocess.run(["mkfs.vfat", "-n", "ESP", "-i", "ABCD1234", esp], check=True, capture_output=True)
    with path.open("r+b") as file:
        file.seek(9 * MIB)
        file.write(esp.read_bytes())
    return path


def inspected(path: Path, capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> dict[str, Any]:
    assert main(["inspect", "--json", str(path), *options]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def points(found: dict[str, Any]) -> list[tuple[int, str]]:
    plan = found["plan"]
    return [(each["number"], each["path"]) for each in (plan["root"], *plan["others"])]


@pytest.mark.root
def test_what_a_reader_sees(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(disk)]) == 0
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith(f"{disk}: raw, 64.0 MiB, ")
    assert lines[1].startswith("partition table: gpt, 512-byte sectors, ")
    assert lines[3:] == [
        "number start size type file system label uuid",
        f"1 21.0 MiB 42.0 MiB Linux filesystem ext4 root {UUID}",
        "14 1.0 MiB 8.0 MiB BIOS boot - - -",
        "15 9.0 MiB 12.0 MiB EFI System vfat ESP ABCD-1234",
        "",
        "root: partition 1, found by the only Linux file system (Test OS)",
        "mount 1 / ext4",
        "mount 15 /boot/efi vfat umask=0077",
        "not mounted: /dev/sr0 on /media: noauto",
    ]
    assert err == ""


@pytest.mark.root
@pytest.mark.parametrize("kind", ["qcow2", "vhdx", "vpc"])
def test_other_formats(disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    path = tmp_path / f"disk.{kind.replace('vpc', 'vhd')}"
    options = ["-o", "force_size"] if kind == "vpc" else []
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, *options, disk, path], check=True)
    assert points(inspected(path, capsys)) == [(1, "/"), (15, "/boot/efi")]


@pytest.mark.root
def test_a_fixed_vhd_is_read_in_place(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with disk.open("r+b") as file:
        vhd.append_footer(file.fileno(), size=64 * MIB)
    found = inspected(disk.rename(disk.with_suffix(".vhd")), capsys)
    assert (found["format"], found["table"]["problems"]) == ("fixed VHD", [])
    assert points(found) == [(1, "/"), (15, "/boot/efi")]


@pytest.mark.root
def test_nothing_is_written_not_even_to_a_dirty_image(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["debugfs", "-w", "-R", "feature needs_recovery", f"{disk}?offset={21 * MIB}"], check=True)
    before = hashlib.sha256(disk.read_bytes()).hexdigest(), disk.stat().st_mtime_ns
    assert points(inspected(disk, capsys))[0] == (1, "/")
    assert (hashlib.sha256(disk.read_bytes()).hexdigest(), disk.stat().st_mtime_ns) == before


@pytest.mark.root
def test_a_file_that_may_only_be_read(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk.chmod(0o444)
    assert points(inspected(disk, capsys))[0] == (1, "/")


@pytest.mark.root
def test_sectors_of_4096_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_4096(tmp_path / "disk.raw", "g\nn\n15\n\n+4M\nn\n1\n\n\nw\n", size=64 * MIB)
    fill(path, tmp_path / "tree", fstab=f"UUID={UUID} / ext4\n")
    found = inspected(path, capsys)
    assert (found["table"]["sector_size"], found["table"]["problems"]) == (4096, [])
    assert points(found) == [(1, "/")]


@pytest.mark.root
def test_problems_of_the_table_are_said(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with disk.open("ab") as file:
        file.truncate(65 * MIB)
    assert main(["inspect", str(disk)]) == 0
    assert "problem: the second copy of the GPT is not at the end" in capsys.readouterr().out


def test_without_root_all_but_the_plan_is_there(
    disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["inspect", str(disk)]) == 0
    out, err = capsys.readouterr()
    assert f"ext4         root   {UUID}" in out
    assert "run it as root" in err


def test_what_no_look_would_help_is_said_without_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    path = make(tmp_path / "disk.raw", SCRIPT, size=64 * MIB)
    assert main(["inspect", str(path)]) == 1
    assert "no partition holds a Linux file system" in capsys.readouterr().err


def test_a_partition_that_is_not_there(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(disk, capsys, "--partition", "7", code=1)
    assert found["refusal"]["what"] == "the disk has no partition 7"


def test_no_disk_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nosuch.raw")]) == 1
    assert "nosuch.raw cannot be opened" in capsys.readouterr().err


# ---- volumes of LVM


@pytest.fixture
def on_lvm(tmp_path: Path) -> Path:
    return lvm_disk.make(tmp_path / "disk.raw", tmp_path / "tree")


@pytest.mark.root
def test_volumes_and_the_plan(on_lvm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = hashlib.sha256(on_lvm.read_bytes()).hexdigest()
    assert main(["inspect", str(on_lvm)]) == 0
    out, err = capsys.readouterr()
    lines = [re.sub("[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", " ".join(line.split())) for line in out.splitlines()]
    assert lines[5:] == [
        "2 17.0 MiB 100.0 MiB Linux LVM LVM2_member - P0myvg-0000-0000-0000-0000-0000-000000",
        "",
        "volume group my-vg on partition 2, extents of 1.0 MiB",
        "volume size file system label uuid",
        "var 20.0 MiB ext4 var UUID",
        "root 40.0 MiB ext4 root UUID",
        "",
        "root: the logical volume my-vg/root, found by its /etc/fstab and /etc/os-release (Test OS)",
        "mount my-vg/root / ext4",
        "mount 1 /boot ext4",
        "mount my-vg/var /var ext4",
    ]
    assert err == ""
    assert hashlib.sha256(on_lvm.read_bytes()).hexdigest() == before


@pytest.mark.root
def test_another_volume_as_the_root(on_lvm: Path) -> None:
    found = inspection.inspect(on_lvm, lvm_root_device="/dev/my-vg/var")
    assert found.plan is not None
    assert (found.plan.root.place, found.plan.by) == ("my-vg/var", "its name, as it was asked for")
    assert inspection.inspect(on_lvm, lvm_root_device="/dev/my-vg/x").plan is None


@pytest.mark.root
def test_volumes_for_programs(on_lvm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(on_lvm, capsys)
    (group,) = found["volume_groups"]
    assert (group["name"], group["partitions"]) == ("my-vg", [2])
    piece = {"start": 0, "size": 40 * MIB, "stripes": [{"partition": 2, "offset": 31 * MIB}], "chunk": 0}
    assert {each["name"]: each["pieces"] for each in group["volumes"]}["root"] == [piece]
    assert found["plan"]["root"]["volume"] == "my-vg/root"
    assert [each["volume"] for each in found["filesystems"]] == [None, None, None, "my-vg/var", "my-vg/root"]


def test_without_root_volumes_are_there(
    on_lvm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["inspect", str(on_lvm)]) == 0
    out, err = capsys.readouterr()
    assert "root    40.0 MiB  ext4         root   " in out
    assert "run it as root" in err


def test_what_of_lvm_cannot_be_used_is_said(
    on_lvm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    group = Group("my-vg", {"root": Volume([(0, 0, 9)], type="raid1")}, [100 * MIB])
    write(on_lvm, group, [lvm_disk.PHYSICAL])
    assert main(["inspect", str(on_lvm)]) == 0
    assert "it is RAID of LVM (type raid1)" in capsys.readouterr().out
    with on_lvm.open("r+b") as file:
        file.seek(lvm_disk.PHYSICAL + 4096 + 600)
        file.write(b"\xff")
    assert main(["inspect", str(on_lvm)]) == 0
    assert "problem: partition 2 (LVM2_member) is a physical volume of LVM that cannot be read: the checksum" in (
        capsys.readouterr().out
    )


@pytest.mark.root
def test_a_root_that_is_named_and_holds_nothing_is_no_plan(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(disk, capsys, "--partition", "14", code=1)
    assert found["plan"] is None
    assert found["refusal"]["what"] == "partition 14 cannot be mounted as the root"
