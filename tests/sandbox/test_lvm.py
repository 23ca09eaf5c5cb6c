"""Images whose root is on LVM: found, mounted, sealed and let go, on real disks."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.errors import DirtyImageError, DiskError
from pytest_azchroot.sandbox import Sandbox
from pytest_azchroot.sandbox.discover import mount_all, plan
from tests.disk import lvm_disk
from tests.disk.lvm_disk import VOLUMES, place
from tests.disk.lvm_writer import MIB, Group, Volume, write

from .machine import descendants_of, eventually, is_alive, loops_below, partitions_of, run

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def template(userland: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lvm")
    tree = directory / "tree"
    run("cp", "-a", userland, tree)
    return lvm_disk.make(directory / "disk.raw", tree)


@pytest.fixture
def disk(template: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk.raw"
    run("cp", "--sparse=always", template, path)
    yield path
    assert loops_below(tmp_path) == []


@pytest.fixture
def sandbox(disk: Path) -> Iterator[Sandbox]:
    with Sandbox.start(disk, hostname="image") as sandbox:
        yield sandbox


def loops_over(disk: Path) -> list[str]:
    """What ``losetup`` knows: offset and size of each."""
    done = run("losetup", "--noheadings", "--raw", "--output", "OFFSET,SIZELIMIT,RO,AUTOCLEAR", "--associated", disk)
    return sorted(done.splitlines())


def has_mapper() -> bool:
    """Whether this kernel has device-mapper; then volumes are devices of it, see test_mapper.py."""
    try:
        os.close(os.open("/dev/mapper/control", os.O_RDWR))  # loads the module
    except OSError:
        return "device-mapper" in Path("/proc/misc").read_text()
    return True


@pytest.fixture
def no_mapper() -> None:
    """For what is only so without it."""
    if has_mapper():
        pytest.skip("device-mapper: this kernel has it")


def mounted(sandbox: Sandbox) -> dict[str, str]:
    top = sandbox.mount_path
    fields = [row.split() for row in sandbox.outside("cat /proc/mounts").stdout.splitlines()]
    return {field[1].removeprefix(top) or "/": field[0] for field in fields if field[1].startswith(top)}


def build(sandbox: Sandbox) -> None:
    """Mount all, write to each."""
    mount_all(sandbox, plan(sandbox, partition=None))
    sandbox.lend(None)
    sandbox.write("/etc/motd", b"hello\n")
    sandbox.write("/var/made", b"var\n")
    sandbox.write("/boot/kernel", b"boot\n")


# ---- found and mounted


def test_all_of_fstab_is_mounted_by_the_images_own_names(sandbox: Sandbox) -> None:
    found = plan(sandbox, partition=None)
    assert (found.by, found.system) == ("its /etc/fstab and /etc/os-release", "Test OS")
    mount_all(sandbox, found)
    assert mounted(sandbox) == {
        "/": "/dev/mapper/my--vg-root",
        "/boot": sandbox.partition(1),
        "/var": "/dev/mapper/my--vg-var",
    }


def test_the_user_names_it(sandbox: Sandbox) -> None:
    found = plan(sandbox, partition=None, lvm_root_device="/dev/my-vg/root")
    assert (found.root.volume, found.by) == ("my-vg/root", "its name, as it was asked for")


@pytest.mark.usefixtures("no_mapper")
def test_nothing_is_made_of_a_disk_until_it_is_needed(sandbox: Sandbox, disk: Path) -> None:
    assert len(loops_over(disk)) == 1
    sandbox.use_volumes()
    assert len(loops_over(disk)) == 3
    sandbox.use_volumes()
    assert len(loops_over(disk)) == 3


def test_the_names_that_a_machine_has(sandbox: Sandbox) -> None:
    sandbox.use_volumes()
    node = os.stat(f"/proc/{sandbox.holder}/root/dev/mapper/my--vg-root")
    assert stat.S_ISBLK(node.st_mode)
    names = "readlink -f /dev/my-vg/root /dev/disk/by-label/root"
    assert sandbox.outside(names).stdout.split() == ["/dev/mapper/my--vg-root"] * 2
    assert not Path("/dev/my-vg").exists()
    assert not Path("/dev/mapper/my--vg-root").exists()


def test_names_that_a_program_in_the_image_has_replaced_lead_nowhere(sandbox: Sandbox, tmp_path: Path) -> None:
    build(sandbox)
    (tmp_path / "by-uuid").mkdir()
    (tmp_path / "by-uuid" / "x").write_text("the build machine's")
    (tmp_path / "var").write_text("the build machine's")
    sandbox.inside(f"rm -rf /dev/my-vg /dev/disk; ln -s {tmp_path} /dev/my-vg; ln -s {tmp_path} /dev/disk")
    sandbox.outside("true")
    assert (tmp_path / "by-uuid" / "x").read_text() == "the build machine's"
    assert (tmp_path / "var").read_text() == "the build machine's"
    assert sorted(os.listdir(tmp_path)) == ["by-uuid", "disk.raw", "var"]
    assert sandbox.outside("readlink -f /dev/my-vg/root").stdout.strip() == "/dev/mapper/my--vg-root"


def test_a_partition_under_a_volume_cannot_be_taken_away(sandbox: Sandbox) -> None:
    build(sandbox)
    with pytest.raises(DiskError, match=r"partition 2 of .* cannot become what the partition table says"):
        sandbox.outside(["sfdisk", "--quiet", "--no-reread", "--force", "--delete", sandbox.device, "2"])


# ---- to the end


def test_what_is_written_is_on_the_disk_when_it_is_closed(sandbox: Sandbox, disk: Path) -> None:
    build(sandbox)
    unmounted = sandbox.unmount()
    assert [row.split()[0] for row in unmounted.checked[1:]] == ["/dev/mapper/my--vg-var", "/dev/mapper/my--vg-root"]
    assert len(unmounted.trimmed) == 3
    sandbox.close()
    assert lvm_disk.read(disk, place(VOLUMES["root"]), "/etc/motd") == "hello\n"
    assert lvm_disk.read(disk, place(VOLUMES["var"]), "/made") == "var\n"
    assert lvm_disk.read(disk, lvm_disk.BOOT, "/kernel") == "boot\n"


def test_the_seal_makes_them_again_read_only(sandbox: Sandbox, disk: Path) -> None:
    build(sandbox)
    sandbox.seal()
    before = hashlib.sha256(disk.read_bytes()).hexdigest()
    assert sandbox.inside("cat /etc/motd /var/made /boot/kernel").stdout == "hello\nvar\nboot\n"
    sandbox.inside("echo x > /var/x; echo x > /etc/x; rm /boot/kernel")
    assert [each.path for each in sandbox.writes()] == ["/boot/kernel", "/etc/x", "/var/x"]
    assert sandbox.outside("echo x > /dev/mapper/my--vg-root", check=False).code != 0
    sandbox.unmount()
    sandbox.close()
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == before


@pytest.mark.usefixtures("no_mapper")
def test_without_device_mapper_they_are_loop_devices(sandbox: Sandbox, disk: Path) -> None:
    build(sandbox)
    for read_only in ("0", "1"):
        rows = [row.split() for row in loops_over(disk)]
        assert sorted((int(offset), int(size), *flags) for offset, size, *flags in rows) == [
            (0, 0, read_only, "1"),
            (place(VOLUMES["var"]), 20 * MIB, read_only, "1"),
            (place(VOLUMES["root"]), 40 * MIB, read_only, "1"),
        ]
        sandbox.seal()


def test_an_overlay_before_the_seal(sandbox: Sandbox) -> None:
    build(sandbox)
    sandbox.overlay()
    sandbox.inside("echo x > /var/x")
    assert [each.path for each in sandbox.writes()] == ["/var/x"]
    sandbox.drop_overlay()
    assert sandbox.inside("test -e /var/x", check=False).code == 1


def test_who_holds_a_volume_is_said(sandbox: Sandbox) -> None:
    build(sandbox)
    with (
        open(f"/proc/{sandbox.holder}/root{sandbox.mount_path}/var/made", "rb"),
        pytest.raises(DirtyImageError, match="/var is still in use") as caught,
    ):
        sandbox.unmount()
    assert f"{os.getpid()} (" in str(caught.value)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_xfs_and_extended_volumes(disk: Path, tmp_path: Path, kind: str) -> None:
    """The extension of the one goes on where it ended: it is in one piece."""
    if kind == "xfs":
        with disk.open("r+b") as file:
            file.truncate(500 * MIB)
        run("sfdisk", "--quiet", "--relocate", "gpt-bak-std", disk)
        subprocess.run(["sfdisk", "--quiet", "-N2", disk], input=", 450M\n", text=True, check=True, capture_output=True)
        group = Group("my-vg", {**VOLUMES, "data": Volume([(0, 80, 320)])}, [450 * MIB])
        write(disk, group, [lvm_disk.PHYSICAL])
        lvm_disk.xfs(disk, place(group.volumes["data"]), 320 * MIB, tmp_path)
    else:
        group = Group("my-vg", {**VOLUMES, "data": Volume([(0, 72, 4), (0, 76, 8)])}, [100 * MIB])
        write(disk, group, [lvm_disk.PHYSICAL])
        lvm_disk.ext4(disk, place(group.volumes["data"]), 12 * MIB)
    with Sandbox.start(disk, hostname="image") as sandbox:
        mount_all(sandbox, plan(sandbox, partition=None))
        sandbox.mount(sandbox.node("my-vg/data"), path=f"{sandbox.mount_path}/srv")
        sandbox.lend(None)
        sandbox.write("/srv/x", b"x")
        sandbox.seal()
        assert sandbox.read("/srv/x") == b"x"
        sandbox.unmount()
        sandbox.close()


def test_a_block_device_instead_of_a_file(disk: Path) -> None:
    device = run("losetup", "--find", "--show", "--partscan", disk).strip()
    try:
        with Sandbox.start(Path(device), hostname="image") as sandbox:
            build(sandbox)
            sandbox.seal()
            assert sandbox.inside("cat /etc/motd /var/made").stdout == "hello\nvar\n"
            sandbox.unmount()
            sandbox.close()
        with Sandbox.start(Path(device), hostname="image") as sandbox:
            build(sandbox)
        assert run("losetup", "--list", "--noheadings", "--associated", device) == ""
    finally:
        run("losetup", "--detach", device)
    assert lvm_disk.read(disk, place(VOLUMES["root"]), "/etc/motd") == "hello\n"


def test_a_physical_volume_without_a_partition_table(userland: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(100 * MIB)
    volume = Volume([(0, 3, 60)])
    write(disk, Group("vg", {"root": volume}, [100 * MIB]), [0])
    lvm_disk.ext4(disk, 4 * MIB, 60 * MIB, "-d", userland)
    with Sandbox.start(disk, hostname="image") as sandbox:
        mount_all(sandbox, plan(sandbox, partition=None))
        sandbox.lend(None)
        sandbox.write("/etc/motd", b"hello\n")
        sandbox.seal()
        sandbox.unmount()
        sandbox.close()
    assert lvm_disk.read(disk, 4 * MIB, "/etc/motd") == "hello\n"


# ---- what cannot be


def test_more_volumes_than_anybody_has(disk: Path) -> None:
    many = {f"v{number}": Volume([(0, number, 1)]) for number in range(80)}
    write(disk, Group("my-vg", {**many, "root": Volume([(0, 90, 1)])}, [100 * MIB]), [lvm_disk.PHYSICAL])
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.use_volumes()
        found = {each.volume: each.problem for each in sandbox.filesystems() if each.volume}
        assert list(found.values()).count(None) == 64
        assert found["my-vg/root"] == "is one of more than 64 of the disk"


@pytest.mark.usefixtures("no_mapper")
def test_several_pieces_need_device_mapper(disk: Path) -> None:
    group = Group("my-vg", {"root": Volume([(0, 30, 10), (0, 50, 5)])}, [100 * MIB])
    write(disk, group, [lvm_disk.PHYSICAL])
    with Sandbox.start(disk, hostname="image") as sandbox, pytest.raises(DiskError) as caught:
        plan(sandbox, partition=None, lvm_root_device="/dev/my-vg/root")
    assert "it is in more than one piece, and this kernel has no device-mapper" in str(caught.value)


def test_a_damaged_physical_volume(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.seek(lvm_disk.PHYSICAL + 4096 + 700)
        file.write(b"\xff")
    with Sandbox.start(disk, hostname="image") as sandbox, pytest.raises(DiskError) as caught:
        plan(sandbox, partition=None)
    assert "the checksum of its metadata is wrong" in str(caught.value)


# ---- whoever is killed

CALLER = """
import sys, time
from pathlib import Path
from pytest_azchroot.sandbox import Sandbox
from pytest_azchroot.sandbox.discover import mount_all, plan
disk, stage = Path(sys.argv[1]), sys.argv[2]

def reached(name):
    if name == stage:
        print(sandbox.device, flush=True)
        if name != "sealing":
            time.sleep(1000)

with Sandbox.start(disk, hostname="image") as sandbox:
    sandbox.use_volumes()
    reached("volumes")
    mount_all(sandbox, plan(sandbox, partition=None))
    sandbox.lend(None)
    reached("mounted")
    sandbox.inside("setsid sleep 1000 &")
    reached("daemon")
    reached("sealing")
    sandbox.seal()
    reached("sealed")
    time.sleep(1000)
"""


@pytest.mark.parametrize("victim", ["caller", "keeper", "holder"])
@pytest.mark.parametrize("stage", ["volumes", "mounted", "daemon", "sealing", "sealed"])
def test_nothing_stays(disk: Path, stage: str, victim: str) -> None:
    command = [sys.executable, "-c", CALLER, str(disk), stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as caller:
        assert caller.stdout is not None
        device = caller.stdout.readline().strip()
        assert device.startswith("/dev/loop")
        below = descendants_of(caller.pid)
        keeper, holder = below[:2]
        os.kill({"caller": caller.pid, "keeper": keeper, "holder": holder}[victim], signal.SIGKILL)
        assert eventually(lambda: not any(map(is_alive, [keeper, holder, *below])))
        caller.kill()
    assert eventually(lambda: loops_below(disk.parent) == [])
    assert partitions_of(device.removeprefix("/dev/")) == []


def test_an_abort_waits_until_volumes_are_free(disk: Path) -> None:
    with Sandbox.start(disk, hostname="image") as sandbox:
        build(sandbox)
    assert loops_below(disk.parent) == []


def test_a_dirty_volume_is_not_sealed(sandbox: Sandbox) -> None:
    build(sandbox)
    sandbox.unmount()
    node = sandbox.node("my-vg/root")
    sandbox.outside(["debugfs", "-w", "-R", "set_inode_field /etc/motd block[0] 1", node])
    mount_all(sandbox, plan(sandbox, partition=None))
    with pytest.raises(DirtyImageError, match="the file system on /dev/mapper/my--vg-root"):
        sandbox.unmount()
