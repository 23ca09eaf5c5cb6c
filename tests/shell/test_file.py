"""``azchroot shell FILE`` on pipes: looking and changing, and who else has the file."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pytest_azchroot.disk import vhd
from tests.sandbox import foreign
from tests.typist import azchroot

from .conftest import digest, is_clean, read, run

pytestmark = pytest.mark.root


# ---- pipes


def test_a_command_on_pipes(web: Path) -> None:
    assert run(web, "--", "cat", "/etc/os-release") == ("ID=test\n", "")


def test_the_shell_reads_its_commands_from_a_pipe(web: Path) -> None:
    assert run(web, input="echo here\nexit 3\n", code=3) == ("here\n", "")


def test_much_goes_through_both_ways(web: Path) -> None:
    text = "".join(f"{number}\n" for number in range(200_000))
    assert run(web, "--", "cat", input=text)[0] == text


def test_a_reader_that_leaves_ends_the_command(web: Path) -> None:
    line = " ".join(map(str, azchroot("shell", web, "--", "seq", "1", "100000000")))
    done = subprocess.run(["sh", "-c", f"{line} | head -n 1"], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize("streams", ["<&-", "<&- >&-", "2>&- <&-"])
def test_streams_that_are_closed(web: Path, streams: str) -> None:
    line = " ".join(map(str, azchroot("shell", web, "--", "sh", "-c", "'cat; exit 5'", streams)))
    assert subprocess.run(["sh", "-c", line], check=False).returncode == 5


def test_a_file_to_read_is_not_one_to_write(web: Path, tmp_path: Path) -> None:
    """The image's processes may do with their descriptors what they like: they get pipes."""
    script = tmp_path / "script"
    script.write_text("ls -l /proc/self/fd; echo changed >/proc/self/fd/0\n")
    with script.open() as file:
        done = subprocess.run(azchroot("shell", web), stdin=file, capture_output=True, text=True, check=False)
    assert "pipe:" in done.stdout and str(tmp_path) not in done.stdout
    assert "echo changed >" in script.read_text()


@pytest.mark.parametrize("kind", ["shell", "inspect", "digest"])
def test_no_room_to_unpack_it(kind: str, web: Path, tmp_path: Path) -> None:
    """qemu-img's own words are not lost where there is no room for anything."""
    room = tmp_path / "room"
    room.mkdir()
    qcow2 = web.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", web, qcow2], check=True)
    line = shlex.join(map(str, azchroot(kind, qcow2)))
    script = f"mount -t tmpfs -o size=256k tmpfs {room}; {line}"  # nobody else sees this mount
    environment = {**os.environ, "TMPDIR": str(room)}
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert f"the file system at {room} is full" in done.stderr
    assert done.stderr.endswith(f"hint: make room below {room}, or choose another directory by TMPDIR\n")


@pytest.mark.parametrize("kind", ["shell", "inspect", "digest"])
def test_a_directory_for_temporary_files_that_is_missing(
    kind: str, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qcow2 = web.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", web, qcow2], check=True)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    done = subprocess.run(azchroot(kind, qcow2), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path / 'nowhere'}, for large temporary files, is no directory\nhint: ")


def test_a_signal_is_told_as_shells_do(web: Path) -> None:
    run(web, "--", "sh", "-c", "kill -9 $$", code=128 + 9)


def test_no_such_command(web: Path) -> None:
    assert "`nosuch` cannot be executed: there is no such command" in run(web, "--", "nosuch", code=1)[1]


def test_what_a_command_leaves_ends_with_it(web: Path) -> None:
    run(web, "--", "sh", "-c", "(trap '' HUP TERM; sleep 1000) & (sleep 1000 &)")


def test_steps_are_held_the_same_way(web: Path) -> None:
    script = "mount -t tmpfs x /root; grep CapBnd /proc/self/status; cat /sys/kernel/x; service x start"
    out, err = run(web, "--", "sh", "-c", script)
    bounding = int(out.split()[1], 16)
    assert not bounding >> 21 & 1  # CAP_SYS_ADMIN
    assert "mount:" in err and "azchroot: not while an image is built: service x start" in err and "started" not in out


def test_its_environment_is_clean(web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hush")
    names = {line.partition("=")[0] for line in run(web, "--", "env")[0].splitlines()}
    assert names == {
        "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "DEBIAN_FRONTEND", "PATH", "SYSTEMD_OFFLINE", "container",
        "PYTHONDONTWRITEBYTECODE",
    }  # fmt: skip


# ---- looking


def test_what_is_written_is_dropped(web: Path) -> None:
    before = digest(web)
    assert run(web, "--", "sh", "-c", "echo new >/etc/new; rm /etc/os-release; cat /etc/new")[0] == "new\n"
    assert digest(web) == before
    assert run(web, "--", "cat", "/etc/os-release")[0] == "ID=test\n"


def test_a_file_that_is_read_only(web: Path) -> None:
    web.chmod(0o400)
    assert run(web, "--", "cat", "/etc/os-release")[0] == "ID=test\n"


def unclean(web: Path) -> None:
    """As after a machine that lost its power."""
    subprocess.run(["debugfs", "-w", "-R", "feature needs_recovery", web], check=True, capture_output=True)


def test_what_was_not_closed_is_looked_at_in_a_copy(web: Path) -> None:
    unclean(web)
    before = digest(web)
    out, err = run(web, "--", "cat", "/etc/os-release")
    assert out == "ID=test\n" and f"a copy is taken of {web}, whose file systems were not closed" in err
    assert digest(web) == before


@pytest.mark.parametrize("kind", ["qcow2", "vhdx", "vpc"])
def test_other_formats_are_unpacked(web: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"other.{kind.replace('vpc', 'vhd')}"
    options = ["-o", "force_size"] if kind == "vpc" else []
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, *options, web, path], check=True)
    before = digest(path)
    assert run(path, "--", "sh", "-c", "touch /new; cat /etc/os-release")[0] == "ID=test\n"
    assert digest(path) == before
    assert f"qemu-img convert -O raw {path}" in run(path, "--write", "--", "true", code=1)[1]


def test_a_partition_can_be_named(web: Path) -> None:
    assert "the disk has no partition 7" in run(web, "--partition", "7", "--", "true", code=1)[1]
    assert run(web, "--partition", "0", "--", "echo", "here")[0] == "here\n"


def test_an_image_of_another_machine(web: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(foreign.program(foreign.EM_IA64))
    for request in ("rm /bin/sh", f"write {program} /bin/sh"):
        subprocess.run(["debugfs", "-w", "-R", request, web], check=True, capture_output=True)
    assert "the image is ia64 and this machine is " in run(web, code=1)[1]


def test_no_disk_at_all(tmp_path: Path) -> None:
    assert "nosuch.raw cannot be opened" in run(tmp_path / "nosuch.raw", code=1)[1]


# ---- changing


def test_the_file_is_changed_and_closed_well(web: Path) -> None:
    _, err = run(web, "--write", "--", "sh", "-c", "echo new >/etc/new; exit 4", code=4)
    assert f"{web} is closed; checked: /dev/loop" in err
    assert read(web, "/etc/new") == "new\n" and is_clean(web)
    assert read(web, "/usr/sbin/policy-rc.d") == "", "what was lent is gone"


def test_a_fixed_vhd_stays_one(web: Path) -> None:
    with web.open("r+b") as file:
        vhd.append_footer(file.fileno(), size=24 << 20)
    path = web.rename(web.with_suffix(".vhd"))
    run(path, "--write", "--", "touch", "/new")
    assert vhd.parse(path.read_bytes()[-512:]).disk_type == vhd.FIXED
    assert run(path, "--", "ls", "/new")[0] == "/new\n"


def test_an_unclean_file_system_is_repaired_by_its_journal(web: Path) -> None:
    unclean(web)
    run(web, "--write", "--", "true")
    assert is_clean(web)


def test_what_is_damaged_is_an_error(web: Path) -> None:
    subprocess.run(["debugfs", "-w", "-R", "clri /etc/os-release", web], check=True, capture_output=True)
    assert "is not clean: `e2fsck" in run(web, "--write", "--", "true", code=1)[1]


def test_a_command_that_is_not_there_leaves_it_closed(web: Path) -> None:
    assert "no such command" in run(web, "--write", "--", "nosuch", code=1)[1]
    assert "needs_recovery" not in features(web)


def features(disk: Path) -> str:
    return subprocess.run(["dumpe2fs", "-h", disk], capture_output=True, text=True, check=True).stdout


# ---- who else has it


def test_one_writes_or_many_read(web: Path) -> None:
    with waiting(web, "--write") as writer:
        assert "a shell with --write or a build has it" in run(web, "--", "true", code=1)[1]
        assert "a shell or a build has it" in run(web, "--write", "--", "true", code=1)[1]
    assert writer.returncode == 0
    with waiting(web):
        run(web, "--", "true")
        assert "is in use: a shell or a build has it" in run(web, "--write", "--", "true", code=1)[1]


class waiting:  # noqa: N801 - reads as a function
    """A shell on pipes, until it is left."""

    def __init__(self, *arguments: str | Path) -> None:
        line = azchroot("shell", *arguments)
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> subprocess.Popen[str]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("echo ready\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ready\n"
        return self._process

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=60)
        finally:
            self._process.kill()


def test_the_unfinished_disk_of_a_build_is_not_written(web: Path) -> None:
    with web.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "a shell or a build has it" in run(web, "--write", "--", "true", code=1)[1]


def test_a_loop_device_over_it_is_named(web: Path) -> None:
    loop = subprocess.run(["losetup", "-f", "--show", web], check=True, capture_output=True, text=True).stdout.strip()
    try:
        assert f"{loop} is bound to it" in run(web, "--write", "--", "true", code=1)[1]
        assert f"{loop} is bound to it" in run(web, "--", "true", code=1)[1]
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


def test_a_file_that_a_virtual_machine_has(web: Path) -> None:
    """QEMU locks single bytes of the file."""
    tool = shutil.which("qemu-io") or pytest.fail("qemu-io is not installed: apt-get install qemu-utils")
    machine = subprocess.Popen(
        [tool, "-f", "raw", web], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with machine:
        assert machine.stdin and machine.stdout
        machine.stdin.write("length\n")
        machine.stdin.flush()
        machine.stdout.readline()
        for options in ([], ["--write"]):
            assert "a virtual machine or another program has locked it" in run(web, *options, "--", "true", code=1)[1]
        machine.stdin.close()


def test_sigterm_closes_it_well(web: Path) -> None:
    with waiting(web, "--write") as writer:
        writer.terminate()
        assert writer.wait(60) == 128 + signal.SIGTERM
    assert is_clean(web)
    assert "needs_recovery" not in features(web)
