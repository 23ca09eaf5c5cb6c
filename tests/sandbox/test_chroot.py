"""The object that steps have in hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import Chroot, CommandError, Sandbox

pytestmark = pytest.mark.root


@pytest.fixture
def chroot(sandbox: Sandbox, tmp_path: Path) -> Chroot:
    (tmp_path / "suite").mkdir()
    environment = {"AZCHROOT_IMAGE": "debian"}
    return Chroot(sandbox, directory=tmp_path / "suite", environment=environment, timeout=None, guard=None)


def test_ways_to_run(chroot: Chroot) -> None:
    assert chroot.run("echo $((1 + 1))").stdout == "2\n"
    assert chroot.run("echo", "$((1 + 1))").stdout == "$((1 + 1))\n"
    assert chroot.run(["echo", "$((1 + 1))"]).stdout == "$((1 + 1))\n"
    with pytest.raises(TypeError):
        chroot.run()


def test_commands_see_where_they_are(chroot: Chroot, sandbox: Sandbox) -> None:
    command = "echo $AZCHROOT_IMAGE $AZCHROOT_DEVICE $AZCHROOT_MOUNT_PATH"
    assert chroot.run(command).stdout == f"debian {sandbox.device} /\n"
    assert chroot.run_outside(command).stdout == f"debian {sandbox.device} {sandbox.mount_path}\n"
    assert (chroot.device, chroot.mount_path, chroot.partition(1)) == (
        sandbox.device,
        sandbox.mount_path,
        sandbox.partition(1),
    )


def test_a_script_runs_by_its_first_line(chroot: Chroot, tmp_path: Path) -> None:
    script = tmp_path / "suite" / "script"
    script.write_text("#!/bin/awk -f\nBEGIN { print ARGV[1] }\n")
    assert chroot.script("script", "word").stdout == "word\n"


def test_a_script_without_one_is_for_the_shell(chroot: Chroot, tmp_path: Path) -> None:
    script = tmp_path / "suite" / "script"
    script.write_text('echo "$1" $AZCHROOT_IMAGE; false; echo late\n')
    with pytest.raises(CommandError) as caught:
        chroot.script("script", "a word")
    assert caught.value.completed.stdout == "a word debian\n"


def test_a_script_is_not_left_in_the_image(chroot: Chroot, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "suite" / "script").write_text("id -u; echo $0\n")
    done = chroot.script("script", user="worker")
    assert done.stdout == "1234\n/run/azchroot/script\n"
    assert chroot.run("ls -A /run/azchroot").stdout == ""
    sandbox.unmount()
    sandbox.mount(sandbox.partition(1))
    assert chroot.run("ls -A /").stdout.split() == [
        "bin",
        "etc",
        "home",
        "lost+found",
        "opt",
        "root",
        "tmp",
        "usr",
        "var",
    ]


def test_a_missing_script_says_so(chroot: Chroot) -> None:
    with pytest.raises(SandboxError, match=r"the script .*/nosuch cannot be read: No such file"):
        chroot.script("nosuch")


def test_files_by_relative_paths(chroot: Chroot, tmp_path: Path) -> None:
    (tmp_path / "suite" / "file").write_text("x")
    chroot.put("file", "/opt/", owner="worker", mode=0o600)
    chroot.get("/opt/file", "copy")
    assert (tmp_path / "suite" / "copy").read_text() == "x"
    assert chroot.run("stat -c '%a %U' /opt/file").stdout == "600 worker\n"


def test_text(chroot: Chroot) -> None:
    chroot.write_text("/etc/motd", "grüß\n", mode=0o640, owner="worker")
    assert chroot.read_text("/etc/motd") == "grüß\n"
    chroot.run(r"printf '\377' > /etc/motd")
    with pytest.raises(SandboxError, match="is not UTF-8"):
        chroot.read_text("/etc/motd")


def test_a_tool_of_the_build_machine_starts_in_the_images_directory(chroot: Chroot, tmp_path: Path) -> None:
    assert chroot.run_outside("pwd").stdout == f"{tmp_path}/suite\n"
    python = "import os; print(os.path.exists(os.environ['AZCHROOT_MOUNT_PATH'] + '/bin/busybox'))"
    assert chroot.run_outside(sys.executable, "-c", python).stdout == "True\n"


def test_the_time_limit_is_for_commands_that_have_none(sandbox: Sandbox, tmp_path: Path) -> None:
    chroot = Chroot(sandbox, directory=tmp_path, environment={}, timeout=0.3, guard=None)
    with pytest.raises(CommandError, match=r"timed out after 0\.3 s"):
        chroot.run("sleep 1000")
    assert chroot.run("sleep 0.5", timeout=100).code == 0


def test_the_guard_comes_first(sandbox: Sandbox, tmp_path: Path) -> None:
    def guard() -> None:
        raise PermissionError

    chroot = Chroot(sandbox, directory=tmp_path, environment={}, timeout=None, guard=guard)
    for call in (
        lambda: chroot.run("touch /touched"),
        lambda: chroot.run_outside("touch $AZCHROOT_MOUNT_PATH/touched"),
        lambda: chroot.script("x"),
        lambda: chroot.put("x", "/x"),
        lambda: chroot.get("/etc/passwd", "x"),
        lambda: chroot.write_text("/touched", ""),
        lambda: chroot.read_text("/etc/passwd"),
    ):
        with pytest.raises(PermissionError):
            call()
    assert sandbox.inside("ls /").stdout.split().count("touched") == 0
