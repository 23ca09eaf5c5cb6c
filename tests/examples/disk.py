"""A published disk, read from outside: no mount, no privilege."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

SECTOR = 512


def information(vhd: Path) -> dict[str, object]:
    """What ``qemu-img info`` says of a VHD."""
    return dict(json.loads(_output("qemu-img", "info", "--format=vpc", "--output=json", str(vhd))))


def root_partition(vhd: Path) -> str:
    """The partition that holds the root file system, as e2fsprogs name a part of a file.

    A fixed VHD is the bare disk with a footer behind it, so that tools for bare disks can read it.
    """
    table = json.loads(_output("sfdisk", "--json", str(vhd)))["partitiontable"]["partitions"]
    (root,) = [partition for partition in table if partition.get("name") == "root"]
    return f"{vhd}?offset={root['start'] * SECTOR}"


def check(file_system: str) -> str:
    """Check a file system without changing it.

    :raises AssertionError: it is not clean.
    """
    run = subprocess.run(["e2fsck", "-f", "-n", file_system], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def state(file_system: str) -> str:
    """How the file system was left: ``clean`` where it was unmounted."""
    found = re.search(r"^Filesystem state:\s+(.*)$", _output("dumpe2fs", "-h", file_system), re.MULTILINE)
    assert found is not None
    return found.group(1)


def read(file_system: str, path: str) -> str:
    """The text of a file.

    :raises AssertionError: there is none.
    """
    run = subprocess.run(["debugfs", "-R", f"cat {path}", file_system], capture_output=True, text=True, check=False)
    # debugfs ends with 0 in any case, and says what it is on stderr in any case.
    assert "File not found" not in run.stderr, run.stderr
    assert run.returncode == 0, run.stderr
    return run.stdout


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
