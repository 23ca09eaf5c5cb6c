"""Disks that cannot be made, mounted or let go: who is blamed, and that the next image is not touched by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import CHECKS, STEPS, Workshop

pytestmark = pytest.mark.root


def test_one_bad_image_stops_the_session_before_any_disk(workshop: Workshop) -> None:
    workshop.image("x")
    bad = workshop.image("y")
    (bad / "image.yaml").write_text("cloud: local\nsource: missing.raw\noutput: nowhere/y.raw\n")
    result = workshop.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["y: *missing.raw*", "y: *nowhere*mkdir*"])
    assert not workshop.published("x")


def test_a_disk_that_cannot_be_made_is_one_error_and_the_next_image_goes_on(workshop: Workshop) -> None:
    """The source goes away after the preflight."""
    directory = workshop.image("x")
    source = directory / "gone.raw"
    source.write_bytes(workshop.source.read_bytes())
    (directory / "image.yaml").write_text("cloud: local\nsource: gone.raw\noutput: x.raw\n")
    (directory / "conftest.py").write_text(
        f"import os\ndef pytest_runtest_logstart(): os.path.exists({str(source)!r}) and os.unlink({str(source)!r})"
    )
    workshop.image("y")
    result = workshop.run("-rs")
    result.assert_outcomes(errors=1, skipped=2, passed=3)
    result.stdout.fnmatch_lines(["*gone.raw*", "*step test_10_steps.py::test_step failed*"])
    assert (result.ret, workshop.published("x"), workshop.published("y")) == (1, False, True)


def test_without_steps_every_check_of_a_disk_that_cannot_be_mounted_is_an_error(workshop: Workshop) -> None:
    workshop.image(yaml="mount_options: [no_such_option]", test_90="def test_a(host): pass\ndef test_b(host): pass")
    result = workshop.run()
    result.assert_outcomes(errors=2, skipped=1)


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_is_not_let_go_does_not_seal(workshop: Workshop) -> None:
    """This process holds the image's device open, past the patience of the strict close and of the release."""
    workshop.image(
        "x",
        test_10="""
            import os, pytest

            @pytest.mark.provision
            def test_step(chroot):
                chroot.write_text("/etc/motd", "hello\\n")
                numbers = open(f"/sys/block/{os.path.basename(chroot.device)}/dev").read().split(":")
                os.mknod("held", 0o60600, os.makedev(*map(int, numbers)))
                pytest.held = os.open("held", os.O_RDONLY)
        """,
        test_90=CHECKS,
    )
    workshop.image("y")
    result = workshop.run("-rs")
    result.assert_outcomes(passed=4, errors=2, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at setup of test_check*",
            "*is still open somewhere*",
            "*ERROR at teardown of test_check*",
            "*not published: 1 failed*did not close*",
        ]
    )
    assert (result.ret, workshop.published("x"), workshop.published("y")) == (1, False, True)
    os.close(pytest.held)  # type: ignore[attr-defined]


def test_a_failing_disk_fixture_that_is_rerun_leaves_nothing(workshop: Workshop) -> None:
    directory = workshop.image()
    (directory / "conftest.py").write_text(
        "import pytest\ntries = []\n@pytest.fixture(scope='package')\ndef disk(disk):\n"
        "  tries.append(1)\n  assert len(tries) > 1, 'not yet'\n  return disk\n"
    )
    result = workshop.run("--reruns", "2", "-rs")
    assert result.ret in (0, 1)
    assert workshop.published() == (result.ret == 0)


@pytest.mark.parametrize("scope", ["function", "package"])
def test_a_users_fixture_that_fails_afterwards_blocks(workshop: Workshop, scope: str) -> None:
    directory = workshop.image(test_10=STEPS, test_90="def test_a(host, mine): assert host.file('/etc/motd').exists")
    (directory / "conftest.py").write_text(
        f"import pytest\n@pytest.fixture(scope={scope!r})\ndef mine(host):\n  yield\n  assert False, 'late'\n"
    )
    result = workshop.run("-rs")
    assert (result.ret, workshop.published()) == (1, False)
    result.stdout.fnmatch_lines(["*late*", "*not published: 1 failed*"])


def test_a_failing_hook_fails_the_test_that_asked_for_the_image(workshop: Workshop) -> None:
    directory: Path = workshop.image()
    (directory / "conftest.py").write_text("def pytest_azchroot_mounted(image, chroot): raise ValueError('no')")
    result = workshop.run("-rs")
    result.assert_outcomes(errors=1, skipped=2)
    assert not workshop.published()


def test_a_failed_command_around_mounting_is_one_error(workshop: Workshop) -> None:
    workshop.image(yaml="post_mount_commands: ['false']")
    result = workshop.run("-rs")
    result.assert_outcomes(errors=1, skipped=2)
    result.stdout.fnmatch_lines(["*CommandError: `false` exited with 1*"])


@pytest.mark.parametrize("args", [("-k", "test_check"), ("images/x/test_90_checks.py",)])
def test_a_part_of_an_image_runs_although_its_artifact_exists(workshop: Workshop, args: tuple[str, ...]) -> None:
    directory = workshop.image(test_90_checks="def test_check(host): assert host.file('/etc/passwd').exists")
    (directory / "x.raw").write_text("precious")
    assert workshop.run(*args).ret == 0
    assert (directory / "x.raw").read_text() == "precious"
