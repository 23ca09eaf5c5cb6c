"""The payload digest of a block device is that of its bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_azchroot.disk import loop
from pytest_azchroot.disk.digest import digest, digest_of

pytestmark = pytest.mark.root

MIB = 1024**2


def test_a_device_has_the_digest_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"a" * 70_000 + bytes(MIB) + b"z")
    os.truncate(file, 4 * MIB)
    device = loop.open_disk(file, opener=lambda name, _, flags: os.open(f"/dev/{name}", flags))
    try:
        assert digest(device.descriptor, size=4 * MIB) == digest_of(file)
    finally:
        os.close(device.descriptor)
