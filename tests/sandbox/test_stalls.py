"""Processes in the image do not hold up who builds it: what waits for a task in the image comes to an end, and nothing
that was not done is taken for done."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import CommandError, Confinement, Sandbox, starting
from tests.typist import azchroot, typing

from . import attacks
from .conftest import copy
from .machine import eventually

pytestmark = pytest.mark.root


def patched(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run code in the keeper, before it makes the holder."""
    monkeypatch.setattr(starting, "_BOOTSTRAP", starting._BOOTSTRAP.replace("main()", f"exec({code!r}); main()"))


def start(sandbox: Sandbox, source: str, *arguments: str) -> None:
    """Run an attack in the background, until it says that it has begun."""
    sandbox.write("/opt/attack", attacks.program(source).encode())
    sandbox.inside(f"setsid python3 /opt/attack '' {' '.join(arguments)} >/dev/null 2>/opt/errors &")
    assert eventually(lambda: sandbox.inside("test -e /opt/begun", check=False).code == 0)


@pytest.fixture
def attacked(hostile_disk: Path, tmp_path: Path) -> Iterator[Sandbox]:
    """An image with a Python, mounted."""
    with Sandbox.start(copy(hostile_disk, tmp_path), hostname="image", label=tmp_path) as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend(None)
        yield sandbox


@pytest.mark.parametrize("depth", [450, 10])
def test_a_link_into_the_depth(sandbox: Sandbox, depth: int) -> None:
    """What has to be made for it to lead somewhere is a list of some megabytes."""
    path = "/opt" + "/d" * depth * 4
    sandbox.inside(f"ln -s /opt{'/d' * depth} /opt/1")
    for number in (2, 3, 4):  # a link alone cannot be as long on this file system
        sandbox.inside(f"ln -s {number - 1}{'/d' * depth} /opt/{number}")
    sandbox.inside("ln -s 4 /opt/deep")
    sandbox.lend([("tmpfs", "tmpfs", "/opt/deep")], resolv_conf="image")
    sandbox.write(f"{path}/file", b"here")
    sandbox.unmount()
    sandbox.close()


def test_a_task_that_is_stopped_goes_on(attacked: Sandbox, tmp_path: Path) -> None:
    start(attacked, attacks.STOP_ONCE, str(tmp_path))
    (tmp_path / "lent").write_bytes(bytes(1 << 20))
    for _ in range(20):
        attacked.copy_files([str(tmp_path / "lent")])  # the holder itself waits for this one
        attacked.ask("give_back")
        attacked.put(tmp_path / "lent", "/opt/lent")
    assert b"stopped" in attacked.read("/opt/seen"), attacked.read("/opt/errors")


def test_a_task_that_is_stopped_for_ever_is_ended(
    hostile_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched(monkeypatch, "from pytest_azchroot.sandbox import process\nprocess._CALL_PATIENCE = 1.0")
    (tmp_path / "lent").write_bytes(bytes(64 << 20))
    with Sandbox.start(copy(hostile_disk, tmp_path), hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend(None)
        start(sandbox, attacks.STOP, str(tmp_path))

        def lend() -> None:
            for _ in range(200):
                sandbox.copy_files([str(tmp_path / "lent")])
                sandbox.ask("give_back")

        with pytest.raises(SandboxError, match=r"a task in the image was ended: it took more than 1 seconds"):
            lend()
        sandbox.end(sandbox.survivors())
        assert sandbox.inside("echo here").stdout == "here\n"


@pytest.mark.parametrize("call", ["write", "put", "get", "copy_files"])
def test_what_was_killed_is_not_taken_for_done(attacked: Sandbox, tmp_path: Path, call: str) -> None:
    (tmp_path / "mine").write_bytes(bytes(16 << 20))
    attacked.put(tmp_path / "mine", "/opt/large")
    start(attacked, attacks.KILL)
    calls: dict[str, Callable[[], object]] = {
        "write": lambda: attacked.write("/opt/written", bytes(16 << 20)),
        "put": lambda: attacked.put(tmp_path / "mine", "/opt/put"),
        "get": lambda: attacked.get("/opt/large", tmp_path / "got"),
        "copy_files": lambda: attacked.copy_files([str(tmp_path / "mine")]),
    }

    def work() -> None:
        for _ in range(100):
            calls[call]()
            attacked.ask("give_back")

    with pytest.raises(SandboxError, match="was killed by SIGKILL"):
        work()
    attacked.end(attacked.survivors())


def test_a_visitor_who_is_killed_leaves_nothing_that_stops_what_ends_it(attacked: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "image.yaml").touch()
    with typing(azchroot("shell", tmp_path)) as typist:
        typist.wait_for("/ # ")
        typist.run("kill -STOP $PPID; (setsid sleep 1000 &)")
        os.kill(typist.pid, signal.SIGKILL)
    assert eventually(lambda: "sleep 1000" not in attacked.inside("ps").stdout)


def test_a_file_system_is_not_frozen(hostile_disk: Path, tmp_path: Path) -> None:
    """It would hold up the unmount, and stay bound to its loop device when all is dead."""
    freeze = "import fcntl, os; fcntl.ioctl(os.open('/', os.O_RDONLY), 0xC0045877, 0)"
    given = Confinement(unconfined=("SYS_ADMIN",))
    with Sandbox.start(copy(hostile_disk, tmp_path), hostname="image", confinement=given) as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend(None)
        with pytest.raises(CommandError, match="Operation not permitted"):
            sandbox.inside(["python3", "-c", freeze])
        sandbox.unmount()
        sandbox.close()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("mkfifo /etc/passwd; (while :; do echo x:y; done) > /etc/passwd &", "a FIFO, not a regular file: /etc/passwd"),
        ("ln -s passwd /etc/passwd", "Too many levels of symbolic links: /etc/passwd"),
        ("mkdir /etc/passwd", "a directory, not a regular file: /etc/passwd"),
        ("ln -s /dev/zero /etc/passwd", "a character device, not a regular file"),
        ("ln -s /proc/kmsg /etc/passwd", "Operation not permitted"),
        ("yes root:x:0:0::/:/bin/sh | head -c 2000000 > /etc/passwd", None),
        ("printf 'root:x:%05000d:0::/:/bin/sh\\n' 1 > /etc/passwd", None),
        ("printf 'root:x:4294967295:99999999999::/:/bin/sh\\n' > /etc/passwd", None),
        ("printf 'root:x:0:0::/\\0:/bin/sh\\n' > /etc/passwd", None),
        ("printf 'root:x:0:0::/:/dev/null\\n' > /etc/passwd", None),
    ],
)
def test_a_list_of_users_holds_nobody_up(attacked: Sandbox, how: str, why: str | None) -> None:
    attacked.inside(f"rm /etc/passwd; {how}")
    if why is None:
        assert attacked.inside("echo here", timeout=30).stdout == "here\n"
    else:
        with pytest.raises(SandboxError, match=why):
            attacked.inside("echo here", timeout=30)
