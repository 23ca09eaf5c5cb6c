"""Visitors beside the commands of a build: neither ends the other, and the image lets only those in who come from
outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import Sandbox, layout, visiting
from tests.typist import Typist, azchroot, typing

from .machine import descendants_of, eventually, is_alive, joined, killed_at_last

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
    assert eventually(lambda: "sleep 1000" in typist.run("ps"))  # not still the shell that becomes it
    assert build.survivors() == ()
    commands = {each.command for each in build.unmount().survivors}
    assert {"sleep 1000", "/bin/sh"} <= commands
    build.close()


def test_a_visitor_without_a_terminal_who_is_killed_leaves_nothing(build: Sandbox, directory: Path) -> None:
    stubborn = ["sh", "-c", "trap '' HUP TERM PIPE; echo here; sleep 1000; sleep 1000"]
    visitor = subprocess.Popen(azchroot("shell", directory, "--", *stubborn), stdout=subprocess.PIPE, text=True)
    with killed_at_last(visitor):
        assert visitor.stdout is not None and visitor.stdout.readline() == "here\n"
        assert "sleep 1000" in build.inside("ps").stdout
    assert eventually(lambda: "sleep 1000" not in build.inside("ps").stdout)
    assert build.survivors() == ()


def test_the_end_of_an_overlay_ends_its_visitors(build: Sandbox, directory: Path) -> None:
    build.overlay()
    with typing(azchroot("shell", directory)) as typist:
        typist.wait_for("an overlay: what you write is dropped")
        typist.wait_for("[web] / # ")
        typist.run("touch /new")
        assert [write.path for write in build.writes()] == ["/new"]
        dropped = threading.Thread(target=build.drop_overlay, daemon=True)
        dropped.start()
        typist.wait_for("azchroot: ended: the build drops the overlay that this was written to")
        joined(dropped)
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


@pytest.mark.parametrize("terminal", [True, False])
def test_what_the_image_kills_and_what_goes_on_writing_keeps_no_visitor(
    build: Sandbox, directory: Path, terminal: bool
) -> None:
    """It kills what would end it, and fills his terminal for ever."""
    command = azchroot("shell", directory, "--", "sh", "-c", "kill -KILL $PPID; yes")
    if terminal:
        with typing(command) as typist:
            typist.wait_for("what became of the command is not known: what sees to its end was killed by SIGKILL")
            assert typist.end() == 1
    else:
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, "was killed by SIGKILL" in done.stderr) == (1, True)
    build.end(build.survivors())


IMPOSTOR = """
import ctypes, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def called(name):
    assert libc.prctl(15, name, 0, 0, 0) == 0
def must(result):
    assert result == 0, os.strerror(ctypes.get_errno())
root, label, user = sys.argv[1:]
called(b"azchroot-keeper")
if user == "0":
    must(libc.unshare(0x20000 | 0x20000000))  # CLONE_NEWNS, CLONE_NEWPID
else:
    os.setuid(int(user))
    must(libc.prctl(4, 1, 0, 0, 0))  # PR_SET_DUMPABLE, or /proc/self is root's
    must(libc.unshare(0x10000000 | 0x20000 | 0x20000000))  # and CLONE_NEWUSER
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write(f"0 {user} 1")
if os.fork() == 0:
    called(b"azchroot-holder")
    must(libc.chroot(root.encode()))
    os.chdir("/")
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind("/run/azchroot/door")
    door.listen()
    with open("/run/azchroot/about", "w") as file:
        json.dump({"directory": label}, file)
    print("ready", flush=True)
    door.accept()
os.wait()
"""


def _impostor(directory: Path, root: Path, user: int) -> list[str]:
    place = root / layout.DOOR.lstrip("/")
    place.parent.mkdir(parents=True)
    for each in (root, *place.parents):
        if each.is_relative_to(root):
            os.chown(each, user, user)
    source = IMPOSTOR.replace("/run/azchroot/door", layout.DOOR).replace("/run/azchroot/about", layout.ABOUT)
    return ["/usr/bin/python3", "-c", source, str(root), str(directory), str(user)]


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        below: list[int] = []
        try:
            assert process.stdout is not None and process.stderr is not None
            if process.stdout.readline() != "ready\n":
                pytest.skip(f"no such impostor can be here: {process.stderr.read()[-200:]}")
            below = descendants_of(process.pid)
            yield process
        finally:
            for each in (*below, process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)


def test_a_user_of_the_machine_is_no_build(directory: Path) -> None:
    """He makes what looks like a sandbox in a user namespace, to read what root types into it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as root:
        os.chmod(root, 0o755)
        with _running(_impostor(directory, Path(root) / "root", 65534)):
            assert visiting.find(directory) == []


def test_a_container_is_no_build(directory: Path, tmp_path: Path) -> None:
    """Its root is root's namesake; what started it is no keeper."""
    command = _impostor(directory, tmp_path / "root", 0)
    command[2] = command[2].replace('called(b"azchroot-keeper")\n', "")
    with _running(command):
        assert visiting.find(directory) == []


def test_what_runs_in_an_image_is_no_build(build: Sandbox, directory: Path, tmp_path: Path) -> None:
    """With capabilities that let it make namespaces: its processes descend from a holder."""
    command = _impostor(directory, tmp_path / "root", 0)
    began = threading.Event()
    impostor = threading.Thread(
        target=lambda: build.outside(
            command, check=False, output=lambda _, data: began.set() if data == b"ready\n" else None
        ),
        daemon=True,
    )
    impostor.start()
    assert began.wait(30)
    [found] = visiting.find(directory)
    assert found.holder == build.holder
    for each in descendants_of(build.holder):
        os.kill(each, signal.SIGKILL)
    joined(impostor)
