"""What the example publishes starts, and does what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .machine import Machine, started

pytestmark = [pytest.mark.root, pytest.mark.boot]


@pytest.fixture(scope="module")
def machine(debian_vhd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with started(debian_vhd, log=tmp_path_factory.mktemp("machine") / "console.log") as machine:
        yield machine


def test_comes_up_to_its_login_prompt(machine: Machine) -> None:
    machine.wait_for_line(r"^debian login:")


def test_serves_its_page(machine: Machine) -> None:
    assert machine.wait_for_page("/health") == "ok\n"
    assert "<title>It boots</title>" in machine.wait_for_page("/")
