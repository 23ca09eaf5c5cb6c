"""``azchroot shell FILE`` on a terminal, and how it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.machine import descendants_of, eventually, is_alive
from tests.typist import Typist, azchroot, typing

from .conftest import is_clean, read

pytestmark = pytest.mark.root


@pytest.fixture
def typist(web: Path) -> Iterator[Typist]:
    """Somebody in the shell."""
    with typing(azchroot("shell", web)) as typist:
        typist.wait_for("[web] / # ")
        yield typist


def test_a_terminal(typist: Typist, web: Path) -> None:
    assert f"{web}, read-only: what you write is dropped" in typist.seen and "exit, or Ctrl-D" in typist.seen
    assert typist.run("tty; echo $TERM; hostname; echo $0") == "/dev/pts/0\nvt100\nweb\n/bin/sh\n"


def test_its_size_and_changes_of_it(typist: Typist) -> None:
    assert typist.run("stty size") == "24 80\n"
    typist.resize(50, 132)
    assert eventually(lambda: typist.run("stty size") == "50 132\n")


def sleep(typist: Typist) -> None:
    """Start something that lasts, and wait until it runs."""
    typist.type("""sh -c 'echo sleep""ing; exec sleep 1000'\n""")
    typist.wait_for("sleeping\r\n")


def test_control_c_goes_to_the_command(typist: Typist) -> None:
    sleep(typist)
    typist.type("\x03")
    typist.wait_for("# ")
    assert typist.run("echo $?") == "130\n"


def test_job_control(typist: Typist) -> None:
    sleep(typist)
    typist.type("\x1a")
    typist.wait_for("# ")
    assert "Stopped" in typist.run("jobs")


def test_its_exit_code_and_the_modes_of_the_terminal(web: Path) -> None:
    with typing(azchroot("shell", web)) as typist:
        before = typist.modes()
        typist.wait_for("# ")
        assert typist.is_raw()
        typist.type("exit 7\n")
        assert typist.end() == 7
        assert typist.modes() == before


def test_control_d_leaves(typist: Typist) -> None:
    typist.type("\x04")
    assert typist.end() == 0


def test_a_command_on_a_terminal(web: Path) -> None:
    with typing(azchroot("shell", web, "--", "sh", "-c", "tty; exit 2")) as typist:
        assert typist.wait_for("/dev/pts/0") == ""
        assert typist.end() == 2


@pytest.mark.parametrize("victim", ["SIGTERM", "SIGHUP", "holder", "keeper"])
def test_the_terminal_is_itself_again_however_it_ends(web: Path, victim: str) -> None:
    with typing(azchroot("shell", web)) as typist:
        before = typist.modes()
        typist.wait_for("# ")
        below = descendants_of(typist.pid)
        keeper, holder, *_ = below
        if victim.startswith("SIG"):
            number = getattr(signal, victim)
            os.kill(typist.pid, number)
        else:
            os.kill(holder if victim == "holder" else keeper, signal.SIGKILL)
        assert typist.end() == (128 + number if victim.startswith("SIG") else 1)
        assert typist.modes() == before
        assert not any(map(is_alive, below))
        assert victim.startswith("SIG") or "the sandbox has died" in typist.seen


@pytest.mark.parametrize("write", [False, True])
def test_kill_9_leaves_nothing(web: Path, write: bool) -> None:
    with typing(azchroot("shell", web, *(["--write"] if write else []))) as typist:
        typist.wait_for("# ")
        typist.type("(trap '' HUP TERM; sleep 1000) &\n")
        typist.wait_for("# ")
        below = descendants_of(typist.pid)
        os.kill(typist.pid, signal.SIGKILL)
        assert typist.end() == -9
    assert eventually(lambda: not any(map(is_alive, below)))


def test_a_terminal_that_is_closed_ends_it(web: Path) -> None:
    with typing(azchroot("shell", web)) as typist:
        typist.wait_for("# ")
        below = descendants_of(typist.pid)
        typist.hang_up()
        assert eventually(lambda: not any(map(is_alive, [*below, typist.pid])))


def test_control_c_while_it_starts(web: Path) -> None:
    """At moments from the first import on; the terminal is not raw then, so it is a signal."""
    for number in range(8):
        with typing(azchroot("shell", web)) as typist:
            before = typist.modes()
            assert eventually(lambda: len(descendants_of(typist.pid)) > number % 4)  # noqa: B023
            typist.type("\x03")
            if typist.is_raw():
                typist.type("exit 130\n")
            assert typist.end() in {130, 0, -2}
            assert typist.modes() == before


def test_changing_on_a_terminal(web: Path) -> None:
    with typing(azchroot("shell", "--write", web)) as typist:
        typist.wait_for("writable: what you write changes the file")
        typist.wait_for("# ")
        typist.run("echo new >/etc/new")
        typist.type("exit\n")
        typist.wait_for("is closed; checked: ")
        assert typist.end() == 0
    assert read(web, "/etc/new") == "new\n" and is_clean(web)
