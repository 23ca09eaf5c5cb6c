"""A small image whose userland is a static busybox, and a sandbox around it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.sandbox import Sandbox

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
