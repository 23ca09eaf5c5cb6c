"""What is missing on a machine is said before anything is made, and when it is made all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_azchroot.errors import DiskError
from pytest_azchroot.sandbox import Sandbox, requirements

pytestmark = pytest.mark.root

REPORT = """
import sys
from pathlib import Path
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.sandbox import Sandbox, requirements
print(requirements())
try:
    with Sandbox.start(Path(sys.argv[1]), hostname="x"):
        print("started")
except AzchrootError as error:
    print(type(error).__name__, error)
"""


def _report(disk: Path, *prefix: str, mask: str = "") -> str:
    python = [sys.executable, "-c", REPORT, str(disk)]
    argv = [*prefix, *python] if not mask else ["unshare", "-m", "sh", "-ec", f'{mask}; exec "$@"', "sh", *python]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_nothing_is_missing_here() -> None:
    assert requirements() == []


@pytest.mark.parametrize("name", ["sys_admin", "mknod", "sys_chroot"])
def test_a_missing_capability_is_named(disk: Path, name: str) -> None:
    report = _report(disk, "setpriv", f"--bounding-set=-{name}")
    assert f"CAP_{name.upper()}" in report.splitlines()[0]
    if name != "sys_chroot":
        assert "UnavailableError" in report
        assert "--privileged" in report


def test_a_user_namespace_is_not_enough(disk: Path) -> None:
    report = _report(disk, "unshare", "--user", "--map-root-user")
    assert "root of a user namespace" in report
    assert "UnavailableError" in report


def test_a_missing_loop_control_is_named(disk: Path) -> None:
    mask = "mount -t tmpfs none /dev; mknod /dev/null c 1 3; mknod /dev/urandom c 1 9"
    report = _report(disk, mask=mask)
    assert "/dev/loop-control is missing" in report
    assert "UnavailableError /dev/loop-control cannot be opened: No such file or directory" in report
    assert "modprobe" in report


@pytest.mark.parametrize("tool", ["blkid", "partx"])
def test_a_missing_tool_is_named(disk: Path, tmp_path: Path, tool: str) -> None:
    nothing = tmp_path / "nothing"
    nothing.touch(mode=0o644)
    mask = f"for d in /usr/sbin /usr/bin; do [ ! -e $d/{tool} ] || mount --bind {nothing} $d/{tool}; done"
    report = _report(disk, mask=mask)
    assert f"{tool} is not installed: apt-get install util-linux" in report.splitlines()[0]
    assert f"UnavailableError {tool} " in report


@pytest.mark.parametrize(("path", "words"), [("/nosuch", "No such file"), ("/etc", "directory")])
def test_a_disk_that_cannot_be_opened(path: str, words: str) -> None:
    with pytest.raises(DiskError, match=f"the disk {path} cannot be opened: .*{words}"), _started(path):
        pass


def test_something_that_is_no_disk() -> None:
    with pytest.raises(DiskError, match="neither a file nor a block device"), _started("/dev/null"):
        pass


def _started(path: str):  # type: ignore[no-untyped-def]
    return Sandbox.start(Path(path), hostname="x")


def test_the_callers_umask_does_not_reach_the_image(disk: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pytest_azchroot.sandbox import Sandbox\n"
        "os.umask(0o077)\n"
        "with Sandbox.start(Path(sys.argv[1]), hostname='x') as sandbox:\n"
        "    sandbox.mount(sandbox.partition(1)); sandbox.lend(None); sandbox.write('/a/b', b'')\n"
        "    print(sandbox.inside('stat -c %a /dev /dev/disk /dev/null /dev/shm /proc /run /a /a/b; umask').stdout)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, disk], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["755", "755", "666", "1777", "555", "755", "755", "644", "0022"]
