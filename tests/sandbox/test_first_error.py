"""The first error comes out of a sandbox, whatever goes wrong while it is left."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_azchroot.errors import DirtyImageError, SandboxError
from pytest_azchroot.sandbox import CommandError, Sandbox, connection
from pytest_azchroot.sandbox import sandbox as module

from .machine import eventually, is_alive

pytestmark = pytest.mark.root


def patched(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run code in the keeper, before it makes the holder."""
    monkeypatch.setattr(connection, "_BOOTSTRAP", connection._BOOTSTRAP.replace("main()", f"exec({code!r}); main()"))


@pytest.mark.parametrize("error", [SandboxError("first"), ValueError("first"), KeyboardInterrupt("first")])
def test_a_disk_that_is_not_let_go_comes_second(
    disk: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(module, "_FREE_PATIENCE", 0.2)

    def leave() -> None:
        with Sandbox.start(disk, hostname="image") as sandbox:
            held.append(os.open(sandbox.device, os.O_RDONLY))
            raise error

    held: list[int] = []
    with pytest.raises(type(error)) as caught:
        leave()
    os.close(held[0])
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert caught.value is error
    assert text.startswith("first\nthen: /dev/loop")
    assert text.count("is still bound to") == 1


def test_a_disk_that_is_not_let_go_comes_first_if_nothing_else_was_wrong(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FREE_PATIENCE", 0.2)
    held: list[int] = []
    with pytest.raises(SandboxError, match=r"\A/dev/loop\d+ is still bound"), Sandbox.start(disk, hostname="x") as box:
        held.append(os.open(box.device, os.O_RDONLY))
    os.close(held[0])


COVERED_HALF = """
from pytest_azchroot.sandbox import image
def fail(*arguments):
    raise OSError(5, "Input/output error", "/upper")
image.Writes = fail
"""

NOT_UNCOVERED = """
def busy(self):
    raise image.BusyError("/merged is still in use", why=None, point="/merged", devices=[])
image.Image.uncover = busy
"""


def test_an_overlay_that_fails_and_cannot_be_taken_away(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, COVERED_HALF + NOT_UNCOVERED)
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(1))
        with pytest.raises(SandboxError) as caught:
            sandbox.overlay()
        assert str(caught.value) == "Input/output error: /upper\nthen: /merged is still in use"


def test_a_seal_that_fails_twice_over_is_one_error(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, COVERED_HALF + NOT_UNCOVERED)
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(1))
        for request in (sandbox.seal, sandbox.seal, lambda: sandbox.inside("true"), sandbox.close):
            with pytest.raises(DirtyImageError) as caught:
                request()
            assert str(caught.value) == "Input/output error: /upper\nthen: /merged is still in use"
            assert caught.value.__cause__ is None, "pytest would show the same error again"


def test_a_row_that_cannot_be_lent_nor_taken_back(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = """
from pytest_azchroot.sandbox import image
def fail(*arguments):
    raise OSError(30, "Read-only file system", "/opt/new")
image.Image._remove_made = fail
"""
    patched(monkeypatch, broken)
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(1))
        with pytest.raises(SandboxError) as caught:
            sandbox.lend([("nosuchfs", "none", "/opt/new")])
        assert str(caught.value).startswith("[nosuchfs, none, /opt/new] cannot be mounted: ")
        assert str(caught.value).count("\nthen: OSError: [Errno 30] Read-only file system: '/opt/new'") == 1


# ---- the holder dies

REQUESTS: dict[str, Callable[[Sandbox], object]] = {
    "inside": lambda sandbox: sandbox.inside("true"),
    "outside": lambda sandbox: sandbox.outside("true"),
    "read": lambda sandbox: sandbox.read("/etc/passwd"),
    "write": lambda sandbox: sandbox.write("/etc/file", b"x"),
    "mount": lambda sandbox: sandbox.mount("/dev/image1", path="/mnt"),
    "lend": lambda sandbox: sandbox.lend(None),
    "survivors": lambda sandbox: sandbox.survivors(),
    "overlay": lambda sandbox: sandbox.overlay(),
    "writes": lambda sandbox: sandbox.writes(),
    "seal": lambda sandbox: sandbox.seal(),
    "unmount": lambda sandbox: sandbox.unmount(),
    "close": lambda sandbox: sandbox.close(),
}


@pytest.mark.parametrize("victim", ["holder", "keeper"])
@pytest.mark.parametrize("request_", REQUESTS)
def test_a_dead_sandbox_says_so_once(disk: Path, victim: str, request_: str) -> None:
    def work() -> None:
        with Sandbox.start(disk, hostname="image") as sandbox:
            sandbox.mount(sandbox.partition(1))
            os.kill(getattr(sandbox, victim), signal.SIGKILL)
            assert eventually(lambda: not is_alive(sandbox.holder))
            REQUESTS[request_](sandbox)

    with pytest.raises(SandboxError) as caught:
        work()
    assert str(caught.value).count("the sandbox has died") == 1
    assert "then:" not in str(caught.value)


def test_a_sandbox_that_dies_under_a_command(sandbox: Sandbox) -> None:
    killer = threading.Timer(0.3, os.kill, (sandbox.holder, signal.SIGKILL))
    killer.start()
    with pytest.raises(SandboxError, match="the sandbox has died"):
        sandbox.inside("sleep 1000")
    killer.join()


def test_a_sandbox_that_dies_while_an_error_is_on_its_way(disk: Path) -> None:
    def work() -> None:
        with Sandbox.start(disk, hostname="image") as sandbox:
            sandbox.mount(sandbox.partition(1))
            try:
                sandbox.inside("false")
            finally:
                os.kill(sandbox.holder, signal.SIGKILL)

    with pytest.raises(CommandError, match="`false` exited with 1"):
        work()
