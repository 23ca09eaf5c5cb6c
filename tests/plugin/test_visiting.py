"""``azchroot shell DIRECTORY``: into a build that runs, from another terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.sandbox.machine import descendants_of, eventually
from tests.typist import Typist, azchroot, typing

from .conftest import Workshop

pytestmark = pytest.mark.root

WAIT = """
import pathlib, time, pytest

def wait(name):
    pathlib.Path(f"at-{name}").touch()
    while not pathlib.Path(f"go-{name}").exists():
        time.sleep(0.02)
"""

STEPS = f"""{WAIT}
@pytest.mark.provision
def test_step(chroot):
    chroot.write_text("/etc/motd", "hello\\n")
    wait("step")

@pytest.mark.provision
def test_next(chroot):
    wait("next")
"""

CHECKS = f"""{WAIT}
def test_check(host):
    assert host.file("/etc/motd").content_string == "hello\\n"
    wait("check")
"""


class Session:
    """A pytest that builds the workshop's images and stops where its tests wait."""

    def __init__(self, workshop: Workshop) -> None:
        self.path = workshop.pytester.path
        self.log = (self.path / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:randomly", "-ra", "images"],
            cwd=self.path,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def reach(self, name: str) -> None:
        mark = self.path / f"at-{name}"
        assert eventually(lambda: mark.exists() or self.process.poll() is not None, patience=60)
        assert mark.exists(), self.printed()

    def go(self, *names: str) -> None:
        for name in names:
            (self.path / f"go-{name}").touch()

    def end(self) -> int:
        self.go("step", "next", "check")
        return self.process.wait(timeout=60)

    def printed(self) -> str:
        self.log.flush()
        return (self.path / "log").read_text()

    def visit(self, *command: str, code: int = 0, pid: int | None = None) -> tuple[str, str]:
        """On pipes: standard output and standard error."""
        which = [] if pid is None else ["--pid", str(pid)]
        line = azchroot("shell", "images/x", *which, "--", *command)
        done = subprocess.run(
            line, cwd=self.path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def cleaner() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def session(workshop: Workshop, cleaner: ExitStack) -> Session:
    """A build that waits in its first step."""
    workshop.image(test_10=STEPS, test_90=CHECKS)
    return begun(workshop, cleaner)


def begun(workshop: Workshop, cleaner: ExitStack, *, at: str = "step") -> Session:
    session = Session(workshop)
    cleaner.callback(session.close)
    session.reach(at)
    return session


@pytest.fixture
def typist(session: Session, cleaner: ExitStack) -> Typist:
    """Somebody at another terminal, in the image."""
    typist = cleaner.enter_context(typing(azchroot("shell", "images/x"), cwd=session.path))
    typist.wait_for("[x] / # ")
    return typist


def test_a_visitor_is_in_the_image_as_it_is_now(session: Session, workshop: Workshop) -> None:
    out, _ = session.visit("sh", "-c", "cat /etc/motd; echo by hand >/etc/hand; echo $PATH; echo $AZCHROOT_IMAGE")
    motd, path, image = out.splitlines()
    assert (motd, image) == ("hello", "x")
    assert path.startswith("/run/azchroot-stubs:")
    assert session.end() == 0, session.printed()
    assert workshop.read("/etc/hand") == "by hand\n"
    notes = json.loads((session.path / "images/x/x.raw.manifest.json").read_text())["verdict"]["notes"]
    assert notes == ["azchroot shell entered it once before it was sealed, and may have changed it"]


def test_a_visitor_is_held_as_steps_are(workshop: Workshop, cleaner: ExitStack) -> None:
    ask = "grep -e CapBnd -e Seccomp: /proc/self/status"
    step = STEPS.replace("wait('step')", "").replace(
        'wait("step")', f'pathlib.Path("own").write_text(chroot.run("{ask}").stdout); wait("step")'
    )
    workshop.image(yaml="unconfined: [CAP_SYSLOG]", test_10=step, test_90=CHECKS)
    session = begun(workshop, cleaner)
    assert session.visit("sh", "-c", ask)[0] == (session.path / "own").read_text()
    assert "/azchroot" not in session.visit("ls", "/run")[0].replace("azchroot-stubs", "")


def test_a_terminal_in_the_build(session: Session, typist: Typist) -> None:
    assert "writable: what you write is in the image" in typist.seen
    assert typist.run("cat /etc/motd") == "hello\n"
    typist.type("exit 3\n")
    assert typist.end() == 3
    assert session.end() == 0, session.printed()


def test_the_end_of_a_test_does_not_end_a_visitor(session: Session, typist: Typist, workshop: Workshop) -> None:
    typist.run("(setsid sleep 1000 &)")
    session.go("step")
    session.reach("next")
    assert "sleep 1000" in typist.run("ps")
    typist.type("exit\n")
    assert typist.end() == 0
    assert "sleep 1000" not in session.visit("ps")[0], "what he has left has ended with him"
    assert session.end() == 0
    assert "left running" not in session.printed()


def test_the_seal_ends_a_visitor_and_says_so(session: Session, typist: Typist, workshop: Workshop) -> None:
    typist.type("cd /root; sleep 1000\n")
    session.go("step", "next")
    typist.wait_for("azchroot: ended: the build closes the image")
    assert typist.end() == 128 + signal.SIGHUP
    assert not typist.is_raw()
    session.reach("check")
    assert session.end() == 0, session.printed()
    assert "still running before test_check, ended: " in session.printed() and "sleep 1000" in session.printed()
    assert workshop.published()


def test_under_the_seal_a_visitor_writes_to_the_overlay_and_it_counts(session: Session, workshop: Workshop) -> None:
    session.go("step", "next")
    session.reach("check")
    assert session.visit("sh", "-c", "echo x >/etc/hand; cat /etc/motd")[0] == "hello\n"
    assert session.end() == 1
    assert "wrote /etc/hand" in session.printed()
    assert not workshop.published()


def test_a_visitor_leaves_by_kill_9(session: Session, typist: Typist) -> None:
    typist.type("(trap '' HUP TERM; sleep 1000) &\n")
    typist.wait_for("# ")
    [holder] = [pid for pid in descendants_of(session.process.pid) if comm(pid) == "azchroot-holder" and is_first(pid)]
    assert eventually(lambda: any(comm(pid) == "sleep" for pid in descendants_of(holder)))
    os.kill(typist.pid, signal.SIGKILL)
    assert eventually(lambda: descendants_of(holder) == [])
    assert session.end() == 0, session.printed()
    assert "left running" not in session.printed()


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


def is_first(pid: int) -> bool:
    return "\t1\n" in Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].partition("\n")[0] + "\n"


def test_a_build_that_is_killed_lets_its_visitor_go(session: Session, typist: Typist) -> None:
    session.process.kill()
    typist.wait_for("the build has ended")
    assert typist.end() == 1
    assert not typist.is_raw()


def test_before_the_image_is_mounted(workshop: Workshop, cleaner: ExitStack) -> None:
    here = workshop.pytester.path
    command = f"touch {here}/at-mount; while [ ! -e {here}/go-mount ]; do sleep 0.05; done"
    workshop.image(yaml=f"pre_mount_commands: ['{command}']", test_10=STEPS, test_90=CHECKS)
    session = begun(workshop, cleaner, at="mount")
    assert "nobody can enter the image of images/x now: it is not mounted yet" in session.visit("true", code=1)[1]
    session.go("mount")
    assert session.end() == 0, session.printed()


def test_two_builds_of_one_image(session: Session, workshop: Workshop, cleaner: ExitStack) -> None:
    (session.path / "at-step").unlink()
    other = begun(workshop, cleaner)
    pids = [session.process.pid, other.process.pid]
    error = session.visit("true", code=1)[1]
    assert f"images/x is being built by these: pytest {min(pids)}, {max(pids)}" in error and "--pid" in error
    session.visit("sh", "-c", "echo first >/etc/motd", pid=pids[0])
    assert session.visit("cat", "/etc/motd", pid=pids[1])[0] == "hello\n"
    assert f"by these: pytest {min(pids)}, {max(pids)}" in session.visit("true", code=1, pid=1)[1]


def test_it_is_found_while_pdb_waits(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS.replace('wait("step")', "assert 0"), test_90=CHECKS)
    line = [sys.executable, "-m", "pytest", "-p", "no:randomly", "--pdb", "images"]
    with typing(line, cwd=workshop.pytester.path) as debugger:
        debugger.wait_for("(Pdb) ")
        command = azchroot("shell", "images/x", "--", "cat", "/etc/motd")
        done = subprocess.run(command, cwd=workshop.pytester.path, capture_output=True, text=True, check=True)
        assert done.stdout == "hello\n"
        debugger.type("q\n")
        assert debugger.end() == pytest.ExitCode.INTERRUPTED


def test_none_runs(workshop: Workshop) -> None:
    directory = workshop.image()
    text = (directory / "image.yaml").read_text()
    (directory / "image.yaml").write_text(text.replace("x.raw", "out/x.raw"))
    (directory / "out").mkdir()
    kept = [directory / "out" / "x-20260102T030405Z.kept.raw", directory / "x-20260101T030405Z.kept.raw"]
    for path in kept:
        path.touch()
    line = azchroot("shell", directory, "--", "true")
    environment = {**os.environ, "TMPDIR": str(directory)}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == f"no build of {directory} is running"
    assert f"pytest --pdb {directory}" in lines[1]
    assert lines[3:] == [f"  azchroot shell {path}" for path in kept]


def test_what_to_type_is_quoted(tmp_path: Path) -> None:
    directory = tmp_path / "an image"
    directory.mkdir()
    (directory / "image.yaml").touch()
    (directory / "an image-20260102T030405Z.kept.raw").touch()
    done = subprocess.run(azchroot("shell", directory), capture_output=True, text=True, check=False)
    assert f"pytest --pdb '{directory}'\n" in done.stderr
    assert f"azchroot shell '{directory}/an image-20260102T030405Z.kept.raw'\n" in done.stderr


def test_a_directory_without_an_image(tmp_path: Path) -> None:
    done = subprocess.run(azchroot("shell", tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"there is no image.yaml in {tmp_path}" in done.stderr
    assert "name a disk image file, or a directory with an image.yaml" in done.stderr


@pytest.mark.parametrize("options", [["--write"], ["--partition", "1"]])
def test_options_that_are_for_files(tmp_path: Path, options: list[str]) -> None:
    done = subprocess.run(azchroot("shell", tmp_path, *options), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "are for disk image files" in done.stderr
