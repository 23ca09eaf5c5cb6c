"""The example images, built as their reader would build them: once for all tests here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "example_images"


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the examples without what was built there before, so that a build leaves nothing in the tree."""
    directory = tmp_path_factory.mktemp("build")
    outputs = shutil.ignore_patterns("*.vhd", "*.partial", "__pycache__", ".pytest_cache")
    yield Path(shutil.copytree(EXAMPLES, directory / EXAMPLES.name, ignore=outputs))
    shutil.rmtree(directory)  # pytest would keep these gigabytes of the last three runs


@pytest.fixture(scope="session")
def debian_vhd(examples: Path) -> Path:
    """The disk of example_images/debian."""
    return build(examples / "debian") / "debian.vhd"


@pytest.fixture(scope="session")
def customized_vhd(examples: Path, debian_vhd: Path) -> Path:
    """The disk of example_images/customize, which starts from the other one's."""
    assert debian_vhd.parent == examples / "debian"
    return build(examples / "customize") / "customized.vhd"


def build(image: Path) -> Path:
    """Build an image in a pytest of its own, and return its directory."""
    command = [sys.executable, "-m", "pytest", f"--rootdir={image}", "-p", "no:cacheprovider", "-rA", str(image)]
    # PYTEST_ADDOPTS and the like are meant for the tests of the project.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(
        command,
        cwd=image,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {run.returncode}\n{run.stdout}", pytrace=False)
    return image
