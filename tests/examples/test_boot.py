"""What the example publishes starts, and does what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .machine import Machine, NotUpError, started

pytestmark = [pytest.mark.root, pytest.mark.boot]


@pytest.fixture(scope="module")
def machine(debian_vhd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with started(debian_vhd, log=tmp_path_factory.mktemp("machine") / "console.log") as machine:
        yield machine


def test_comes_up_to_its_login_prompt(machine: Machine) -> None:
    assert machine.wait_for_line(r"^debian login:")


def test_serves_its_page(machine: Machine) -> None:
    assert machine.wait_for_page("/health") == "ok\n"
    assert "<title>It boots</title>" in machine.wait_for_page("/")


def test_a_disk_that_does_not_start_is_told_with_its_console(tmp_path: Path) -> None:
    # Who waits for a machine must not wait in vain, nor be told nothing.
    empty = tmp_path / "empty.raw"
    with empty.open("wb") as file:
        file.truncate(1 << 20)
    with (
        started(empty, log=tmp_path / "console.log", format="raw") as machine,
        pytest.raises(NotUpError, match="did not come in 3 s; the end of its console"),
    ):
        machine.wait_for_line("login:", patience=3)
    assert machine.process.returncode is not None
