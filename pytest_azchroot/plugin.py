"""The pytest hooks of pytest-azchroot: they wire, and nothing more.

What leads images through a session is loaded when the first one is found: a suite without images pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_azchroot import hookspecs
from pytest_azchroot.selection import CONFIG_NAME
from pytest_azchroot.settings import Settings, add_options

if TYPE_CHECKING:
    from pytest_azchroot.clouds import Cloud
    from pytest_azchroot.clouds.azure.cloud import AzureCloud

# ruff: noqa: PLC0415  imports inside functions are what this module is for

SETTINGS = pytest.StashKey[Settings]()
AZURE: pytest.StashKey[AzureCloud] = pytest.StashKey()
"""One for all images: they share its journal, and what it knows of the machine."""


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_azchroot_clouds(config: pytest.Config) -> Iterable[Cloud]:
    from pytest_azchroot.clouds.azure.cloud import AzureCloud
    from pytest_azchroot.clouds.local import LocalCloud

    if AZURE not in config.stash:
        config.stash[AZURE] = AzureCloud()
        config.add_cleanup(config.stash[AZURE].close)
    return [LocalCloud(), config.stash[AZURE]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "provision: this test is a step: it changes the image. Steps run in written order; if one fails, the rest of "
        "its image is skipped. Unmarked tests of an image are checks.",
    )
    config.stash[SETTINGS] = Settings.of(config)


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if not (path / CONFIG_NAME).is_file():
        return None
    from pytest_azchroot.loading import uncollected

    with uncollected():
        from pytest_azchroot.collector import ImageDirectory
        from pytest_azchroot.conductor import Conductor

    Conductor.register(parent.config, parent.config.stash[SETTINGS])
    return ImageDirectory.from_parent(parent, path=path)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Before testinfra parametrizes its own host, which below an image would be the build machine."""
    if "_testinfra_host" not in metafunc.fixturenames:
        return
    test = metafunc.definition
    image = next((path for path in test.path.parents if (path / CONFIG_NAME).is_file()), None)
    if image is None:
        return
    from pytest_azchroot.collector import directory_of
    from pytest_azchroot.fixtures import WRONG_HOST

    if directory_of(test):
        raise pytest.Collector.CollectError(f"{test.nodeid}: {WRONG_HOST}")
    # Where a conftest directory, a rootdir or a package begins below the image, pytest does not look at the image.
    raise pytest.Collector.CollectError(
        f"{test.nodeid}: the image in {image} was left out of the collection, so `host` would be the build machine\n"
        f"hint: run pytest on {image}, with no --confcutdir, --rootdir, --pyargs or ini file that begins below it"
    )
