"""Unmounting strictly, and what stands in its way."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_azchroot.errors import DirtyImageError, DiskError, SandboxError
from pytest_azchroot.sandbox import Process, Sandbox, checks, starting

from .machine import PARTITION_START, descendants_of, eventually, is_alive, loops_below, partitions_of, run

pytestmark = pytest.mark.root


def test_a_clean_close(sandbox: Sandbox, disk: Path) -> None:
    node, name, keeper, holder = (
        sandbox.partition(1),
        sandbox.device.removeprefix("/dev/"),
        sandbox.keeper,
        sandbox.holder,
    )
    done = sandbox.unmount()
    assert done.survivors == ()
    assert done.checked == (f"{node} (ext4)",)
    sandbox.close()
    assert loops_below(disk.parent) == []
    assert partitions_of(name) == []
    assert not is_alive(keeper)
    assert not is_alive(holder)


def test_what_was_written_is_on_the_disk(sandbox: Sandbox, disk: Path, tmp_path: Path) -> None:
    sandbox.write("/etc/motd", b"written\n")
    sandbox.unmount()
    sandbox.close()
    assert run("debugfs", "-R", "cat /etc/motd", f"{disk}?offset={PARTITION_START}") == "written\n"


def test_an_image_can_be_mounted_again(sandbox: Sandbox) -> None:
    sandbox.write("/etc/motd", b"written\n")
    sandbox.unmount()
    with pytest.raises(SandboxError, match="not mounted"):
        sandbox.inside("true")
    sandbox.mount(sandbox.partition(1))
    sandbox.lend(None)
    assert sandbox.read("/etc/motd") == b"written\n"
    sandbox.unmount()
    sandbox.close()


def test_a_mounted_image_does_not_close(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="the image is still mounted"):
        sandbox.close()
    assert sandbox.inside("echo usable").stdout == "usable\n"


def test_survivors_are_named_and_ended(sandbox: Sandbox) -> None:
    sandbox.inside("setsid sleep 1000 & setsid sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & sleep 0.2")
    sandbox.outside("setsid sleep 1001 &")
    commands = {process.command.split(";")[0] for process in sandbox.unmount().survivors}
    assert {"sleep 1000", "sleep 1001", 'sh -c trap "" TERM'} <= commands
    sandbox.close()


def test_chosen_processes_are_ended(sandbox: Sandbox) -> None:
    sandbox.inside("setsid sleep 1000 & setsid sleep 1001 &")
    assert eventually(lambda: {"sleep 1000", "sleep 1001"} <= {each.command for each in sandbox.survivors()})
    [first] = [process for process in sandbox.survivors() if process.command == "sleep 1000"]
    sandbox.end([first])
    assert [process.command for process in sandbox.survivors()] == ["sleep 1001"]
    sandbox.end([Process(99999, "gone already")])


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (["sleep", "1000", "<{root}/etc/passwd"], "fd 0"),
        (["cd", "{root}/etc", "&&", "exec", "sleep", "1000"], "cwd"),
        (["exec", "{root}/bin/sleep", "1000"], "exe"),
        (["exec", "tail", "-f", ">>{root}/log", "/dev/null"], "fd 1"),
    ],
)
def test_who_holds_the_image_is_named(sandbox: Sandbox, action: list[str], words: str) -> None:
    # a process outside the sandbox's PID namespace, which it cannot end: by /proc it reaches into it
    root = f"/proc/{sandbox.holder}/root{sandbox.mount_path}"
    command = " ".join(action).format(root=root)
    with subprocess.Popen(["sh", "-c", f"exec 3>&1; echo x >&3; {command}"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert eventually(lambda: any(_uses(pid) for pid in _group(process.pid)))
            with pytest.raises(DirtyImageError) as caught:
                sandbox.unmount()
        finally:
            for pid in _group(process.pid):
                os.kill(pid, 9)
    assert "still in use" in str(caught.value)
    assert words in str(caught.value)
    assert any(str(pid) in str(caught.value) for pid in [process.pid, *_group(process.pid)])


def _group(pid: int) -> list[int]:
    return [pid, *descendants_of(pid)]


def _uses(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() in {"sleep", "tail", "busybox"}
    except OSError:
        return False


def test_a_partition_mounted_elsewhere_is_named(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_UNUSED_PATIENCE", 0.5)
    # another mount namespace has the partition mounted: the unmount here succeeds, the disk is still in use
    code = f"mount {sandbox.partition(1)} /mnt && echo mounted && exec sleep 1000"
    with subprocess.Popen(["unshare", "-m", "sh", "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "mounted\n"
            with pytest.raises(DirtyImageError, match="stay in use after the unmount") as caught:
                sandbox.unmount()
        finally:
            process.kill()
    assert f"{process.pid} (sleep 1000) sees it mounted at /mnt" in str(caught.value)


def test_a_mount_beneath_from_a_tool_is_unmounted_first(sandbox: Sandbox) -> None:
    sandbox.outside(f"mount -t tmpfs none {sandbox.mount_path}/opt; mkdir {sandbox.mount_path}/opt/x")
    sandbox.outside(f"mount -t tmpfs none {sandbox.mount_path}/opt/x")
    sandbox.unmount()


def test_a_loop_device_over_a_file_of_the_image_is_found(sandbox: Sandbox) -> None:
    sandbox.inside("dd if=/dev/zero of=/file bs=1M count=1 2>/dev/null")
    root = f"/proc/{sandbox.holder}/root{sandbox.mount_path}"
    device = run("losetup", "--find", "--show", f"{root}/file").strip()
    try:
        with pytest.raises(DirtyImageError, match=device):
            sandbox.unmount()
    finally:
        run("losetup", "--detach", device)


def test_a_device_that_is_still_open_does_not_close(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from pytest_azchroot.disk import loop; loop.release.__kwdefaults__['patience'] = 0.2"
    monkeypatch.setattr(starting, "_BOOTSTRAP", starting._BOOTSTRAP.replace("main()", f"{code}; main()"))
    with Sandbox.start(disk, hostname="image") as sandbox, Path(sandbox.device).open("rb") as other:
        with pytest.raises(DiskError, match="is still open somewhere"):
            sandbox.close()
        other.close()


def test_a_damaged_file_system_is_found(sandbox: Sandbox, disk: Path) -> None:
    node = sandbox.partition(1)
    sandbox.write("/opt/file", b"x" * 5000)
    sandbox.unmount()
    sandbox.outside(["debugfs", "-w", "-R", "clri /opt/file", node])
    with pytest.raises(DirtyImageError, match="is not clean") as caught:
        sandbox.unmount()
    assert f"e2fsck -f -n {node}" in str(caught.value)
    assert "deleted/unused inode" in str(caught.value)


def test_leaving_without_close_is_an_abort(disk: Path) -> None:
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(1))
        sandbox.lend(None)
        sandbox.inside("setsid sleep 1000 &")
        sandbox.inside("dd if=/dev/zero of=/opt/x bs=1M count=20 2>/dev/null")
        processes = [sandbox.keeper, sandbox.holder]
    assert loops_below(disk.parent) == []
    assert not any(map(is_alive, processes))


def test_an_error_is_not_hidden_by_the_abort(disk: Path) -> None:
    def fail() -> None:
        with Sandbox.start(disk, hostname="image") as sandbox:
            sandbox.mount(sandbox.partition(1))
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()


def test_abort_twice_and_after_close(bare: Sandbox) -> None:
    bare.close()
    bare.abort()
    bare.abort()


def test_the_backing_file_may_be_gone_meanwhile(disk: Path) -> None:
    with Sandbox.start(disk, hostname="image") as sandbox:
        disk.unlink()
        name = sandbox.device.removeprefix("/dev/")
        assert sandbox.partition(1)
    assert not Path(f"/sys/block/{name}/loop/backing_file").exists()
