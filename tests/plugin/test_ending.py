"""How a run ends before its time: Ctrl-C, SIGTERM, kill -9. Whatever it is, nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.sandbox.machine import eventually, killed_at_last

from .conftest import CHECKS, Workshop

pytestmark = pytest.mark.root

HANG = """
    import pathlib, pytest

    @pytest.mark.provision
    def test_step(chroot):
        chroot.write_text("/etc/motd", "hello\\n")
        chroot.run("sleep 600 &")
        pathlib.Path("started").touch()
        chroot.run("sleep 600")
"""

HANGING_CHECK = """
    import pathlib, time

    def test_check(host):
        host.run("true")
        pathlib.Path("started").touch()
        time.sleep(600)
"""


@contextmanager
def started(workshop: Workshop, *args: str) -> Iterator[subprocess.Popen[str]]:
    """pytest on the workshop's images, when the test that hangs has begun; killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", "-rs", *args, "images"],
        cwd=workshop.pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    mark = workshop.pytester.path / "started"
    with killed_at_last(process):
        assert eventually(lambda: mark.exists() or process.poll() is not None, patience=60), "the test never began"
        assert mark.exists(), process.communicate()[0]
        yield process


@pytest.mark.parametrize("hang", [HANG, HANGING_CHECK], ids=["step", "check"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, 143)])
def test_a_signal_tears_down(workshop: Workshop, hang: str, number: signal.Signals, code: int) -> None:
    workshop.image(test_10=hang, test_90=CHECKS)
    with started(workshop) as process:
        assert workshop.traces()
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "INTERNALERROR" not in output
    assert "x  not published: " in output
    assert workshop.traces() == set()
    assert leftovers(workshop) == []


@pytest.mark.parametrize("hang", [HANG, HANGING_CHECK], ids=["step", "check"])
def test_kill_9_leaves_nothing(workshop: Workshop, hang: str) -> None:
    workshop.image(test_10=hang, test_90=CHECKS)
    with started(workshop) as process:
        process.kill()
    workshop.wait_until_clean()
    assert leftovers(workshop) == []


def leftovers(workshop: Workshop) -> list[str]:
    """Files in the image's directory that were not there before."""
    known = {"image.yaml", "test_10.py", "test_90.py", "__pycache__"}
    return [name for name in os.listdir(workshop.pytester.path / "images" / "x") if name not in known]


def test_pytest_exit_tears_down(workshop: Workshop) -> None:
    workshop.image(test_10=HANG.partition("chroot.run")[0] + "pytest.exit('enough', returncode=7)\n", test_90=CHECKS)
    result = workshop.run()
    assert (result.ret, workshop.published()) == (7, False)


def test_without_root_the_session_is_refused(workshop: Workshop) -> None:
    """In a user's own shell, without sudo: said once, before anything is tried."""
    workshop.image()
    done = subprocess.run(
        # a user namespace without a mapping: not root, and without its capabilities, but able to read our files
        ["unshare", "--user", sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "images"],
        cwd=workshop.pytester.path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert "root" in done.stderr and "sudo" in done.stderr
