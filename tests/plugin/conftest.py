"""A workshop in which tests of the plugin set up small images: real disks, a busybox as their userland."""

from __future__ import annotations

import os
import shutil
import subprocess
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_azchroot.sandbox import sandbox, starting

APPLETS = ("sh", "cat", "chmod", "cp", "echo", "false", "grep", "id", "ln", "ls", "mkdir", "mount", "mv", "ps", "rm", "sync",
           "sleep", "stat", "test", "touch", "true", "umount")  # fmt: skip

STEPS = """
    import pytest

    @pytest.mark.provision
    def test_step(chroot):
        chroot.write_text("/etc/motd", "hello\\n")
"""

CHECKS = """
    def test_check(host):
        assert host.file("/etc/motd").content_string == "hello\\n"
"""


@pytest.fixture(scope="session")
def base_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk without a partition table: ext4 with a busybox and little else."""
    directory = tmp_path_factory.mktemp("base")
    root = directory / "root"
    for name in ("bin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "var/log"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    (root / "etc" / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    disk = directory / "base.raw"
    subprocess.run(["mkfs.ext4", "-q", "-d", root, "-L", "base", disk, "24M"], check=True, capture_output=True)
    return disk


@dataclass
class Workshop:
    """Writes images and runs pytest on them.

    :param pytester: runs pytest in this process unless asked otherwise.
    :param source: the disk that every image starts from.
    """

    pytester: pytest.Pytester
    source: Path

    def image(self, name: str = "x", *, yaml: str = "", **files: str) -> Path:
        """An image directory below ``images/``. ``files`` are test files: name without ``.py``, and text.

        Without files it has one step and one check.
        """
        directory = self.pytester.path / "images" / name
        directory.mkdir(parents=True)
        config = f"cloud: local\nsource: {self.source}\noutput: {name}.raw\n{textwrap.dedent(yaml)}"
        (directory / "image.yaml").write_text(config)
        for file, text in (files or {"test_10_steps": STEPS, "test_90_checks": CHECKS}).items():
            (directory / f"{file}.py").write_text(textwrap.dedent(text))
        return directory

    def run(self, *args: str, subprocess: bool = False) -> pytest.RunResult:
        """Run pytest on ``images`` unless paths are given among the arguments."""
        if not any(arg.startswith("images") or arg == "." for arg in args):
            args = (*args, "images")
        run = self.pytester.runpytest_subprocess if subprocess else self.pytester.runpytest_inprocess
        return run("-p", "no:randomly", *args)

    def published(self, name: str = "x") -> bool:
        return (self.pytester.path / "images" / name / f"{name}.raw").exists()

    def read(self, path: str, name: str = "x") -> str:
        """A file of the published image, read by debugfs: no kernel, no mount."""
        disk = self.pytester.path / "images" / name / f"{name}.raw"
        done = subprocess.run(["debugfs", "-R", f"cat {path}", disk], check=True, capture_output=True, text=True)
        return done.stdout

    def traces(self) -> set[str]:
        """What builds of this workshop hold of the machine: loop devices, mounts, processes."""
        here = str(self.pytester.path)
        loops = {str(path) for path in Path("/sys/block").glob("loop*/loop/backing_file") if here in _text(path)}
        mounts = {line for line in _text(Path("/proc/self/mountinfo")).splitlines() if "azchroot" in line}
        processes = {
            f"{_text(path.parent / 'comm').strip()} {path.parent.name}"
            for path in Path("/proc").glob("[0-9]*/environ")
            if here in _text(path) and _text(path.parent / "comm").startswith("azchroot")
        }
        return loops | mounts | processes

    def wait_until_clean(self) -> None:
        """The kernel takes a moment after the death of the last process."""
        deadline = time.monotonic() + 20
        while self.traces() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.traces() == set()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""


@pytest.fixture
def workshop(pytester: pytest.Pytester, base_image: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """A workshop; nothing may be left of its builds."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    # The keeper gets PATH and nothing else of our environment: by this its processes are known.
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{pytester.path}")
    workshop = Workshop(pytester, base_image)
    yield workshop
    workshop.wait_until_clean()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is enough for a disk to be let go, where it will not be."""
    monkeypatch.setattr(sandbox, "_FREE_PATIENCE", 1.0)
    held = "from pytest_azchroot.sandbox import checks; checks._UNUSED_PATIENCE = 1.0"
    bound = "from pytest_azchroot.disk import loop; loop.release.__kwdefaults__['patience'] = 1.0"
    patched = starting._BOOTSTRAP.replace("main()", f"{held}; {bound}; main()")
    monkeypatch.setattr(starting, "_BOOTSTRAP", patched)
