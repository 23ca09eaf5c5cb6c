"""`pytest example_images/customize` starts from the other example's disk, and leaves that as it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from . import disk

pytestmark = pytest.mark.root


def test_adds_to_its_source(customized_vhd: Path) -> None:
    root = disk.root_partition(customized_vhd)
    disk.check(root)
    assert disk.read(root, "/etc/fstab").startswith("LABEL=debian-root ")
    assert "<title>Customized</title>" in disk.read(root, "/srv/www/index.html")


def test_source_stays_as_it_was(customized_vhd: Path, debian_vhd: Path) -> None:
    assert "<title>It boots</title>" in disk.read(disk.root_partition(debian_vhd), "/srv/www/index.html")
    compared = subprocess.run(["cmp", "--silent", str(debian_vhd), str(customized_vhd)], check=False)
    assert compared.returncode == 1
