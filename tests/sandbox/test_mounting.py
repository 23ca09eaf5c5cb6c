"""Partitions, mounts, and what the image is lent."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_azchroot.disk import loop
from pytest_azchroot.errors import DiskError, SandboxError, UnavailableError
from pytest_azchroot.sandbox import CommandError, Sandbox, starting

from .machine import partitions_of, run

pytestmark = pytest.mark.root


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    """A disk with nothing on it, large enough for XFS."""
    path = tmp_path / "blank.raw"
    with path.open("wb") as file:
        file.truncate(700 << 20)
    return path


def _fill(sandbox: Sandbox, userland: Path) -> None:
    sandbox.outside(["cp", "-a", f"{userland}/.", sandbox.mount_path])


def test_partition_nodes_follow_the_table(blank: Path) -> None:
    with Sandbox.start(blank, hostname="image") as sandbox:
        with pytest.raises(SandboxError, match="has no partition 1: its partitions are: none"):
            sandbox.partition(1)
        sandbox.outside(["sfdisk", "--quiet", sandbox.device], input="label: gpt\nsize=20M\nsize=30M\n")
        assert sandbox.partition(2) == f"{sandbox.device}p2"
        assert [found.size >> 20 for found in sandbox.filesystems()] == [700, 20, 30]
        sandbox.outside(["sfdisk", "--quiet", "--delete", sandbox.device, "1"])
        with pytest.raises(SandboxError, match="its partitions are: 2"):
            sandbox.partition(1)
        sandbox.outside(["dd", "if=/dev/zero", f"of={sandbox.device}", "bs=1M", "count=1", "conv=fsync"])
        sandbox.outside(["dd", "if=/dev/zero", f"of={sandbox.device}", "bs=1M", "seek=699", "conv=fsync"], check=False)
        with pytest.raises(SandboxError, match="none"):
            sandbox.partition(2)
        assert partitions_of(sandbox.device.removeprefix("/dev/")) == []


def test_numbers_need_not_follow_each_other(blank: Path) -> None:
    # the usual layout of Debian and Ubuntu cloud images
    with Sandbox.start(blank, hostname="image") as sandbox:
        sandbox.outside(
            ["sfdisk", "--quiet", sandbox.device], input="label: gpt\n14: size=3M\n15: size=20M\n1: size=+\n"
        )
        assert [found.number for found in sandbox.filesystems()] == [0, 1, 14, 15]


def test_logical_partitions(blank: Path) -> None:
    with Sandbox.start(blank, hostname="image") as sandbox:
        rows = "label: dos\nsize=20M\nsize=+, type=5\n"
        sandbox.outside(["sfdisk", "--quiet", sandbox.device], input=rows)
        sandbox.outside(["sfdisk", "--quiet", "--append", sandbox.device], input="size=30M\n")
        assert [(found.number, found.size) for found in sandbox.filesystems()[1:]] == [
            (1, 20 << 20),
            (2, 1024),
            (5, 30 << 20),
        ]


def test_an_unchanged_partition_keeps_its_node(bare: Sandbox) -> None:
    before = bare.outside(["stat", "-c", "%t:%T %i", bare.partition(1)]).stdout
    bare.outside("true")
    assert bare.outside(["stat", "-c", "%t:%T %i", bare.partition(1)]).stdout == before


def test_a_partition_in_use_that_moves_is_an_error(bare: Sandbox) -> None:
    bare.mount(bare.partition(1))
    with pytest.raises(DiskError, match=r"partition 1 .* cannot become what the partition table says"):
        bare.outside(["sfdisk", "--quiet", "--force", bare.device], input="label: gpt\nstart=4M\n")


def test_a_partition_in_use_stays_while_another_is_added(blank: Path) -> None:
    with Sandbox.start(blank, hostname="image") as sandbox:
        sandbox.outside(["sfdisk", "--quiet", sandbox.device], input="label: gpt\nsize=20M\n")
        sandbox.outside(["mkfs.ext4", "-q", sandbox.partition(1)])
        sandbox.mount(sandbox.partition(1))
        sandbox.outside(["sfdisk", "--quiet", "--force", "--append", sandbox.device], input="size=30M\n")
        sandbox.outside(["mkfs.ext4", "-q", sandbox.partition(2)])
        sandbox.mount(sandbox.partition(2), path=f"{sandbox.mount_path}/boot")
        assert sandbox.unmount().checked == (f"{sandbox.device}p1 (ext4)", f"{sandbox.device}p2 (ext4)")


def test_links_by_uuid_and_label_are_there_inside(sandbox: Sandbox) -> None:
    facts = sandbox.filesystems()[1]
    for kind, value in (("uuid", facts.uuid), ("label", "rootfs"), ("partuuid", facts.partuuid)):
        link = f"/dev/disk/by-{kind}/{value}"
        assert sandbox.inside(["readlink", "-f", link]).stdout.strip() == sandbox.partition(1)
    assert sandbox.inside("readlink -f /dev/image1").stdout.strip() == sandbox.partition(1)


def test_only_the_images_own_disk_is_in_its_dev(sandbox: Sandbox) -> None:
    nodes = sandbox.inside("find /dev -type b").stdout.split()
    assert sorted(nodes) == [sandbox.device, sandbox.partition(1)]


def test_the_loop_device_vanishes_with_its_last_user(bare: Sandbox, disk: Path) -> None:
    name = bare.device.removeprefix("/dev/")
    assert loop.bound_to(name) == str(disk)
    flags = run("losetup", "--list", "--noheadings", "--output", "AUTOCLEAR,PARTSCAN", bare.device).split()
    assert flags == ["1", "1"]


def test_udev_is_kept_away(bare: Sandbox) -> None:
    # udev asks for this lock before it reads a partition table (systemd, BLOCK_DEVICE_LOCKING)
    done = subprocess.run(["flock", "--shared", "--nonblock", bare.device, "true"], check=False)
    assert done.returncode != 0


def test_a_block_device_instead_of_a_file(disk: Path) -> None:
    device = run("losetup", "--find", "--show", "--partscan", disk).strip()
    try:
        with Sandbox.start(Path(device), hostname="image") as sandbox:
            assert sandbox.device == device
            sandbox.mount(sandbox.partition(1))
            sandbox.lend(None)
            sandbox.write("/etc/motd", b"written\n")
            assert sandbox.unmount().checked == (f"{device}p1 (ext4)",)
            sandbox.close()
        assert loop.bound_to(device.removeprefix("/dev/")) == str(disk), "it is not ours to release"
    finally:
        run("losetup", "--detach", device)


def test_a_device_that_another_program_has_locked(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = run("losetup", "--find", "--show", "--partscan", disk).strip()
    code = "from pytest_azchroot.disk import loop; loop._lock.__kwdefaults__['patience'] = 0.2"
    try:
        monkeypatch.setattr(starting, "_BOOTSTRAP", starting._BOOTSTRAP.replace("main()", f"{code}; main()"))
        with Path(device).open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with (
                pytest.raises(DiskError, match="is locked by another program"),
                Sandbox.start(Path(device), hostname="image"),
            ):
                pass
    finally:
        run("losetup", "--detach", device)


def test_a_file_system_on_the_whole_disk(blank: Path, userland: Path) -> None:
    with Sandbox.start(blank, hostname="image") as sandbox:
        sandbox.outside(["mkfs.ext4", "-q", sandbox.device])
        sandbox.mount(sandbox.partition(0))
        _fill(sandbox, userland)
        sandbox.lend(None)
        assert sandbox.inside("cut -d' ' -f1 /proc/mounts | head -n1").stdout.strip() == sandbox.device
        assert sandbox.unmount().checked == (f"{sandbox.device} (ext4)",)
        sandbox.close()


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_other_file_systems(blank: Path, userland: Path, kind: str) -> None:
    with Sandbox.start(blank, hostname="image") as sandbox:
        sandbox.outside([f"mkfs.{kind}", "-q", sandbox.device])
        sandbox.mount(sandbox.device, options=["noatime"])
        _fill(sandbox, userland)
        sandbox.lend(None)
        sandbox.write("/etc/motd", b"hello\n")
        assert sandbox.inside("cat /etc/motd").stdout == "hello\n"
        assert "noatime" in sandbox.inside("head -n1 /proc/mounts").stdout
        assert sandbox.unmount().checked == (f"{sandbox.device} ({kind})",)
        sandbox.close()


def test_two_copies_of_one_xfs_at_once(blank: Path, tmp_path: Path) -> None:
    run("mkfs.xfs", "-q", blank)
    twin = tmp_path / "twin.raw"
    shutil.copy(blank, twin)
    with Sandbox.start(blank, hostname="one") as one, Sandbox.start(twin, hostname="two") as two:
        one.mount(one.device)
        two.mount(two.device)


def test_options_and_wrapper(bare: Sandbox) -> None:
    seen: list[str] = []

    def wrapper(command: str) -> str:
        seen.append(command)
        return f"env WRAPPED=1 {command}"

    bare.mount(bare.partition(1), options=["noatime", "nodiratime,nodev"], wrapper=wrapper)
    assert seen == [f"mount -o noatime -o nodiratime,nodev {bare.partition(1)} {bare.mount_path}"]
    assert "noatime" in bare.outside(["findmnt", "-no", "OPTIONS", bare.mount_path]).stdout


def test_a_refused_mount_has_the_tools_words(bare: Sandbox) -> None:
    with pytest.raises(SandboxError) as caught:
        bare.mount(bare.partition(1), options=["nosuchoption"])
    assert "bad option" in str(caught.value)
    assert "dmesg" not in str(caught.value)
    bare.mount(bare.partition(1))


def test_nothing_to_mount_is_said(bare: Sandbox) -> None:
    with pytest.raises(SandboxError, match="blkid finds no file system"):
        bare.mount(bare.device)


def test_a_wrapper_that_mounts_nothing_is_found(bare: Sandbox) -> None:
    with pytest.raises(SandboxError, match="nothing is mounted"):
        bare.mount(bare.partition(1), wrapper=lambda command: f"echo {command}")


def test_a_missing_checker_is_said_before_the_work(bare: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(UnavailableError, match="apt-get install e2fsprogs"):
        bare.mount(bare.partition(1))


def test_a_mount_point_is_made_and_removed(bare: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "a" / "b"
    bare.mount(bare.partition(1), path=str(path))
    assert path.is_dir()
    assert list(path.iterdir()) == [], "the build machine must not see the mount"
    bare.unmount()
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_mount_point_that_was_there_stays(bare: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    bare.mount(bare.partition(1), path=str(tmp_path / "mine"))
    bare.unmount()
    assert (tmp_path / "mine").is_dir()


def test_two_builds_at_one_mount_path_keep_theirs(disk: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin.raw"
    shutil.copy(disk, twin)
    path = str(tmp_path / "point")
    with Sandbox.start(disk, hostname="one") as one, Sandbox.start(twin, hostname="two") as two:
        one.mount(one.partition(1), path=path)
        two.mount(two.partition(1), path=path)
        one.unmount()
        assert two.inside("ls /bin/busybox").code == 0


def test_a_mount_by_hand_is_undone(bare: Sandbox, tmp_path: Path) -> None:
    point = tmp_path / "point"
    command = f"mkdir {point}; f() {{ mount {bare.partition(1)} $1; mount -t tmpfs none $1/tmp; }}; f"
    bare.mount_manually(command, path=str(point))
    assert bare.mount_path == str(point)
    bare.lend(None)
    assert bare.inside("echo x >/tmp/x; cat /tmp/x").stdout == "x\n"
    assert bare.unmount().checked == (f"{bare.partition(1)} (ext4)",)
    bare.close()


def test_a_mount_by_hand_that_mounts_nothing_is_found(bare: Sandbox) -> None:
    with pytest.raises(SandboxError, match="nothing is mounted at /mnt"):
        bare.mount_manually("echo", path="/mnt")


def test_a_mount_by_a_tool_anywhere_is_undone(bare: Sandbox) -> None:
    bare.mount(bare.partition(1))
    bare.outside(f"mount --bind {bare.mount_path}/etc /mnt; mount -t tmpfs none {bare.mount_path}/var")
    bare.unmount()
    bare.close()


def test_a_link_in_the_image_does_not_lead_a_mount_out(bare: Sandbox, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    bare.mount(bare.partition(1))
    bare.outside(["ln", "-s", str(outside), f"{bare.mount_path}/boot"])
    bare.outside(["ln", "-s", "../../../../../../../../etc", f"{bare.mount_path}/sys"])
    bare.mount(bare.partition(1), path=f"{bare.mount_path}/boot")
    bare.lend(None, resolv_conf="image")
    table = bare.outside("cut -d' ' -f2 /proc/mounts").stdout.split()
    assert f"{bare.mount_path}{outside}" in table
    assert f"{bare.mount_path}/etc" in table
    assert str(outside) not in table
    assert "/etc" not in table


# ---- lending


def test_the_default_mounts(sandbox: Sandbox) -> None:
    mounts = {line.split()[1]: line.split()[2:4] for line in sandbox.inside("cat /proc/mounts").stdout.splitlines()}
    assert mounts["/proc"][0] == "proc"
    assert mounts["/sys"][0] == "sysfs"
    assert mounts["/sys"][1].startswith("ro,")
    assert mounts["/run"][0] == "tmpfs"
    assert mounts["/dev"][0] == "tmpfs"
    assert mounts["/proc/sys"][1].startswith("ro,")
    script = "for n in null zero full random urandom tty; do [ -c /dev/$n ] || exit 1; done; echo x >/dev/null"
    assert sandbox.inside(script, user="worker").code == 0


def test_what_was_made_for_lending_is_removed(sandbox: Sandbox) -> None:
    node, root = sandbox.partition(1), sandbox.mount_path
    sandbox.unmount()
    sandbox.mount(node)
    there = set(os.listdir(f"/proc/{sandbox.holder}/root{root}"))
    assert {"proc", "sys", "dev", "run"} & there == set()
    assert not os.path.lexists(f"/proc/{sandbox.holder}/root{root}/etc/resolv.conf")


def test_explicit_mounts_are_literal(bare: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").write_text("from the build machine\n")
    bare.mount(bare.partition(1))
    rows = [("proc", "proc", "/proc"), ("bind", "/dev", "/dev"), ("bind", str(tmp_path / "shared"), "/opt/shared")]
    bare.lend(rows, resolv_conf="image")
    assert bare.inside("cat /opt/shared/file").stdout == "from the build machine\n"
    assert bare.inside("ls /dev/loop-control").code == 0
    assert "/sys" not in bare.inside("cut -d' ' -f2 /proc/mounts").stdout.split()
    bare.unmount()
    bare.mount(bare.partition(1))
    assert bare.outside(f"ls {bare.mount_path}/opt").stdout == ""
    assert (tmp_path / "shared" / "file").exists()


@pytest.mark.parametrize("row", [("bind", "/nosuch", "/x"), ("nosuchfs", "x", "/x"), ("bind", "/etc", "x")])
def test_a_mount_that_cannot_be_lent_says_which(bare: Sandbox, row: tuple[str, str, str]) -> None:
    bare.mount(bare.partition(1))
    with pytest.raises(SandboxError) as caught:
        bare.lend([row])
    assert row[1] in str(caught.value)


def test_name_resolution_is_a_private_copy(sandbox: Sandbox) -> None:
    host = Path("/etc/resolv.conf").read_text()
    assert sandbox.inside("cat /etc/resolv.conf").stdout == host
    sandbox.inside("echo changed > /etc/resolv.conf")
    assert Path("/etc/resolv.conf").read_text() == host


@pytest.mark.parametrize("target", ["../run/systemd/resolve/stub-resolv.conf", "/etc/elsewhere/resolv.conf"])
def test_name_resolution_through_a_dangling_link(bare: Sandbox, target: str) -> None:
    bare.mount(bare.partition(1))
    link = f"{bare.mount_path}/etc/resolv.conf"
    bare.outside(["ln", "-s", target, link])
    bare.lend(None)
    assert bare.inside("cat /etc/resolv.conf").stdout == Path("/etc/resolv.conf").read_text()
    bare.unmount()
    bare.mount(bare.partition(1))
    assert bare.outside(["readlink", link]).stdout.strip() == target
    assert "elsewhere" not in bare.outside(f"ls {bare.mount_path}/etc").stdout


def test_the_images_own_name_resolution_is_untouched(bare: Sandbox) -> None:
    bare.mount(bare.partition(1))
    bare.write("/etc/resolv.conf", b"nameserver 192.0.2.1\n", mode=0o600, owner="worker")
    bare.lend(None)
    assert "192.0.2.1" not in bare.inside("cat /etc/resolv.conf").stdout
    bare.unmount()
    bare.mount(bare.partition(1))
    assert bare.inside("cat /etc/resolv.conf; stat -c '%a %u' /etc/resolv.conf").stdout == (
        "nameserver 192.0.2.1\n600 1234\n"
    )


def test_copied_files_are_taken_out_and_originals_are_back(bare: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("host\n")
    bare.mount(bare.partition(1))
    bare.outside(f"mkdir -p {bare.mount_path}{tmp_path}; ln -s /etc/passwd {bare.mount_path}{path}")
    other = tmp_path / "new" / "deep"
    other.mkdir(parents=True)
    (other / "file").write_text("new\n")
    bare.copy_files([str(path), str(other / "file")])
    assert bare.inside(["cat", str(path), str(other / "file")]).stdout == "host\nnew\n"
    bare.inside(f"echo changed > {path}; rm {other}/file")
    bare.unmount()
    bare.mount(bare.partition(1))
    assert bare.inside(["readlink", str(path)]).stdout == "/etc/passwd\n"
    assert bare.inside(["ls", "-A", str(tmp_path)]).stdout == "file\n"
    assert "changed" not in bare.inside("cat /etc/passwd").stdout


def test_a_file_named_twice_keeps_its_original(sandbox: Sandbox) -> None:
    sandbox.write("/etc/hostname", b"original\n")
    sandbox.copy_files(["/etc/hostname", "/etc/hostname"])
    sandbox.copy_files(["/etc/hostname"])
    sandbox.unmount()
    sandbox.mount(sandbox.partition(1))
    assert sandbox.read("/etc/hostname") == b"original\n"


def test_a_copied_file_does_not_follow_links_out(bare: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "link" / "file"
    source.parent.mkdir()
    source.write_text("host\n")
    victim = tmp_path / "victim"
    victim.mkdir()
    bare.mount(bare.partition(1))
    bare.outside(f"mkdir -p {bare.mount_path}{tmp_path}; ln -s {victim} {bare.mount_path}{tmp_path}/link")
    bare.copy_files([str(source)])
    assert list(victim.iterdir()) == []
    assert bare.inside(["cat", str(victim / "file")]).stdout == "host\n"


def test_resolv_conf_may_be_named_in_copy_files(sandbox: Sandbox) -> None:
    sandbox.copy_files(["/etc/resolv.conf"])
    sandbox.unmount()


def test_what_cannot_be_copied_says_so(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="/nosuch cannot be copied into the image: No such file"):
        sandbox.copy_files(["/nosuch"])
    with pytest.raises(SandboxError, match="not a regular file"):
        sandbox.copy_files(["/etc"])


def test_a_tool_of_the_build_machine_sees_both(sandbox: Sandbox) -> None:
    assert sandbox.outside(["ls", f"{sandbox.mount_path}/bin/busybox", "/proc/self"]).code == 0
    with pytest.raises(CommandError):
        sandbox.inside(["ls", sandbox.mount_path])


@pytest.mark.parametrize("options", [(), ("rw,noatime",)])
def test_a_disk_that_is_read_only_is_mounted_so_without_a_word(disk: Path, options: tuple[str, ...]) -> None:
    heard: list[bytes] = []
    with Sandbox.start(disk, hostname="image", read_only=True, output=lambda _, data: heard.append(data)) as sandbox:
        sandbox.mount(sandbox.partition(1), options=options)
        assert b"WARNING" not in b"".join(heard)
        row = sandbox.outside(["grep", f" {sandbox.mount_path} ", "/proc/mounts"]).stdout.split()
        assert "ro" in row[3].split(",")
