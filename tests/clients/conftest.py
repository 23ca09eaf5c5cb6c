"""Clients that nobody here wrote, unmodified, against the emulator."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .image import make_platform_image, make_userland

collect_ignore = [] if os.environ.get("AZCHROOT_ALL_CLIENTS") else ["test_packer_slow.py"]
"""What takes minutes, for it waits as long as Packer does."""


@pytest.fixture(scope="session")
def userland(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a busybox and little else: the root of a small image."""
    return make_userland(tmp_path_factory.mktemp("clients") / "userland")


@pytest.fixture(scope="session")
def platform_image(userland: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with one partition, that userland in it."""
    return make_platform_image(tmp_path_factory.mktemp("platform") / "debian.raw", userland)
