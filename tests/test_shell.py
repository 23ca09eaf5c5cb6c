"""``azchroot shell FILE``: on a terminal and on pipes, looking and changing, and how it ends."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.disk import vhd

from .docs import userland
from .sandbox import foreign
from .sandbox.machine import descendants_of, eventually, is_alive, loops_below
from .typist import Typist, azchroot, typing

pytestmark = pytest.mark.root

APPLETS = ("stty", "tty", "sleep", "kill", "seq", "head", "hostname", "env", "dd", "mount", "sync", "true")


@pytest.fixture(scope="session")
def shell_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 with a busybox."""
    directory = tmp_path_factory.mktemp("shell")
    root = directory / "root"
    userland.busybox(root)
    for applet in APPLETS:
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "os-release").write_text("ID=test\n")
    (root / "usr" / "sbin").mkdir()
    (root / "usr" / "sbin" / "service").write_text("#!/bin/sh\necho started\n")
    (root / "usr" / "sbin" / "service").chmod(0o755)
    return userland.disk(root, directory / "web.raw", size="24M")


@pytest.fixture
def web(shell_disk: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it; nothing may be left of the sandboxes around it."""
    path = tmp_path / "web.raw"
    subprocess.run(["cp", "--sparse=always", shell_disk, path], check=True)
    yield path
    assert eventually(lambda: loops_below(tmp_path) == [])


def run(*arguments: str | Path, input: str | None = None, code: int = 0) -> tuple[str, str]:
    """On pipes: standard output and standard error."""
    done = subprocess.run(azchroot("shell", *arguments), input=input or "", capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def digest(path: Path) -> tuple[str, int]:
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns


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


def read(disk: Path, path: str) -> str:
    return subprocess.run(["debugfs", "-R", f"cat {path}", disk], check=True, capture_output=True, text=True).stdout


def is_clean(disk: Path) -> bool:
    return subprocess.run(["e2fsck", "-f", "-n", disk], capture_output=True, check=False).returncode == 0


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
    done = subprocess.run(["dumpe2fs", "-h", web], capture_output=True, text=True, check=True)
    assert "needs_recovery" not in done.stdout


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
        self._process.communicate()


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


# ---- a terminal


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
    for number in range(12):
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
