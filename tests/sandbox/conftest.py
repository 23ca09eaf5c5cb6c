"""A small image whose userland is a static busybox, and a sandbox around it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.sandbox import Sandbox
from tests.docs import userland as small

from .canary import Canary, watched
from .machine import BUSYBOX, PARTITION_START, loops_below, run

PASSWD = "root:x:0:0:root:/root:/bin/sh\nworker:x:1234:1234:,,,:/home/worker:/bin/sh\n"
GROUP = "root:x:0:\nworker:x:1234:\nextra:x:77:worker\n"


@pytest.fixture(scope="session")
def userland(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory: busybox and two accounts."""
    assert BUSYBOX.exists(), "the tests need the package busybox-static"
    root = tmp_path_factory.mktemp("userland")
    for name in ("bin", "etc", "home/worker", "opt", "root", "tmp", "var", "usr/bin"):
        (root / name).mkdir(parents=True)
    shutil.copy2(BUSYBOX, root / "bin/busybox")
    for applet in run(BUSYBOX, "--list").split():
        link = root / "bin" / applet
        if not link.exists():
            link.symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    os.chown(root / "home/worker", 1234, 1234)
    return root


@pytest.fixture(scope="session")
def template(userland: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT disk with one ext4 partition that holds the userland. Made without a loop device."""
    path = tmp_path_factory.mktemp("template") / "disk.raw"
    with path.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(
        ["sfdisk", "--quiet", path],
        input="label: gpt\nstart=1MiB, size=40MiB\n",
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    options = f"offset={PARTITION_START},lazy_itable_init=0"
    run("mkfs.ext4", "-q", "-L", "rootfs", "-d", userland, "-E", options, path, "40M")
    return path


@pytest.fixture
def disk(template: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the template. After the test no loop device may be bound to it."""
    path = tmp_path / "disk.raw"
    run("cp", "--sparse=always", template, path)
    yield path
    assert loops_below(tmp_path) == []


@pytest.fixture
def bare(disk: Path) -> Iterator[Sandbox]:
    """A sandbox in which nothing is mounted."""
    with Sandbox.start(disk, hostname="image") as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(bare: Sandbox) -> Sandbox:
    """A sandbox with the image mounted and lent what it gets by default."""
    bare.mount(bare.partition(1))
    bare.lend(None)
    return bare


# ---- a hostile image


@pytest.fixture(scope="module")
def hostile_disk(userland: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a Python, set-uid programs and device nodes."""
    directory = tmp_path_factory.mktemp("hostile")
    root = Path(shutil.copytree(userland, directory / "root", symlinks=True))
    (root / "usr" / "lib").mkdir()
    small.python(root)
    shutil.copy2(root / "usr" / "bin" / "python3", root / "usr" / "bin" / "set-uid")
    (root / "usr" / "bin" / "set-uid").chmod(0o6755)
    os.mknod(root / "opt" / "memory", stat.S_IFCHR | 0o666, os.makedev(1, 1))
    os.mknod(root / "opt" / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.mknod(root / "opt" / "disk", stat.S_IFBLK | 0o666, os.stat(directory).st_dev)
    disk = directory / "disk.raw"
    run("mkfs.ext4", "-q", "-d", root, disk, "160M")
    shutil.rmtree(root)
    return disk


def copy(disk: Path, directory: Path) -> Path:
    """A disk, copied into a directory."""
    run("cp", "--sparse=always", disk, directory / "disk.raw")
    return directory / "disk.raw"


@pytest.fixture(scope="module")
def hostile(hostile_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The image in a sandbox, with what it is lent by default."""
    disk = copy(hostile_disk, tmp_path_factory.mktemp("running"))
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend(None)
        yield sandbox


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    """What the image must neither read nor change; looked at after the test."""
    with watched(tmp_path / "aviary") as canary:
        yield canary
