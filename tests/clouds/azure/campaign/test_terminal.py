"""What the terminal says of it, and four whole runs of pytest at once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.emulator.settings import Profile, Settings
from tests.clouds.azure.workshop import AzureWorkshop

pytestmark = pytest.mark.root

COUNT = 4


@pytest.fixture
def azure_emulator_images() -> dict[str, Path]:
    """The workshop fills it."""
    return {}


@pytest.fixture
def azure_emulator_settings(azure_emulator_settings: Settings) -> Settings:
    """Everything takes a moment, and Azure's limits hold."""
    return replace(azure_emulator_settings, profile=Profile({"*": 0.2}), throttled=True)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"call": "PUT disks", "status": 403, "code": "AuthorizationFailed"}, "*making the disk azchroot-x-*"),
        (
            {"operation": "virtualMachines.attachDetach", "nth": 1, "code": "Oops"},
            "*attaching azchroot-x-* failed: Oops*",
        ),
        (
            {"call": "PUT images", "status": 400, "code": "InvalidParameter"},
            "*nothing was published: making the image x failed*",
        ),
        (
            {"operation": "images.create", "code": "InternalExecutionError"},
            "*nothing was published: making the image x failed*",
        ),
    ],
    ids=lambda each: "-".join(map(str, each.values())) if isinstance(each, dict) else "",
)
def test_a_failure_is_told_in_words(fault: dict[str, Any], said: str, azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image()
    azure_workshop.azure.fault(**fault)
    result = azure_workshop.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([said])
    for word in ("Traceback", "INTERNALERROR", "eyJ"):
        result.stdout.no_fnmatch_line(f"*{word}*")
    assert not [*azure_workshop.azure.compute().images.list()]
    azure_workshop.nothing_is_left()


def test_a_disk_that_is_not_deleted_does_not_undo_a_good_build(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image()
    azure_workshop.azure.fault(call="DELETE disks", status=403, code="AuthorizationFailed")
    result = azure_workshop.run()
    result.stdout.fnmatch_lines(["*was not deleted*", "*azchroot sweep*"])
    assert azure_workshop.read("/etc/marker", azure_workshop.image_id()) == "hello\n"
    assert len(azure_workshop.journals()) == 1


def test_a_managed_image_that_is_late_is_taken_up_by_the_next_run(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image(polling_duration_timeout=2)
    azure_workshop.azure.fault(operation="images.create", delay=4.0)
    first = azure_workshop.run()
    first.stdout.fnmatch_lines(
        ["*the image x is not complete: making the image x did not end within 2 s*", "*run again*"]
    )
    asked = azure_workshop.names().count("PUT images")
    second = azure_workshop.run()
    assert second.ret == pytest.ExitCode.OK
    assert azure_workshop.names().count("PUT images") == asked
    assert azure_workshop.read("/etc/marker", azure_workshop.image_id()) == "hello\n"
    azure_workshop.nothing_is_left()


def test_runs_of_pytest_at_once(azure_workshop: AzureWorkshop) -> None:
    names = [f"x{number}" for number in range(COUNT)]
    runs = []
    for name in names:
        azure_workshop.image(name, files={"test_10_step": STEP.format(name=name), "test_90_check": CHECK})
        argv = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", f"images/{name}"]
        runs.append(subprocess.Popen(argv, cwd=azure_workshop.pytester.path, stdout=subprocess.PIPE, text=True))
    said = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * COUNT, "\n".join(said)
    for name in names:
        assert azure_workshop.read("/etc/marker", azure_workshop.image_id(name)) == f"{name}\n"
    assert 429 not in {call["status"] for call in azure_workshop.azure.calls()}
    azure_workshop.nothing_is_left()


STEP = """
    import pytest

    @pytest.mark.provision
    def test_step(chroot):
        chroot.run("echo {name} > /etc/marker")
"""
CHECK = """
    def test_check(host):
        assert host.file("/etc/marker").exists
"""
