"""Visitors beside the commands of a build: neither ends the other, and the image lets only those in who come from
outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import Sandbox, layout, visiting
from tests.typist import Typist, azchroot, typing

from .machine import eventually, is_alive

pytestmark = pytest.mark.root


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An image's."""
    path = tmp_path / "web"
    path.mkdir()
    (path / "image.yaml").touch()
    return path


@pytest.fixture
def build(disk: Path, directory: Path) -> Iterator[Sandbox]:
    """What a build has: its image mounted, and visitors let in."""
    with Sandbox.start(disk, hostname="web", label=directory) as sandbox:
        sandbox.mount(sandbox.partition(1))
        sandbox.lend(None)
        yield sandbox


@pytest.fixture
def typist(build: Sandbox, directory: Path) -> Iterator[Typist]:
    with typing(azchroot("shell", directory)) as typist:
        typist.wait_for("[web] / # ")
        yield typist


class StopError(Exception):
    """Ends a command from the side of its listener."""


def test_a_command_that_is_ended_takes_no_visitor_along(build: Sandbox, directory: Path) -> None:
    """He came while it ran, so by time and parent he could be one of its daemons."""
    found: list[Typist] = []
    with typing(azchroot("shell", directory)) as typist:

        def hear(stream: str, data: bytes) -> None:
            typist.wait_for("[web] / # ")
            found.append(typist)
            raise StopError

        with pytest.raises(StopError):
            build.inside("setsid sleep 1000 & echo here; sleep 1000", output=hear)
        assert found == [typist]
        assert "sleep" not in typist.run("ps")


def test_a_visitor_who_leaves_takes_no_command_along(build: Sandbox, typist: Typist) -> None:
    build.inside("setsid sleep 1000 &")
    typist.type("exit\n")
    assert typist.end() == 0
    assert [each.command for each in build.survivors()] == ["sleep 1000"]


def test_what_visitors_run_is_no_survivor(build: Sandbox, typist: Typist) -> None:
    typist.run("(setsid sleep 1000 &)")
    assert build.survivors() == ()
    commands = {each.command for each in build.unmount().survivors}
    assert {"sleep 1000", "/bin/sh"} <= commands
    build.close()


def test_a_visitor_without_a_terminal_who_is_killed_leaves_nothing(build: Sandbox, directory: Path) -> None:
    stubborn = ["sh", "-c", "trap '' HUP TERM PIPE; echo here; sleep 1000; sleep 1000"]
    with subprocess.Popen(azchroot("shell", directory, "--", *stubborn), stdout=subprocess.PIPE, text=True) as visitor:
        assert visitor.stdout is not None and visitor.stdout.readline() == "here\n"
        assert "sleep 1000" in build.inside("ps").stdout
        visitor.kill()
    assert eventually(lambda: "sleep 1000" not in build.inside("ps").stdout)
    assert build.survivors() == ()


def test_the_end_of_an_overlay_ends_its_visitors(build: Sandbox, directory: Path) -> None:
    build.overlay()
    with typing(azchroot("shell", directory)) as typist:
        typist.wait_for("an overlay: what you write is dropped")
        typist.wait_for("[web] / # ")
        typist.run("touch /new")
        assert [write.path for write in build.writes()] == ["/new"]
        dropped = threading.Thread(target=build.drop_overlay)
        dropped.start()
        typist.wait_for("azchroot: ended: the build drops the overlay that this was written to")
        dropped.join()
    assert build.survivors() == ()
    with typing(azchroot("shell", directory, "--", "ls", "/new")) as typist:
        typist.wait_for("No such file")


def test_an_overlay_does_not_end_who_is_below_it(build: Sandbox, typist: Typist) -> None:
    build.overlay()
    assert typist.run("echo here") == "here\n"
    build.drop_overlay()
    assert typist.run("echo here") == "here\n"


def test_nobody_enters_while_it_closes(build: Sandbox, directory: Path) -> None:
    [found] = visiting.find(directory)
    with visiting.Visit.begin(found) as before:
        assert before.shut is None
        build.unmount()
        with pytest.raises(SandboxError, match="nobody can enter the image now: the build closes the image"):
            before.ask("enter")
        with visiting.Visit.begin(found) as after:
            assert after.shut == "the build closes the image"


def test_a_busy_build_is_waited_for(build: Sandbox, directory: Path) -> None:
    os.kill(build.holder, signal.SIGSTOP)
    with typing(azchroot("shell", directory, "--", "echo", "here")) as typist:
        typist.wait_for("azchroot: waiting: the build is busy")
        os.kill(build.holder, signal.SIGCONT)
        typist.wait_for("here")
        assert typist.end() == 0


def test_after_the_seal_they_may(build: Sandbox, directory: Path) -> None:
    build.seal()
    with typing(azchroot("shell", directory, "--", "sh", "-c", "echo x >/new; cat /new")) as typist:
        typist.wait_for("x\r\n")
        assert typist.end() == 0
    assert [write.path for write in build.writes()] == ["/new"]


KNOCK = """
import json, socket, sys
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.connect(sys.argv[1])
try:
    door.send(json.dumps({"id": 1, "op": "hello", "arguments": {}}).encode())
    print(door.recv(4096).decode())
except OSError:
    print()
"""


def test_what_runs_in_the_sandbox_is_no_visitor(build: Sandbox) -> None:
    """Else whatever a user's own mounts bring into the image could have a shell without the limits of its user."""
    assert build.outside([sys.executable, "-c", KNOCK, layout.DOOR]).stdout.strip() == ""


def test_nothing_of_it_is_in_the_image(build: Sandbox) -> None:
    names = {Path(layout.DOOR).name, Path(layout.ABOUT).name}
    assert not names & set(build.inside("ls -a / /run").stdout.split())


def test_a_sandbox_without_a_label_is_not_found(sandbox: Sandbox, directory: Path) -> None:
    assert visiting.find(directory) == []
    assert sandbox.inside("true").code == 0


def test_a_stranger_who_talks_nonsense_does_no_harm(build: Sandbox, directory: Path) -> None:
    [found] = visiting.find(directory)
    for words in (b"nonsense", b"[]", json.dumps({"id": 1, "op": "enter", "arguments": {}}).encode(), b"@", b""):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.connect(f"/proc/{found.holder}/root{layout.DOOR}")
            door.send(words)
    assert build.inside("echo here").stdout == "here\n"


def test_a_visitor_ends_with_the_build(disk: Path, directory: Path) -> None:
    with Sandbox.start(disk, hostname="web", label=directory) as sandbox:
        sandbox.mount(sandbox.partition(1))
        sandbox.lend(None)
        with typing(azchroot("shell", directory)) as typist:
            typist.wait_for("[web] / # ")
            sandbox.abort()
            typist.wait_for("the build has ended")
            assert typist.end() == 1
    assert eventually(lambda: not is_alive(typist.pid))
