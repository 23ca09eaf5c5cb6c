"""azure-cli against the emulator: collected where it is installed, which `make clients` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator.azure import CLIENT, KEY, OTHER_USER, REGISTERED, SECRET, pem
from tests.emulator.conftest import MARK, MARK_AT, loops_below, platform_file

from .cli import AZ, Cli, serving

__all__ = ["platform_file"]

URN = "Debian:debian-12:12-gen2:0.20250101.1"
OLDER = "Debian:debian-12:12-gen2:0.20241201.9"

collect_ignore_glob = [] if AZ.exists() else ["test_*.py"]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the application, with its key."""
    path = tmp_path_factory.mktemp("certificate") / "application.pem"
    path.write_bytes(pem(KEY, REGISTERED))
    return path


@pytest.fixture(scope="session")
def az(tmp_path_factory: pytest.TempPathFactory, platform_file: Path, certificate: Path) -> Iterator[Cli]:
    """Logged in as the machine, which can have two disks. All tests share its emulator, each has names of its own."""
    assert AZ.exists(), "azure-cli is not installed: make azure-cli"
    directory = tmp_path_factory.mktemp("azure-cli")
    options = (
        *("--image", f"{URN}={platform_file}", "--image", f"{OLDER}={platform_file}"),
        *("--application", f"{CLIENT}={SECRET}", "--certificate", f"{CLIENT}={certificate}"),
        *("--identity", f"builder={OTHER_USER.client_id}", "--vm-size", "Standard_B1s"),
        *(
            "--retry-after",
            "1",
        ),  # on a busy machine something may not have ended at the first poll; the next is in 30 s
    )
    with serving(directory / "azure", *options) as told:
        cli = Cli(told, directory)
        cli("login --identity")
        yield cli
    assert loops_below(directory) == []


def marked(path: Path) -> bool:
    """Whether a disk's file has the mark of the platform image."""
    with path.open("rb") as file:
        file.seek(MARK_AT)
        return file.read(len(MARK)) == MARK
