"""The first error comes out of a sandbox, whatever goes wrong while it is left."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_azchroot.disk import lvm_mapper
from pytest_azchroot.disk.lvm import LogicalVolume, Piece, Stripe
from pytest_azchroot.errors import DirtyImageError, DiskError, SandboxError
from pytest_azchroot.sandbox import CommandError, Sandbox, mapper, starting
from pytest_azchroot.sandbox import sandbox as module

from .machine import eventually, is_alive

pytestmark = pytest.mark.root


def patched(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run code in the keeper, before it makes the holder."""
    monkeypatch.setattr(starting, "_BOOTSTRAP", starting._BOOTSTRAP.replace("main()", f"exec({code!r}); main()"))


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


UNDO_FAILS = """
from pytest_azchroot.sandbox import image
def fail(self):
    raise OSError(16, "Device or resource busy", "/mnt")
image.Image.not_mounted = fail
"""


@pytest.mark.parametrize("mounted", [True, False])
def test_a_mount_that_fails_and_leaves_its_mount_point(
    disk: Path, monkeypatch: pytest.MonkeyPatch, mounted: bool
) -> None:
    patched(monkeypatch, UNDO_FAILS)
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(1))
        with pytest.raises(SandboxError) as caught:
            sandbox.mount(sandbox.partition(1), path="/mnt", wrapper=lambda _: "true" if mounted else "false")
    first, *later = str(caught.value).split("\n")
    assert re.match("nothing is mounted at" if mounted else "/dev/loop.* cannot be mounted", first)
    assert later[-1] == "then: Device or resource busy: /mnt"


def test_a_listener_that_fails_over_a_command_that_does_not_end(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = """
from pytest_azchroot.sandbox import process
from pytest_azchroot.errors import SandboxError
def end(*arguments, **options):
    raise SandboxError("processes do not end: 7 (sleep)")
process.end = end
"""
    patched(monkeypatch, endless)

    def hear(stream: str, data: bytes) -> None:
        raise ValueError("no more")

    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(1))
        with pytest.raises(ValueError, match="no more") as caught:
            sandbox.inside("echo here; sleep 3", output=hear)
    assert getattr(caught.value, "__notes__", []) == ["then: processes do not end: 7 (sleep)"]


def test_a_copied_file_that_fails_and_cannot_be_taken_back(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = """
from pytest_azchroot.sandbox import inroot
def fail(*arguments):
    raise OSError(28, "No space left on device")
inroot.shutil.copyfileobj = fail
def stay(copied):
    raise OSError(30, "Read-only file system", copied.path)
inroot.give_back = stay
"""
    patched(monkeypatch, broken)
    (tmp_path / "lent").touch()
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(1))
        with pytest.raises(SandboxError, match=r"No space left on device\nthen: OSError: .*Read-only file system"):
            sandbox.copy_files([str(tmp_path / "lent")])


def test_a_file_that_cannot_be_stored_and_whose_beginning_stays(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = """
from pytest_azchroot.sandbox import files
def fail(*arguments):
    raise OSError(28, "No space left on device")
files.shutil.copyfileobj = fail
def stay(path, **options):
    if options:
        return unlink(path, **options)
    raise OSError(30, "Read-only file system", path)
unlink = files.os.unlink
files.os.unlink = stay
"""
    patched(monkeypatch, broken)
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(1))
        with pytest.raises(SandboxError, match=r"No space left on device\nthen: OSError: .*\.azchroot-"):
            sandbox.write("/etc/motd", b"hello")


def test_a_volume_that_is_refused_and_cannot_be_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(control: int, operation: int, name: str, **options: object) -> lvm_mapper.Status:
        if operation == lvm_mapper.LOAD:
            raise OSError(22, "Invalid argument")
        if operation == lvm_mapper.REMOVE:
            raise OSError(16, "Device or resource busy")
        return lvm_mapper.Status(0, 0, 0)

    monkeypatch.setattr(mapper, "_ask", ask)
    volume = LogicalVolume("vg", "root", "x", "y", (1,), (Piece(0, 512, (Stripe(1, 0),)),))
    with pytest.raises(DiskError) as caught:
        mapper.make(-1, volume, {1: 0}, read_only=False)
    assert caught.value.why == "device-mapper: Invalid argument"
    assert [each[:48] for each in caught.value.later] == ["OSError: [Errno 16] Device or resource busy (in "]


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
