"""The tracer, with small programs in place of builds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .stages import BEFORE
from .subject import REPOSITORY

pytestmark = pytest.mark.root


def run(directory: Path, moment: str | None, *command: str, patience: str = "30") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.tracer", moment or "-", str(directory), *command],
        cwd=REPOSITORY,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "AZCHROOT_KILL_PATIENCE": patience},
        check=True,
        capture_output=True,
        text=True,
    )
    report: dict[str, Any] = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    return report


def script(text: str) -> list[str]:
    return ["busybox", "sh", "-c", text]


def test_it_writes_down_who_does_what(tmp_path: Path) -> None:
    report = run(tmp_path, None, *script("echo x >a; busybox mkdir b; true"))
    assert report["code"] == 0
    assert [BEFORE, "caller", "openat(create)"] in report["rows"]
    assert [BEFORE, "tool", "mkdir"] in report["rows"]
    assert report["made"] == [f"{tmp_path}/a", f"{tmp_path}/b"]
    assert (report["reached"], report["left"]) == (False, [])


@pytest.mark.parametrize(("when", "exists"), [("before", False), ("after", True)])
def test_it_kills_before_a_call_and_after_it(tmp_path: Path, when: str, exists: bool) -> None:
    moment = f"caller:{BEFORE}:{when}:caller:openat(create):2"
    report = run(tmp_path, moment, *script("echo x >a; echo x >b; echo x >c"))
    assert (report["reached"], report["died"], report["code"]) == (True, True, -9)
    assert (tmp_path / "a").exists()
    assert (tmp_path / "b").exists() is exists
    assert not (tmp_path / "c").exists()


def test_it_kills_who_waits(tmp_path: Path) -> None:
    report = run(tmp_path, f"caller:{BEFORE}:during:caller:wait4:1", *script("busybox sleep 1; echo x >a"))
    assert (report["died"], report["code"]) == (True, -9)
    assert not (tmp_path / "a").exists()


def test_it_kills_another_than_the_one_that_calls(tmp_path: Path) -> None:
    report = run(tmp_path, f"caller:{BEFORE}:before:tool:mkdir:1", *script("busybox mkdir a; echo x >b"))
    assert (report["died"], report["code"]) == (True, -9)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_it_kills_a_tool_that_the_caller_outlives(tmp_path: Path) -> None:
    report = run(tmp_path, f"tool:{BEFORE}:before:tool:mkdir:1", *script("busybox mkdir a; echo x >b"))
    assert (report["died"], report["code"]) == (True, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_moment_that_does_not_come_is_said(tmp_path: Path) -> None:
    report = run(tmp_path, f"caller:{BEFORE}:after:caller:mount:1", *script("true"))
    assert (report["reached"], report["died"], report["code"]) == (False, False, 0)


def test_it_waits_for_orphans(tmp_path: Path) -> None:
    report = run(tmp_path, None, *script("(busybox setsid busybox sh -c 'busybox sleep 1; echo x >a') &"))
    assert (tmp_path / "a").exists()
    assert report["left"] == []


def test_what_does_not_end_is_named_and_ended(tmp_path: Path) -> None:
    seconds = 1000000 + os.getpid()
    report = run(tmp_path, None, *script(f"busybox setsid busybox sleep {seconds} & true"), patience="2")
    assert report["code"] == 0
    assert report["left"] == [f"tool busybox sleep {seconds}"]
    assert f"{seconds}" not in subprocess.run(["busybox", "ps"], check=True, capture_output=True, text=True).stdout


def test_stages_are_the_callers_own_words(tmp_path: Path) -> None:
    mark = "import os; os.access('/azchroot-campaign/seal', 0); os.mkdir('a')"
    report = run(tmp_path, None, sys.executable, "-I", "-S", "-c", mark)
    assert any(row == ["seal", "caller", "mkdir"] for row in report["rows"])
