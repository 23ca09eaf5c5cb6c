"""Who waits for a machine does not wait in vain, nor is told nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .machine import TAIL, Machine, NotUpError, started


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Stands for a machine that runs and says what the test writes into its log."""
    with subprocess.Popen(["sleep", "infinity"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize(
    "line",
    [
        "[    2.5] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        "ALERT!  UUID=b6d1 does not exist.  Dropping to a shell!",
        "\x1b[0m(initramfs) ",
        "grub rescue> ",
        "You are in emergency mode. After logging in, type ...",
        "[\x1b[0;1;31mFAILED\x1b[0m] Failed to start \x1b[0;1;39mnginx.service\x1b[0m.",
        "[\x1b[0;1;33mDEPEND\x1b[0m] Dependency failed for \x1b[0;1;39m/srv\x1b[0m.",
    ],
)
def test_a_console_that_tells_of_failure_ends_the_wait(
    process: subprocess.Popen[bytes], tmp_path: Path, line: str
) -> None:
    log = tmp_path / "console.log"
    log.write_text(f"Booting\r\n{line}\r\n")
    with pytest.raises(NotUpError, match=r"the console said .* before a line like 'login:'; the end of its console:\n"):
        Machine(process=process, log=log, port=0).wait_for_line("login:")


def test_message_ends_with_the_end_of_the_console(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_text("".join(f"line {number}\r\n" for number in range(1000)))
    with pytest.raises(NotUpError, match="did not come in 0 s") as raised:
        Machine(process=process, log=log, port=0).wait_for_line("login:", patience=0)
    assert str(raised.value).splitlines()[-TAIL:] == [f"line {number}" for number in range(1000 - TAIL, 1000)]


def test_a_machine_that_ends_ends_the_wait(tmp_path: Path) -> None:
    with subprocess.Popen(["false"]) as process:
        machine = Machine(process=process, log=tmp_path / "console.log", port=0)
        with pytest.raises(NotUpError, match="ended with code 1"):
            machine.wait_for_line("login:")


@pytest.mark.boot
def test_machine_ends_with_its_block(tmp_path: Path) -> None:
    empty = tmp_path / "empty.raw"
    empty.write_bytes(bytes(1 << 20))
    with started(empty, log=tmp_path / "console.log", format="raw") as machine:
        assert machine.process.poll() is None
    assert machine.process.returncode == -9
