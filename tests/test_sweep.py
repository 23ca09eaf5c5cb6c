"""azchroot sweep on this machine: journals, devices, control groups; and without Azure."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot import cli, journal, machinery
from pytest_azchroot.disk import lvm_mapper
from pytest_azchroot.disk.lvm_mapper import Target
from pytest_azchroot.errors import UnavailableError
from pytest_azchroot.journal import Journal
from pytest_azchroot.removal import Removal
from pytest_azchroot.sandbox import cgroup, syscalls

NOTHING = "dead runs have left nothing\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory of one's own, and no metadata service."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv(journal.STATE_DIRECTORY, str(tmp_path / "state"))


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's devices and groups are not looked at."""
    monkeypatch.setattr(machinery, "find", list)


def write(directory: Path, text: str) -> Path:
    place = directory / "state" / "journal"
    place.mkdir(parents=True, exist_ok=True)
    (place / "r1.jsonl").write_text(text)
    return place / "r1.jsonl"


HEAD = '{"version": 1, "run": "r1", "host": "vm", "pid": 7, "started": "2026-01-02T03:04:05+00:00"}\n'
OTHER = '{"entry": 1, "kind": "balloon", "id": "/b", "facts": {}, "at": "2026-01-02T03:04:06+00:00"}\n'


# -- without Azure


@pytest.mark.usefixtures("nothing_here")
def test_without_azure_it_says_that_tags_were_not_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep"]) == 0
    captured = capsys.readouterr()
    assert captured.out == NOTHING
    assert "note: tags in Azure were not looked at" in captured.err and "no Azure VM" in captured.err


def test_without_azure_its_sdks_are_not_loaded() -> None:
    code = "import sys; from pytest_azchroot import cli, machinery; machinery.find = list; code = cli.main(['sweep'])\n"
    code += "sys.exit(code or any(name in sys.modules for name in ('azure.core', 'azure.identity', 'requests')))"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.usefixtures("nothing_here")
def test_a_journal_with_nothing_open_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its run was killed before it asked for anything, or after all was released."""
    path = write(tmp_path, HEAD)
    new = path.with_suffix(".new")
    new.write_text("")
    assert cli.main(["sweep", "--dry-run"]) == 0 and path.exists() and new.exists()
    assert cli.main(["sweep"]) == 0 and not path.exists() and not new.exists()
    assert capsys.readouterr().out == NOTHING * 2


@pytest.mark.usefixtures("nothing_here")
def test_the_journal_of_a_living_run_stays(capsys: pytest.CaptureFixture[str]) -> None:
    begun = Journal.begin(host="vm")
    begun.intend("balloon", "/b")
    assert cli.main(["sweep"]) == 0 and begun.path.exists()
    assert capsys.readouterr().out == NOTHING
    begun.close()


@pytest.mark.usefixtures("nothing_here")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense\n", "this is no journal"),
        (HEAD.replace('"version": 1', '"version": 9'), "it has version 9"),
        (f"{HEAD}nonsense\n", "the journal of run r1 is damaged"),
        (HEAD + OTHER, "failed balloon /b (run r1, which began 2026-01-02 03:04 UTC): this version does not know"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_journal_that_is_not_understood_is_told_and_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str, dry: bool
) -> None:
    path = write(tmp_path, text)
    assert cli.main(["sweep", *(["--dry-run"] if dry else [])]) == 1
    assert told in capsys.readouterr().err and path.exists()


def test_what_only_root_may_see(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UnavailableError):
        machinery.find()
    assert cli.main(["sweep"]) == 0
    assert "note: devices and control groups were not looked at: only root can" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_here")
def test_a_state_directory_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal").write_text("a file in the way")
    assert cli.main(["sweep"]) == 1
    assert "cannot be read" in capsys.readouterr().err


# -- control groups


@contextlib.contextmanager
def group(name: str) -> Iterator[str]:
    """A group below one of the test's own: beside a sandbox, that would remove it. Its path."""
    new = cgroup.new()
    if new is None:
        pytest.skip("this machine has no cgroup2")
    parent = f"{os.path.dirname(new)}/tests-of-sweep-{secrets.token_hex(4)}"
    path = f"{parent}/{name}"
    with contextlib.ExitStack() as stack:
        try:
            root = syscalls.detached_mount("cgroup2")
            stack.callback(os.close, root)
            for each in (parent, path):
                os.mkdir(f"./{each}", dir_fd=root)
                stack.callback(_remove, each, root)
        except OSError:
            pytest.skip("this machine does not let us make control groups")
        yield path.strip("/")


def _remove(path: str, root: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(f"./{path}", dir_fd=root)


def is_there(path: str) -> bool:
    root = syscalls.detached_mount("cgroup2")
    try:
        os.stat(f"./{path}", dir_fd=root)
    except FileNotFoundError:
        return False
    finally:
        os.close(root)
    return True


def move(pid: int, path: str) -> None:
    root = syscalls.detached_mount("cgroup2")
    file = os.open(f"./{path}/cgroup.procs", os.O_WRONLY, dir_fd=root)
    os.write(file, str(pid).encode())
    os.close(file)
    os.close(root)


@pytest.mark.root
def test_a_group_without_processes_goes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Others of this machine are left to those that they belong to."""
    find = machinery.find
    with group(f"azchroot-{secrets.token_hex(4)}") as path, group("azchroot-mine") as another:
        monkeypatch.setattr(machinery, "find", lambda: [step for step in find() if step.id in {path, another}])
        assert cli.main(["sweep", "--dry-run"]) == 0 and is_there(path)
        assert f"would delete group {path}: no process is in it" in capsys.readouterr().out
        assert cli.main(["sweep"]) == 0
        assert capsys.readouterr().out.endswith("1 deleted\n")
        assert not is_there(path) and is_there(another)
        assert machinery.remove(Removal("delete", "group", path, "")).error is None  # somebody was faster


@pytest.mark.root
def test_a_group_with_a_process_stays() -> None:
    with group(f"azchroot-{secrets.token_hex(4)}") as path:
        process = subprocess.Popen(["sleep", "60"])
        try:
            move(process.pid, path)
            assert path not in {step.id for step in machinery.find()}
            error = machinery.remove(Removal("delete", "group", path, "")).error
            assert error is not None and "cannot be removed" in str(error) and is_there(path)
        finally:
            process.kill()
            process.wait()
        for _ in range(200):  # it leaves its group a moment after it has ended
            if machinery.remove(Removal("delete", "group", path, "")).error is None:
                break
        assert not is_there(path)


# -- devices


@pytest.mark.root
def test_devices_that_nobody_has_open_go() -> None:
    """As a build leaves one that is killed before the kernel knows that it is to be removed."""
    if not Path("/dev/mapper/control").exists() or "device-mapper" not in Path("/proc/misc").read_text():
        pytest.skip("device-mapper: this kernel has none")
    names = [f"{lvm_mapper.PREFIX}{secrets.token_hex(16)}" for _ in range(2)]
    others = f"{lvm_mapper.PREFIX}of-somebody-else-{secrets.token_hex(4)}"
    control = os.open("/dev/mapper/control", os.O_RDWR)

    def ask(operation: int, name: str, targets: tuple[Target, ...] = ()) -> lvm_mapper.Status:
        number, data = lvm_mapper.request(operation, name, targets=targets)
        fcntl.ioctl(control, number, data)
        return lvm_mapper.answer(bytes(data))

    try:
        for name in (*names, others):
            ask(lvm_mapper.CREATE, name)
            ask(lvm_mapper.LOAD, name, (Target(0, 8, "error", ""),))
            ask(lvm_mapper.RESUME, name)
        node = f"/tmp/{names[1]}"
        os.mknod(node, 0o600 | 0o060000, ask(lvm_mapper.STATUS, names[1]).number)
        held = os.open(node, os.O_RDONLY)
        os.unlink(node)
        found = {step.id for step in machinery.find()} & {*names, others}
        assert found == {names[0]}
        assert machinery.remove(Removal("delete", "device", names[0], "")).error is None
        assert machinery.remove(Removal("delete", "device", names[1], "")).error is not None
        os.close(held)
        assert machinery.remove(Removal("delete", "device", names[1], "")).error is None
    finally:
        for name in (*names, others):
            with contextlib.suppress(OSError):
                ask(lvm_mapper.REMOVE, name)
        os.close(control)


def test_a_device_is_idle_only_if_it_was_so_a_second_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no device-mapper the kernel's answers are played: a living sandbox opens its device meanwhile."""
    names = [f"{lvm_mapper.PREFIX}{number:032x}" for number in range(3)]
    for number, name in enumerate([*names, "my--vg-root", "azchroot-notes"]):
        place = tmp_path / f"dm-{number}" / "dm"
        place.mkdir(parents=True)
        (place / "name").write_text(f"{name}\n")
    counts = {names[0]: [0, 0], names[1]: [0, 1], names[2]: [1, 0]}
    asked: list[str] = []

    def ask(operation: int, name: str, *, announced: bool = False) -> lvm_mapper.Status:
        asked.append(name)
        return lvm_mapper.Status(1, counts[name].pop(0), 0)

    monkeypatch.setattr(machinery, "_DEVICES", tmp_path)
    monkeypatch.setattr(machinery, "_ask", ask)
    monkeypatch.setattr(machinery, "_empty_groups", set)
    monkeypatch.setattr(machinery, "_APART", 0.0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert [step.id for step in machinery.find()] == [names[0]]
    assert set(asked) == set(names)
