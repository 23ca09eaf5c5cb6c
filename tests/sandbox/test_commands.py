"""Commands in the image and beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import CommandError, Sandbox
from pytest_azchroot.sandbox.pump import Pump

from .machine import children_of, eventually, joined, run

pytestmark = pytest.mark.root


def test_a_string_is_for_the_shell_and_stops_at_the_first_failure(sandbox: Sandbox) -> None:
    with pytest.raises(CommandError) as caught:
        sandbox.inside("echo before; false; echo after")
    assert caught.value.completed.stdout == "before\n"


def test_a_sequence_is_executed_as_it_is(sandbox: Sandbox) -> None:
    assert sandbox.inside(["echo", "a  b", "$HOME"]).stdout == "a  b $HOME\n"


def test_both_streams_are_kept_apart_and_together(sandbox: Sandbox) -> None:
    done = sandbox.inside("echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three")
    assert (done.stdout, done.stderr, done.output) == ("one\nthree\n", "two\n", "one\ntwo\nthree\n")


def test_bytes_that_are_not_utf8_are_replaced_in_text(sandbox: Sandbox) -> None:
    done = sandbox.inside(r"printf '\377\000x'")
    assert (done.stdout, done.stdout_bytes) == ("\ufffd\x00x", b"\xff\x00x")


def test_an_error_shows_command_code_and_the_end_of_the_output(sandbox: Sandbox) -> None:
    with pytest.raises(CommandError) as caught:
        sandbox.inside("seq 1 100; echo trouble >&2; exit 3")
    text = str(caught.value)
    assert "seq 1 100" in text
    assert "exited with 3" in text
    assert "trouble" in text
    assert "\n90\n" in text
    assert "\n50\n" not in text


def test_an_error_names_the_signal(sandbox: Sandbox) -> None:
    with pytest.raises(CommandError, match="was killed by SIGUSR1"):
        sandbox.inside("kill -USR1 $$")


def test_other_codes_can_be_good(sandbox: Sandbox) -> None:
    assert sandbox.inside("exit 4", ok_codes=(0, 4)).code == 4
    assert sandbox.inside("exit 5", check=False).code == 5


def test_output_is_heard_while_the_command_runs(sandbox: Sandbox) -> None:
    heard: list[tuple[str, bytes]] = []

    def answer(stream: str, data: bytes) -> None:
        heard.append((stream, data))
        sandbox_go.touch()

    sandbox_go = Path(f"/proc/{_holder(sandbox)}/root/run/azchroot/root/tmp/go")
    sandbox.inside("echo hello; while [ ! -e /tmp/go ]; do sleep 0.01; done", output=answer, timeout=20)
    assert heard == [("stdout", b"hello\n")]


def test_input_arrives_and_ends(sandbox: Sandbox) -> None:
    assert sandbox.inside("cat; echo end", input="text\n").stdout == "text\nend\n"
    assert sandbox.inside("cat; echo end").stdout == "end\n"


def test_large_input_and_output_do_not_wait_for_each_other(sandbox: Sandbox) -> None:
    data = os.urandom(1 << 20) * 20
    assert sandbox.inside("cat", input=data).stdout_bytes == data


def test_a_command_that_reads_no_input_is_no_error(sandbox: Sandbox) -> None:
    assert sandbox.inside("true", input=b"x" * (1 << 20)).code == 0


def test_much_output_takes_time_in_proportion(sandbox: Sandbox) -> None:
    done = sandbox.inside("dd if=/dev/zero bs=1M count=150 2>/dev/null")
    assert len(done.stdout_bytes) == 150 << 20


def test_the_environment_is_clean(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_SECRET", "hunter2")
    inside, outside = sandbox.inside("env").stdout, sandbox.outside("env").stdout
    assert "hunter2" not in inside + outside
    assert "BUILDER" not in sandbox.inside("cat /proc/1/cmdline").stdout
    for expected in ("SYSTEMD_OFFLINE=1", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"):
        assert expected in inside.splitlines()


def test_variables_are_added(disk: Path) -> None:
    with Sandbox.start(disk, hostname="image", environment={"ALL": "1"}) as sandbox:
        sandbox.mount(sandbox.partition(1))
        assert sandbox.inside("echo $ALL $ONE", env={"ONE": "2"}).stdout == "1 2\n"
        assert sandbox.outside("echo $ALL $ONE", env={"ONE": "2"}).stdout == "1 2\n"


def test_directory_and_user(sandbox: Sandbox) -> None:
    command = "pwd; id -u; id -g; id -G; echo $HOME $USER"
    done = sandbox.inside(command, cwd="/home/worker", user="worker")
    assert done.stdout.splitlines() == ["/home/worker", "1234", "1234", "1234 77", "/home/worker worker"]


def test_a_user_may_be_a_number_or_have_another_group(sandbox: Sandbox) -> None:
    assert sandbox.inside("id -u; id -g", user="4321:extra").stdout == "4321\n77\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"command": ["nosuch"]}, "`nosuch` cannot be executed: there is no such command"),
        ({"command": ["/nosuch"]}, "`/nosuch` cannot be executed: there is no such file"),
        ({"command": ["/etc/passwd"]}, "`/etc/passwd` cannot be executed: Permission denied"),
        ({"command": ["true"], "cwd": "/nosuch"}, "`true` cannot run in /nosuch: No such file or directory"),
        ({"command": ["true"], "user": "nobody"}, "`true` cannot run as nobody: the image has no user 'nobody'"),
        ({"command": ["echo", "a\0b"]}, "NUL"),
    ],
)
def test_what_cannot_start_says_why(sandbox: Sandbox, arguments: dict[str, object], expected: str) -> None:
    with pytest.raises(SandboxError) as caught:
        sandbox.inside(**arguments)  # type: ignore[arg-type]
    assert expected in str(caught.value)


def test_a_script_without_its_interpreter_says_so(sandbox: Sandbox) -> None:
    sandbox.write("/script", b"#!/usr/bin/nosuch\n", mode=0o755)
    with pytest.raises(SandboxError, match="its interpreter or loader is missing"):
        sandbox.inside(["/script"])


def test_a_program_of_another_machine_says_so(sandbox: Sandbox) -> None:
    sandbox.write("/program", b"\x7fELF\2\1\1" + b"\0" * 64, mode=0o755)
    with pytest.raises(SandboxError, match="not a format that this machine executes"):
        sandbox.inside(["/program"])


# ---- what a command cannot do


@pytest.mark.parametrize(
    "command",
    [
        "mount -t tmpfs none /tmp",
        "mknod /node b 7 0",
        "ls /proc/1/root/",
        "cat /proc/1/environ",
        "unshare -m true",
        "date -s @$(date +%s) 2>&1 | grep -q 'not permitted' && false",
        "echo 1 > /proc/sys/kernel/printk",
        "touch /sys/kernel/x",
        "chroot /proc/1/root true",
        "hostname other",
    ],
)
def test_a_command_in_the_image_cannot(sandbox: Sandbox, command: str) -> None:
    with pytest.raises(CommandError):
        sandbox.inside(command)


def test_the_build_machine_is_not_in_its_mount_table(sandbox: Sandbox) -> None:
    lines = sandbox.inside("cat /proc/mounts").stdout.splitlines()
    assert lines[0].startswith(f"{sandbox.partition(1)} / ext4 ")
    assert {line.split()[1].split("/")[1] for line in lines[1:]} == {"dev", "proc", "sys", "run"}


def test_its_mount_namespace_has_no_way_to_the_build_machine(sandbox: Sandbox) -> None:
    # a chroot would hide the build machine's root; here it is not in the namespace at all
    sandbox.inside("setsid sleep 1000 &")
    assert eventually(lambda: [each.command for each in sandbox.survivors()] == ["sleep 1000"])
    [daemon] = children_of(sandbox.holder)
    root = run("nsenter", "--target", str(daemon), "--mount", "/bin/busybox", "ls", "/")
    assert root == sandbox.inside("ls /").stdout


def test_a_chroot_does_not_lead_out(sandbox: Sandbox) -> None:
    # the classical way out of a chroot: a directory outside the new root, then up
    script = "mkdir -p /jail/bin && cp /bin/busybox /jail/bin/sh && chroot /jail /bin/sh -c 'cd ../../../..; echo *'"
    assert sandbox.inside(script).stdout == "bin\n"
    assert sandbox.inside("cd ../../../..; ls -d /bin/busybox /etc/passwd").code == 0


def test_swap_is_refused_to_everybody(sandbox: Sandbox) -> None:
    swap = f"{sandbox.mount_path}/swapfile"
    sandbox.outside(f"dd if=/dev/zero of={swap} bs=1M count=4 2>/dev/null; chmod 600 {swap}; mkswap {swap}")
    with pytest.raises(CommandError, match="not permitted"):
        sandbox.outside(["swapon", swap])


def test_only_its_own_processes_are_seen(sandbox: Sandbox) -> None:
    assert len(sandbox.inside("ps -o pid").stdout.splitlines()) == 3  # title, PID 1, ps
    assert sandbox.inside("hostname").stdout == "image\n"


def test_killing_everybody_leaves_the_sandbox(sandbox: Sandbox) -> None:
    sandbox.inside("kill -9 1; kill -9 -1", check=False)
    assert sandbox.inside("echo alive").stdout == "alive\n"


# ---- ends


def test_a_daemon_does_not_hold_the_reader(sandbox: Sandbox) -> None:
    done = sandbox.inside("setsid sleep 1000 & echo started", timeout=20)
    assert done.stdout == "started\n"
    assert eventually(lambda: [each.command for each in sandbox.survivors()] == ["sleep 1000"])


def test_a_daemon_that_writes_without_end_does_not_hold_the_reader(sandbox: Sandbox) -> None:
    done = sandbox.inside("setsid yes & sleep 0.2; echo started >&2", timeout=20)
    assert done.stderr == "started\n"


def test_what_a_command_leaves_in_its_pipes_is_bounded() -> None:
    # somebody who writes whenever there is room: without a bound this would never end
    def write_more(*_: object) -> None:
        os.write(writer, b"more")

    with Pump(content=None, stdin=None, stdout=None, hear=write_more) as pump:
        writer = os.dup(pump.descriptors[0])
        os.write(writer, b"begin")
        pump.drain()
        os.close(writer)
    assert 1 < len(pump.chunks) < 1 << 17


def test_a_timeout_ends_the_whole_tree(sandbox: Sandbox) -> None:
    with pytest.raises(CommandError, match=r"timed out after 0\.5 s") as caught:
        sandbox.inside("echo begun; (setsid sh -c 'sleep 1001 & sleep 1002') & sleep 1003", timeout=0.5)
    assert caught.value.completed.stdout == "begun\n"
    assert sandbox.survivors() == ()
    assert sandbox.inside("echo usable").stdout == "usable\n"


def test_a_timeout_ends_what_ignores_being_asked(sandbox: Sandbox) -> None:
    with pytest.raises(CommandError, match="timed out"):
        sandbox.inside("trap '' TERM; while :; do sleep 0.1; done", timeout=0.3)
    assert sandbox.survivors() == ()


def test_a_timeout_leaves_an_older_daemon(sandbox: Sandbox) -> None:
    sandbox.inside("setsid sleep 1000 &")
    with pytest.raises(CommandError, match="timed out"):
        sandbox.inside("sleep 1001", timeout=0.2)
    assert eventually(lambda: [each.command for each in sandbox.survivors()] == ["sleep 1000"])


def test_an_interrupt_ends_the_command_and_leaves_the_sandbox(sandbox: Sandbox) -> None:
    def interrupt() -> None:
        eventually(lambda: os.path.exists(f"/proc/{_holder(sandbox)}/root/run/azchroot/root/tmp/begun"))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        sandbox.inside("touch /tmp/begun; sleep 1000; echo late")
    joined(thread)
    assert sandbox.survivors() == ()
    assert sandbox.inside("echo usable").stdout == "usable\n"


def test_an_error_of_the_listener_ends_the_command(sandbox: Sandbox) -> None:
    def fail(stream: str, data: bytes) -> None:
        raise RuntimeError("listener")

    with pytest.raises(RuntimeError, match="listener"):
        sandbox.inside("echo x; sleep 1000", output=fail)
    assert sandbox.survivors() == ()


def test_two_threads_wait_for_each_other(sandbox: Sandbox) -> None:
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda text=text: results.append(sandbox.inside(["echo", text]).stdout))
        for text in "abcdef"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        joined(thread)
    assert sorted(results) == [f"{text}\n" for text in "abcdef"]


def test_a_long_request_travels(sandbox: Sandbox) -> None:
    words = ["x" * 100_000 for _ in range(5)]
    assert len(sandbox.inside(["echo", *words]).stdout) == 500_005


def test_a_signal_mask_of_the_caller_is_not_inherited(disk: Path) -> None:
    code = (
        "import signal, sys; from pathlib import Path; from pytest_azchroot.sandbox import Sandbox\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])\n"
        "signal.signal(signal.SIGQUIT, signal.SIG_IGN)\n"
        "with Sandbox.start(Path(sys.argv[1]), hostname='x') as sandbox:\n"
        "    print(sandbox.outside('grep -E \"Sig(Blk|Ign)\" /proc/self/status').stdout)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, disk], check=True, capture_output=True, text=True)
    _, blocked, _, ignored = done.stdout.split()
    of_the_c_library = 0b11 << 31  # signals 32 and 33: no program can set what it inherits of them
    assert (int(blocked, 16), int(ignored, 16) & ~of_the_c_library) == (0, 0)


def _holder(sandbox: Sandbox) -> int:
    return sandbox.holder


def test_duration_is_seconds(sandbox: Sandbox) -> None:
    started = time.monotonic()
    done = sandbox.inside("sleep 0.2")
    assert 0.2 <= done.duration <= time.monotonic() - started
