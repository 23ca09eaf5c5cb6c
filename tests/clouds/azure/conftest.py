"""Every test here has an emulator of its own, and nothing else of Azure can be reached."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.clouds.azure import shared
from pytest_azchroot.emulator.pytest_plugin import (
    azure_emulator,
    azure_emulator_accounts,
    azure_emulator_images,
    azure_emulator_isolation,
    azure_emulator_settings,
)

from .workshop import URN, VERSIONS, AzureWorkshop, make_base

# pytest finds them here; a test module that defines one of its own overrides it
__all__ = [
    "azure_emulator",
    "azure_emulator_accounts",
    "azure_emulator_images",
    "azure_emulator_isolation",
    "azure_emulator_settings",
]


@pytest.fixture(scope="session")
def tiny_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that commands run in."""
    return make_base(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def azure_workshop(
    pytester: pytest.Pytester,
    tiny_disk: Path,
    azure_emulator_images: dict[str, Path],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AzureWorkshop:
    """Suites for Azure, an emulator with a platform image of two versions, and journals of their own."""
    azure_emulator_images.update({f"{URN}:{version}": tiny_disk for version in VERSIONS})
    state = pytester.path / "state"
    monkeypatch.setenv("AZCHROOT_STATE_DIR", str(state))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return AzureWorkshop(pytester, request.getfixturevalue("azure_emulator"), state)


@pytest.fixture(autouse=True)
def _nothing_stays_of_the_machine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where the builds of a host agree there is a directory for each machine; a machine of a test is gone after it."""
    if "azure_workshop" in request.fixturenames:
        emulator = request.getfixturevalue("azure_workshop").azure
    elif "azure_emulator" in request.fixturenames:
        emulator = request.getfixturevalue("azure_emulator")
    else:
        yield
        return
    yield
    shutil.rmtree(shared.home() / f"vm-{emulator.settings.vm_id}", ignore_errors=True)
