"""Volumes on device-mapper: what needs it, and that the kernel takes them away whoever dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.disk import lvm_mapper
from pytest_azchroot.disk.lvm_mapper import Target
from pytest_azchroot.errors import DiskError
from pytest_azchroot.sandbox import Sandbox
from pytest_azchroot.sandbox.discover import mount_all, plan
from tests.disk import lvm_disk
from tests.disk.lvm_writer import MIB, Group, Volume, identity, write

from .machine import descendants_of, eventually, is_alive, loops_below, run
from .test_lvm import CALLER, has_mapper

VOLUMES = {"var": Volume([(0, 0, 8), (0, 12, 12)]), "root": Volume([(0, 30, 40)])}


def mapped() -> dict[str, str]:
    """Devices of device-mapper on this machine: name and UUID."""
    found = {}
    for entry in Path("/sys/block").glob("dm-*/dm"):
        with contextlib.suppress(OSError):  # it goes just now
            found[(entry / "name").read_text().strip()] = (entry / "uuid").read_text().strip()
    return found


@pytest.fixture
def disk(userland: Path, tmp_path: Path) -> Iterator[Path]:
    """/var is in two pieces."""
    if not has_mapper():
        pytest.skip("device-mapper: this kernel has none")
    before = mapped()
    tree = tmp_path / "tree"
    run("cp", "-a", userland, tree)
    path = lvm_disk.make(tmp_path / "disk.raw", tree)
    group = Group("my-vg", VOLUMES, [100 * MIB])
    write(path, group, [lvm_disk.PHYSICAL])
    yield path
    assert eventually(lambda: mapped() == before)
    assert eventually(lambda: loops_below(tmp_path) == [])


def build(sandbox: Sandbox) -> None:
    sandbox.use_volumes()
    sandbox.outside(["mkfs.ext4", "-q", "-F", sandbox.node("my-vg/var")])
    mount_all(sandbox, plan(sandbox, partition=None))
    sandbox.lend(None)
    sandbox.write("/var/made", b"var\n")
    sandbox.write("/etc/motd", b"hello\n")


def uuid_of(volume: str) -> str:
    plain = [identity(text).replace("-", "") for text in ("Gmy-vg", f"Lmy-vg{volume}")]
    return "LVM-" + "".join(plain)


@pytest.mark.root
def test_a_volume_in_pieces_goes_to_the_end(disk: Path) -> None:
    with Sandbox.start(disk, hostname="image") as sandbox:
        build(sandbox)
        assert mapped()["my--vg-root"] == uuid_of("root")
        assert mapped()["my--vg-var"] == uuid_of("var")
        sealed = sandbox.seal()
        assert len(sealed.unmounted.checked) == 3
        assert sandbox.inside("cat /var/made /etc/motd").stdout == "var\nhello\n"
        assert sandbox.outside("echo x > /dev/mapper/my--vg-var", check=False).code != 0
        sandbox.unmount()
        sandbox.close()
        assert "my--vg-root" not in mapped()
    assert lvm_disk.read(disk, lvm_disk.place(VOLUMES["root"]), "/etc/motd") == "hello\n"


@pytest.mark.root
def test_stripes_over_two_physical_volumes(disk: Path) -> None:
    script = "label: gpt\nstart=2048, size=40M\nsize=40M\n"
    subprocess.run(["sfdisk", "--quiet", "--wipe=never", disk], input=script, text=True, check=True)
    group = Group("vg", {"s": Volume([(0, 0, 10), (1, 4, 10)], stripe=64 << 10)}, [40 * MIB, 40 * MIB])
    write(disk, group, [MIB, 41 * MIB])
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.use_volumes()
        node = sandbox.node("vg/s")
        sandbox.outside(f"head -c 20M /dev/zero | tr '\\0' A | dd of={node} bs=64k conv=fsync status=none")
        sandbox.outside(f"printf B | dd of={node} bs=64k seek=1 conv=notrunc,fsync status=none")
        sandbox.ask("flush")
        sandbox.close()
    data = disk.read_bytes()
    first, second = 2 * MIB, 46 * MIB
    assert data[first : first + 10 * MIB] == b"A" * (10 * MIB)
    assert data[second : second + 10 * MIB] == b"B" + b"A" * (10 * MIB - 1)
    assert data[second + 10 * MIB] == 0


@pytest.mark.root
def test_a_volume_group_of_the_same_name_on_the_build_machine(disk: Path) -> None:
    with Sandbox.start(disk, hostname="one") as one:
        one.use_volumes()
        copy = disk.with_name("copy.raw")
        run("cp", "--sparse=always", disk, copy)
        with Sandbox.start(copy, hostname="two") as two:
            build(two)
            assert two.outside("cat /proc/mounts").stdout.count("/dev/mapper/my--vg-root ") == 1
            others = {name: uuid for name, uuid in mapped().items() if name.startswith("azchroot-")}
            assert len(others) == 2
            assert all(uuid.startswith("AZCHROOT-") for uuid in others.values())
            two.unmount()
            two.close()
        one.close()


@pytest.mark.root
def test_what_the_build_machine_has_activated_is_not_touched(disk: Path) -> None:
    with Sandbox.start(disk, hostname="one") as one:
        node = one.partition(2)
        number = os.stat(f"/proc/{one.holder}/root{node}").st_rdev
        table = f"0 2048 linear {os.major(number)}:{os.minor(number)} 0"
        run("dmsetup", "create", "--noudevsync", "azchroot-test-foreign", "--table", table)
        try:
            with pytest.raises(DiskError, match="azchroot-test-foreign"):
                one.use_volumes()
        finally:
            run("dmsetup", "remove", "--noudevsync", "azchroot-test-foreign")


@pytest.mark.root
@pytest.mark.parametrize("victim", ["caller", "keeper", "holder"])
@pytest.mark.parametrize("stage", ["volumes", "mounted", "daemon", "sealing", "sealed"])
def test_nothing_stays(disk: Path, stage: str, victim: str) -> None:
    with Sandbox.start(disk, hostname="image") as sandbox:
        build(sandbox)
        sandbox.unmount()
        sandbox.close()
    command = [sys.executable, "-c", CALLER, str(disk), stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline().startswith("/dev/loop")
        below = descendants_of(caller.pid)
        os.kill({"caller": caller.pid, "keeper": below[0], "holder": below[1]}[victim], signal.SIGKILL)
        assert eventually(lambda: not any(map(is_alive, below)))
        caller.kill()


# ---- what is told to the kernel


def test_names() -> None:
    assert lvm_mapper.split("my--vg-root--lv") == ("my-vg", "root-lv")
    assert [lvm_mapper.split(name) for name in ("control", "a-b-c", "-a", "a-", "a--b")] == [None] * 5


def test_requests_are_as_the_kernel_reads_them() -> None:
    """Offsets of ``struct dm_ioctl`` and ``struct dm_target_spec``, include/uapi/linux/dm-ioctl.h."""
    rows = (Target(0, 8, "linear", "7:0 2048"), Target(8, 16, "striped", "2 128 7:0 4096 7:1 4096"))
    number, data = lvm_mapper.request(lvm_mapper.LOAD, "x", flags=lvm_mapper.READ_ONLY, targets=rows)
    assert number == 0xC138FD09
    assert [int.from_bytes(data[at : at + 4], sys.byteorder) for at in (0, 12, 16, 20, 28)] == [4, len(data), 312, 2, 1]
    assert data[48:50] == b"x\0"
    assert data[312 + 24 : 312 + 31] == b"linear\0"
    assert data[312 + 40 : 312 + 49] == b"7:0 2048\0"
    following = 312 + int.from_bytes(data[312 + 20 : 312 + 24], sys.byteorder)
    assert following % 8 == 0
    assert data[following + 40 : following + 64] == b"2 128 7:0 4096 7:1 4096\0"


def test_an_answers_device_number() -> None:
    _, data = lvm_mapper.request(lvm_mapper.STATUS, "x")
    data[40:48] = (253 << 8 | 0x12 | 0x345 << 20).to_bytes(8, sys.byteorder)
    assert lvm_mapper.answer(bytes(data)).number == os.makedev(253, 0x34512)
