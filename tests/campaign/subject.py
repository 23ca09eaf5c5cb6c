"""The image that is built and killed: small, and yet every stage has something to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

MIB = 1 << 20
BUSYBOX = Path("/bin/busybox")
REPOSITORY = Path(__file__).parents[2]

_APPLETS = ("sh", "cat", "chmod", "echo", "ls", "mkdir", "rm", "sleep", "stat", "sync", "test", "touch", "true")
_LAYOUT = 'label: gpt\n1: start=1M, size=6M, name="boot"\n2: start=7M, size=+, name="root"\n'
_SIZE = 24 * MIB
_BOOT, _ROOT = (MIB, 6 * MIB), (7 * MIB, 16 * MIB)
"""Start and size in bytes."""

NAME = "web"
OUTPUTS = ("web.raw", "web.vhd", "web.qcow2")

_YAML = """
    cloud: local
    source: ../../source.raw
    output: [web.raw, web.vhd, web.qcow2]
    pre_mount_commands: ["blkid -p {{ partition(2) }}"]
"""
_EARLY = """
    def test_before_a_step(host):
        host.check_output("echo early >/tmp/early")
"""
_STEPS = """
    import pytest

    pytestmark = pytest.mark.provision

    def test_write(chroot):
        chroot.write_text("/etc/motd", "hello\\n")
        chroot.run("echo kernel >/boot/vmlinuz; sync")

    def test_leave_something_running(chroot):
        chroot.run("sleep 1000 & echo $! >/run/pid; rm /etc/removed")
"""
_CHECKS = """
    def test_motd(host):
        assert host.file("/etc/motd").content_string == "hello\\n"

    def test_boot(host):
        assert host.check_output("cat /boot/vmlinuz") == "kernel"
"""


def make_source(directory: Path) -> Path:
    """A disk with a partition table, a root and a /boot, and a busybox in it."""
    root = directory / "root"
    for name in ("bin", "boot", "etc", "proc", "sys", "dev", "run", "tmp", "root", "var/log"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    (root / "etc" / "removed").write_text("by a step\n")
    (root / "etc" / "os-release").write_text("ID=test\n")
    (root / "etc" / "fstab").write_text("PARTLABEL=root / ext4\nLABEL=BOOT /boot ext4\n")
    disk = directory / "source.raw"
    with disk.open("wb") as file:
        file.truncate(_SIZE)
    subprocess.run(["sfdisk", "--quiet", disk], input=_LAYOUT, text=True, check=True)
    for (start, size), options in ((_BOOT, ["-L", "BOOT"]), (_ROOT, ["-d", root])):
        argv: Sequence[str | Path] = ["mkfs.ext4", "-q", "-E", f"offset={start}", *options, disk, f"{size >> 10}k"]
        subprocess.run(argv, check=True, capture_output=True)
    shutil.rmtree(root)
    return disk


def set_up(directory: Path, source: Path) -> None:
    """A directory in which the image is built, and nothing else happens."""
    image = directory / "images" / NAME
    image.mkdir(parents=True)
    (directory / "tmp").mkdir()
    os.link(source, directory / "source.raw")
    files = {"image.yaml": _YAML, "test_05.py": _EARLY, "test_10.py": _STEPS, "test_90.py": _CHECKS}
    for name, text in files.items():
        (image / name).write_text(textwrap.dedent(text))


def command(*options: str) -> list[str]:
    """The build, to be run in that directory, with no other plugin than it needs."""
    plugins = ("pytest_azchroot.plugin", "testinfra.plugin", f"{__package__}.markers")
    wanted = [word for plugin in plugins for word in ("-p", plugin)]
    plain = ["-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."]
    return [sys.executable, "-m", "pytest", *wanted, *plain, *options, "images"]


def environment(directory: Path) -> dict[str, str]:
    """What the build sees, and nothing of the environment of these tests."""
    return {
        "PATH": f"{os.environ['PATH']}:{directory}",  # by which its processes are known: the keeper gets nothing else
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "TMPDIR": str(directory / "tmp"),
        "HOME": str(directory),
    }
