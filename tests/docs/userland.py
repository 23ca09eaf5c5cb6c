"""Small disks to start from, made of what the build machine has, without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

APPLETS = (
    "cat", "chmod", "chown", "chroot", "cp", "echo", "grep", "id", "ln", "ls", "mkdir", "mv", "ps", "readlink", "rm",
    "sh", "sleep", "stat", "test", "touch", "uname",
)  # fmt: skip

PYTHON = Path("/usr/bin/python3")
"""Debian's own, which its Ansible needs anyway."""


def busybox(root: Path) -> None:
    """A userland of one program."""
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/lib", "var/log"):
        (root / name).mkdir(parents=True, exist_ok=True)
    found = shutil.which("busybox")
    assert found, "busybox is not installed: apt-get install busybox-static"
    shutil.copy(found, root / "bin" / "busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")


def python(root: Path) -> None:
    """A Python, with the libraries that it and its modules are linked to."""
    program = PYTHON.resolve()
    shutil.copy(program, root / "usr" / "bin" / "python3")
    modules = Path("/usr/lib") / program.name
    unneeded = shutil.ignore_patterns("__pycache__", "test", "tests", "config-*", "lib2to3", "idlelib", "pydoc_data")
    shutil.copytree(modules, root / "usr" / "lib" / program.name, symlinks=False, ignore=unneeded)
    for library in set(_libraries([program, *modules.glob("lib-dynload/*.so")])):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


def _libraries(programs: list[Path]) -> Iterator[str]:
    done = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    yield from re.findall(r"(/\S+) \(0x", done.stdout)


def disk(root: Path, path: Path, *, size: str) -> Path:
    """An ext4 on a whole disk that holds a directory, owned by root; qcow2 or raw as its name says."""
    raw = path.with_suffix(".raw")
    subprocess.run(["mkfs.ext4", "-q", "-d", root, raw, size], check=True, capture_output=True)
    if path.suffix == ".qcow2":
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
        raw.unlink()
    return path
