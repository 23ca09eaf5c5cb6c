"""A tool never outlives the one who runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_azchroot.disk import child

from .conftest import wait_for_end

PARENT = """
from pytest_azchroot.disk import child
child.run(["sh", "-c", "echo $$; exec sleep 1000"], hear=lambda piece: print(piece.decode(), end="", flush=True))
"""


def test_output_errors_and_code_are_kept_apart() -> None:
    done = child.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


def test_a_missing_tool_is_named() -> None:
    done = child.run(["/no/such/tool"])
    assert done.returncode != 0
    assert done.stderr == b"/no/such/tool: No such file or directory\n"


def test_it_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    assert b"A_SECRET" not in child.run(["env"]).stdout


def test_it_ends_on_an_exception() -> None:
    seen: list[int] = []

    def hear(piece: bytes) -> None:
        seen.append(int(piece))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.run(["sh", "-c", "echo $$; exec sleep 1000"], hear=hear)
    assert not Path(f"/proc/{seen[0]}").exists()


def test_it_ends_when_we_are_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_for_end(pid)
