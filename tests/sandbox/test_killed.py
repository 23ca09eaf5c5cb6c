"""Whoever is killed, at whatever moment: nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import Sandbox

from .machine import descendants_of, eventually, is_alive, killed_at_last, loops_below, partitions_of

pytestmark = pytest.mark.root

# each stage prints a line when it has been reached and goes on until it is killed
CALLER = """
import sys, time
from pathlib import Path
from pytest_azchroot.sandbox import Sandbox
disk, stage = Path(sys.argv[1]), sys.argv[2]

def reached(name, sandbox):
    if name == stage:
        print(sandbox.device, flush=True)
        if name not in ("outside", "inside", "writing", "unmount", "sealing"):
            time.sleep(1000)

with Sandbox.start(disk, hostname="image") as sandbox:
    reached("started", sandbox)
    reached("outside", sandbox)
    if stage == "outside":
        sandbox.outside("setsid sleep 1000 & sleep 1001")
    sandbox.mount(sandbox.partition(1))
    reached("mounted", sandbox)
    sandbox.lend(None)
    reached("lent", sandbox)
    sandbox.inside("setsid sleep 1000 &")
    reached("daemon", sandbox)
    if stage == "inside":
        sandbox.inside("setsid sleep 1000 & trap '' TERM; echo; while :; do sleep 1; done", output=lambda *_: reached("inside", sandbox))
    if stage == "writing":
        reached("writing", sandbox)
        sandbox.inside("while :; do dd if=/dev/zero of=/opt/x bs=1M count=10 conv=fsync 2>/dev/null; done")
    while stage == "unmount":
        reached("unmount", sandbox)
        sandbox.unmount()
        sandbox.mount(sandbox.partition(1))
        sandbox.lend(None)
    sandbox.overlay()
    reached("covered", sandbox)
    reached("sealing", sandbox)
    sandbox.seal()
    reached("sealed", sandbox)
    while stage == "sealing":
        sandbox.fresh_overlay()
"""
STAGES = [
    "started", "outside", "mounted", "lent", "daemon", "inside", "writing", "unmount", "covered", "sealing", "sealed",
]  # fmt: skip


@pytest.fixture
def mounts_before() -> Iterator[None]:
    """The build machine's mounts must be what they were."""
    before = _mounts()
    yield
    assert {line for line in _mounts() - before if "azchroot" in line} == set()


def _mounts() -> set[str]:
    return set(Path("/proc/self/mountinfo").read_text().splitlines())


@pytest.mark.parametrize("victim", ["caller", "keeper", "holder"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.usefixtures("mounts_before")
def test_nothing_stays(disk: Path, stage: str, victim: str) -> None:
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, disk, stage], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with killed_at_last(caller):
        assert caller.stdout is not None
        device = caller.stdout.readline().strip()
        assert device.startswith("/dev/loop")
        below = descendants_of(caller.pid)
        keeper, holder = below[:2]
        os.kill({"caller": caller.pid, "keeper": keeper, "holder": holder}[victim], signal.SIGKILL)
        assert eventually(lambda: not any(map(is_alive, [keeper, holder, *below])))
    assert eventually(lambda: loops_below(disk.parent) == [])
    assert eventually(lambda: _is_bound(device) or not _partitions(device))  # by now another program may have it


def _is_bound(device: str) -> bool:
    return Path("/sys/block", device.removeprefix("/dev/"), "loop").exists()


def _partitions(device: str) -> list[str]:
    return [*partitions_of(device.removeprefix("/dev/")), *map(str, Path("/dev").glob(f"{Path(device).name}p*"))]


@pytest.mark.parametrize("milliseconds", range(0, 240, 20))
def test_nothing_stays_of_a_seal_killed_half_way(disk: Path, milliseconds: int) -> None:
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, disk, "sealing"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with killed_at_last(caller):
        assert caller.stdout is not None
        caller.stdout.readline()
        below = descendants_of(caller.pid)
        time.sleep(milliseconds / 1000)
    assert eventually(lambda: not any(map(is_alive, below)))
    assert eventually(lambda: loops_below(disk.parent) == [])


def test_an_interrupted_caller_on_a_terminal_leaves_nothing(disk: Path) -> None:
    # Ctrl-C goes to the foreground group; keeper and holder have a session of their own
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, disk, "inside"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with killed_at_last(caller):
        assert caller.stdout is not None
        assert caller.stderr is not None
        assert caller.stdout.readline().startswith("/dev/loop")
        os.killpg(caller.pid, signal.SIGINT)
        _, words = caller.communicate(timeout=60)
    assert "KeyboardInterrupt" in words
    assert "SandboxError" not in words
    assert loops_below(disk.parent) == []


def test_a_dead_sandbox_is_an_error_with_words(disk: Path) -> None:
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(1))
        os.kill(sandbox.holder, signal.SIGKILL)
        with pytest.raises(SandboxError, match="the sandbox has died"):
            sandbox.inside("true")
        with pytest.raises(SandboxError, match="the sandbox has died"):
            sandbox.unmount()
