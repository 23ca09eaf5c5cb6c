"""Ctrl-C, and SIGTERM, by which CI systems cancel and after ten seconds kill: at every stage the build ends in time, asks
Azure to detach and delete, waits for neither, and says what is left to whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pytest_azchroot.emulator.arm import call_name
from pytest_azchroot.emulator.hooks import OperationFault
from pytest_azchroot.emulator.http import Request
from pytest_azchroot.emulator.settings import Machine, Profile, Settings
from tests.clouds.azure.workshop import CHECK, AzureWorkshop

pytestmark = pytest.mark.root

SECONDS = 10.0
"""What CI systems give."""
LATENCY = 3.0
STEP = """
    import pathlib, pytest

    @pytest.mark.provision
    def test_step(chroot, image):
        chroot.run("echo hello > /etc/marker")
        if image.name == "steps":
            pathlib.Path("now-steps").touch()
            chroot.run("sleep 60")
"""
SLOW_CHECK = """
    import pathlib

    def test_check_slowly(host, image):
        if image.name == "checks":
            pathlib.Path("now-checks").touch()
            host.run("sleep 60")
"""


@dataclass(frozen=True)
class Stage:
    """When a build is interrupted."""

    name: str
    call: str = ""
    """A moment after this has arrived; else when the build says so by a file."""
    nth: int = 1


STAGES = (
    Stage("create", "PUT disks"),
    Stage("attach", "POST virtualMachines/attachDetachDataDisks"),
    Stage("steps"),
    Stage("seal"),
    Stage("checks"),
    Stage("publish", "PUT images"),
)


@pytest.fixture
def azure_emulator_images() -> dict[str, Path]:
    """The workshop fills it."""
    return {}


@pytest.fixture
def azure_emulator_settings(azure_emulator_settings: Settings) -> Settings:
    """Everything takes three seconds; many disks can be attached."""
    machine = Machine(size="Standard_D16s_v5")
    return replace(azure_emulator_settings, machine=machine, profile=Profile({"*": LATENCY}, device_share=0.3))


class Signals:
    """Knows which build asks for what: its disks and images are named after its image."""

    def __init__(self) -> None:
        self.came: dict[str, threading.Event] = {stage.name: threading.Event() for stage in STAGES}

    def request(self, name: str, request: Request) -> None:
        """Of the emulator's hooks."""
        text = f"{request.path} {request.body.decode(errors='replace')}"
        for stage in STAGES:
            if stage.call and call_name(request) == stage.call and (f"azchroot-{stage.name}-" in text):
                self.came[stage.name].set()

    def operation(self, kind: str, resource: str) -> OperationFault | None:
        """Of the emulator's hooks."""
        return None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_it_leaves_in_time_and_says_what_is_left(
    number: signal.Signals, azure_workshop: AzureWorkshop, subtests: pytest.Subtests
) -> None:
    signals = Signals()
    azure_workshop.azure.emulator.hooks.add(signals)
    ended: dict[str, tuple[float, str]] = {}

    def interrupt(stage: Stage) -> None:
        ended[stage.name] = _interrupted(stage, number, signals, azure_workshop)

    threads = [threading.Thread(target=interrupt, args=[stage]) for stage in STAGES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for stage in STAGES:
        with subtests.test(stage.name):
            seconds, said = ended[stage.name]
            assert seconds < SECONDS, said
            assert "azchroot sweep" in said, said
            assert "Traceback" not in said and "INTERNALERROR" not in said, said
    deletes = {
        call["path"].rpartition("/")[2].split("-")[1]
        for call in azure_workshop.azure.calls()
        if call["name"] == "DELETE disks"
    }
    assert deletes >= {"seal", "steps", "checks"}
    sweep = [str(Path(sys.executable).with_name("azchroot")), "sweep"]
    done = subprocess.run(sweep, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    azure_workshop.nothing_is_left()
    assert not [*azure_workshop.azure.compute().images.list()]


def _interrupted(stage: Stage, number: signal.Signals, signals: Signals, workshop: AzureWorkshop) -> tuple[float, str]:
    """Seconds until the build ended after the signal, and what it has printed."""
    now = workshop.pytester.path / f"now-{stage.name}"
    options = {"pre_unmount_commands": [f"touch {now}; sleep 60"]} if stage.name == "seal" else {}
    workshop.image(
        stage.name, files={"test_10_step": STEP, "test_20_check": SLOW_CHECK, "test_90_check": CHECK}, **options
    )
    argv = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", f"images/{stage.name}"]
    with subprocess.Popen(
        argv, cwd=workshop.pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as build:
        _wait(lambda: signals.came[stage.name].is_set() or now.exists(), build)
        time.sleep(0.3)
        began = time.monotonic()
        build.send_signal(number)
        said, _ = build.communicate(timeout=60)
        return time.monotonic() - began, said


def _wait(true: Callable[[], bool], build: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not true() and build.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
