"""The package's face: its public names, its weight, its metadata."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import pytest_azchroot


@pytest.mark.parametrize("name", pytest_azchroot.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(pytest_azchroot, name).__doc__


def test_every_public_name_is_listed() -> None:
    assert sorted(pytest_azchroot._HOME) == sorted(pytest_azchroot.__all__)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Floppy'"):
        _ = pytest_azchroot.Floppy


@pytest.mark.parametrize("module", ["pytest_azchroot", "pytest_azchroot.sandbox"])
def test_it_is_light(module: str) -> None:
    """The keeper imports it without site-packages."""
    code = f"import sys; sys.path.append({str(Path(pytest_azchroot.__file__).parents[1])!r}); import {module}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_versions_agree() -> None:
    assert version("pytest-azchroot") == pytest_azchroot.__version__


def test_types_are_shipped() -> None:
    assert (Path(pytest_azchroot.__file__).parent / "py.typed").is_file()


def test_pytest_and_the_shell_find_it() -> None:
    assert [point.value for point in entry_points(group="pytest11", name="azchroot")] == ["pytest_azchroot.plugin"]
    assert [point.value for point in entry_points(group="console_scripts", name="azchroot")] == [
        "pytest_azchroot.cli:main"
    ]
