"""A sandbox that is started before there is a disk for it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_azchroot.errors import DiskError
from pytest_azchroot.sandbox import Sandbox
from pytest_azchroot.sandbox.starting import Starting

pytestmark = pytest.mark.root

_PATIENCE = 10.0


def holder_of(keeper: int) -> int:
    """The holder's PID, once it is there."""
    children = Path(f"/proc/{keeper}/task/{keeper}/children")
    deadline = time.monotonic() + _PATIENCE
    while not (found := children.read_text(encoding="ascii").split()):
        assert time.monotonic() < deadline, "there is no holder"
        time.sleep(0.01)
    return int(found[0])


def assert_ends(*pidfds: int) -> None:
    """The processes end, and the descriptors are closed."""
    for each in pidfds:
        assert select.select([each], [], [], _PATIENCE)[0], "it lives on"
        os.close(each)


def test_who_gets_no_disk_is_ended() -> None:
    starting = Starting()
    holder = os.pidfd_open(holder_of(starting.pid))
    starting.end()
    starting.end()
    assert_ends(holder)


def test_it_dies_with_its_caller() -> None:
    start = "from pytest_azchroot.sandbox.starting import Starting; print(Starting().pid, flush=True)"
    code = f"import time; {start}; time.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        keeper = int(caller.stdout.readline())
        watched = os.pidfd_open(keeper), os.pidfd_open(holder_of(keeper))
        caller.send_signal(signal.SIGKILL)
    assert_ends(*watched)


def test_it_becomes_the_sandbox_of_the_disk(disk: Path) -> None:
    starting = Starting()
    with Sandbox.start(disk, hostname="early", starting=starting) as sandbox:
        assert sandbox.keeper == starting.pid
        sandbox.close()
    starting.end()


def test_a_disk_that_is_not_there_ends_it(tmp_path: Path) -> None:
    starting = Starting()
    holder = os.pidfd_open(holder_of(starting.pid))
    with pytest.raises(DiskError), Sandbox.start(tmp_path / "none", hostname="early", starting=starting):
        pass
    assert_ends(holder)
