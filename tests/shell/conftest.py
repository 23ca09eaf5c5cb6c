"""A small disk to have a shell in."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import userland
from tests.sandbox.machine import eventually, loops_below
from tests.typist import azchroot

APPLETS = ("stty", "tty", "sleep", "kill", "seq", "head", "hostname", "env", "dd", "mount", "sync", "true")


@pytest.fixture(scope="session")
def shell_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 with a busybox."""
    directory = tmp_path_factory.mktemp("shell")
    root = directory / "root"
    userland.busybox(root)
    for applet in APPLETS:
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "os-release").write_text("ID=test\n")
    (root / "usr" / "sbin").mkdir()
    (root / "usr" / "sbin" / "service").write_text("#!/bin/sh\necho started\n")
    (root / "usr" / "sbin" / "service").chmod(0o755)
    return userland.disk(root, directory / "web.raw", size="24M")


@pytest.fixture
def web(shell_disk: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it; nothing may be left of the sandboxes around it."""
    path = tmp_path / "web.raw"
    subprocess.run(["cp", "--sparse=always", shell_disk, path], check=True)
    yield path
    assert eventually(lambda: loops_below(tmp_path) == [])


def run(*arguments: str | Path, input: str | None = None, code: int = 0) -> tuple[str, str]:
    """On pipes: standard output and standard error."""
    done = subprocess.run(azchroot("shell", *arguments), input=input or "", capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def digest(path: Path) -> tuple[str, int]:
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns


def read(disk: Path, path: str) -> str:
    return subprocess.run(["debugfs", "-R", f"cat {path}", disk], check=True, capture_output=True, text=True).stdout


def is_clean(disk: Path) -> bool:
    return subprocess.run(["e2fsck", "-f", "-n", disk], capture_output=True, check=False).returncode == 0
