"""The example images, built as their reader would build them: once for all tests here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "example_images"


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples without what was built there before, so that a build leaves nothing in the tree."""
    copy = tmp_path_factory.mktemp("build") / EXAMPLES.name
    outputs = shutil.ignore_patterns("*.vhd", "*.partial", "__pycache__", ".pytest_cache")
    return Path(shutil.copytree(EXAMPLES, copy, ignore=outputs))


@pytest.fixture(scope="session")
def debian_vhd(examples: Path) -> Path:
    """The disk of example_images/debian."""
    return build(examples / "debian") / "debian.vhd"


@pytest.fixture(scope="session")
def customized_vhd(examples: Path, debian_vhd: Path) -> Path:
    """The disk of example_images/customize, which starts from the other one's."""
    assert debian_vhd.exists()
    return build(examples / "customize") / "customized.vhd"


def build(image: Path) -> Path:
    """Build an image in a pytest of its own, and return its directory."""
    # -p no:…: plugins of this project's test environment that a reader has no reason to have.
    command = [sys.executable, "-m", "pytest", f"--rootdir={image}", "-p", "no:cacheprovider", "-rA", str(image)]
    run = subprocess.run(command, cwd=image, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {run.returncode}\n{run.stdout}\n{run.stderr}", pytrace=False)
    return image
