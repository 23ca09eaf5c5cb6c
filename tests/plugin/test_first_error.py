"""Of several things that go wrong, a report says the first one first, and each later one once."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import CHECKS, STEPS, Workshop

pytestmark = pytest.mark.root

CLOUD = """
    import os
    from contextlib import contextmanager
    from pytest_azchroot.clouds import Attachment
    from pytest_azchroot.clouds.local import LocalCloud

    FAILING = {failing!r}

    def fail(where):
        if where in FAILING:
            raise ValueError(f"no {{where}}")

    class Stranger(LocalCloud):
        "Its releases fail."
        name = "stranger"

        @contextmanager
        def create(self, order):
            with super().create(order) as disk:
                try:
                    yield disk
                finally:
                    fail("deleting")

        @contextmanager
        def attach(self, order, disk):
            link = order.directory / "link"
            link.symlink_to(disk.id)
            try:
                yield Attachment(link)
            except Exception:
                if "telling" not in FAILING:
                    raise
            finally:
                link.unlink(missing_ok=True)
                fail("detaching")

        def publish(self, order, disk):
            fail("publishing")
            return super().publish(order, disk)

    def pytest_azchroot_clouds(config):
        return [Stranger()]
"""

HELD = """
    import subprocess, pytest

    @pytest.mark.provision
    def test_hold(chroot):
        root = f"/proc/{chroot._sandbox.holder}/root{chroot.mount_path}"
        pytest.holding = subprocess.Popen(["sleep", "1000"], cwd=root)
"""

DAMAGE = """
    import pytest

    def damage(chroot):
        chroot.write_text("/root/file", "x" * 5000)
        mount, node = chroot.mount_path, chroot.partition(0)
        clear = f"debugfs -w -R 'clri /root/file' {node}"
        chroot.run_outside(f"umount -R {mount} && {clear} && mount {node} {mount}")
"""

DAMAGED = DAMAGE + "    @pytest.mark.provision\n    def test_damage(chroot): damage(chroot)\n"

UNREADABLE = """
    import pytest

    @pytest.mark.provision
    def test_unlink(chroot, image):
        (image.path / "link").unlink()
"""


@pytest.fixture(autouse=True)
def _let_go(workshop: Workshop) -> Iterator[None]:
    """End what a suite has left holding an image."""
    yield
    holding: subprocess.Popen[bytes] | None = vars(pytest).pop("holding", None)
    if holding:
        holding.kill()
        holding.wait()


def make(workshop: Workshop, *failing: str, yaml: str = "", conftest: str = "", **files: str) -> Path:
    """An image on a cloud whose releases fail; without steps and checks it has some that pass."""
    conftest = textwrap.dedent(CLOUD.format(failing=failing)) + textwrap.dedent(conftest)
    files = files or {"test_10": STEPS, "test_90": CHECKS}
    directory = workshop.image(yaml=yaml, conftest=conftest, **files)
    config = directory / "image.yaml"
    config.write_text(config.read_text().replace("cloud: local", "cloud: stranger"))
    return directory


def in_order(result: pytest.RunResult, *texts: str) -> None:
    """Each text is there, once but for pytest's short summary, and after the one before."""
    report = result.stdout.str().split("short test summary")[0]
    section = result.stdout.str().partition("= images =")[2].split("short test summary")[0]
    places = [report.index(text) for text in texts]
    assert places == sorted(places), report
    for text in texts:
        assert report.count(text) - section.count(text) <= 1, (text, report)


NO_DETACHING = "ValueError: no detaching (in fail, "
NO_DELETING = "ValueError: no deleting (in fail, "


def test_a_disk_that_is_not_deleted_is_told_and_undoes_nothing(workshop: Workshop) -> None:
    make(workshop, "deleting")
    result = workshop.run()
    assert (result.ret, workshop.published()) == (0, True)
    result.stdout.fnmatch_lines([f"x: {NO_DELETING}*".replace("[", "[[]")])


def test_a_failed_step_comes_before_failed_releases(workshop: Workshop) -> None:
    step = "import pytest\n@pytest.mark.provision\ndef test_step(chroot): chroot.run('false')"
    make(workshop, "detaching", "deleting", test_10=step, test_90=CHECKS)
    result = workshop.run("-rs")
    result.assert_outcomes(failed=1, errors=1, skipped=2)
    in_order(result, "ERROR at teardown of test_check", "no detaching", "`false` exited with 1", NO_DELETING)
    assert (result.ret, workshop.published()) == (1, False)


def test_an_image_that_does_not_mount(workshop: Workshop) -> None:
    make(workshop, "detaching", "deleting", yaml="mount_options: [no_such_option]")
    result = workshop.run("-rs")
    result.assert_outcomes(errors=2, skipped=2)
    in_order(result, "cannot be mounted on", "no detaching", NO_DELETING)
    assert result.ret == 1


@pytest.mark.usefixtures("impatient")
def test_an_image_that_is_held_on_a_cloud_that_does_not_detach(workshop: Workshop) -> None:
    make(workshop, "detaching", "deleting", yaml="checks: none", test_10=HELD)
    result = workshop.run("-rs")
    result.assert_outcomes(passed=1, errors=1, skipped=1)
    in_order(result, "DirtyImageError: /", "is still in use", "holds cwd", f"then: {NO_DETACHING}", NO_DELETING)
    assert "ExceptionGroup" not in result.stdout.str()
    assert (result.ret, workshop.published()) == (1, False)


def test_a_digest_that_cannot_be_taken(workshop: Workshop) -> None:
    make(workshop, "detaching", "deleting", yaml="checks: none", test_10=UNREADABLE)
    result = workshop.run("-rs")
    result.assert_outcomes(passed=1, errors=1, skipped=1)
    in_order(result, "DiskError: ", "cannot be opened: No such", f"then: {NO_DETACHING}", NO_DELETING)
    assert (result.ret, workshop.published()) == (1, False)


def test_a_cloud_swallows_nothing(workshop: Workshop) -> None:
    make(workshop, "telling", yaml="checks: none", test_10=UNREADABLE)
    result = workshop.run("-rs")
    result.assert_outcomes(passed=1, errors=1, skipped=1)
    in_order(result, "cannot be opened: No such")


def test_a_seal_that_fails(workshop: Workshop) -> None:
    make(workshop, "detaching", "deleting", test_10=DAMAGED, test_90=CHECKS)
    result = workshop.run("-rs")
    result.assert_outcomes(passed=1, errors=2, skipped=1)
    in_order(result, "ERROR at setup of test_check", "is not clean", "ERROR at teardown", "no detaching", NO_DELETING)
    assert (result.ret, workshop.published()) == (1, False)


def test_a_hook_that_fails_and_an_image_that_is_not_clean(workshop: Workshop) -> None:
    hook = "    def pytest_azchroot_mounted(image, chroot):\n        damage(chroot)\n        raise KeyError('hook')\n"
    make(workshop, "detaching", "deleting", conftest=DAMAGE + hook)
    result = workshop.run("-rs")
    result.assert_outcomes(errors=2, skipped=2)
    in_order(result, "KeyError: 'hook'", "is not clean", "no detaching", NO_DELETING)
    result.stdout.fnmatch_lines(["*then: the file system on * is not clean*"])


def test_an_artifact_that_is_not_made(workshop: Workshop) -> None:
    make(workshop, "publishing", "deleting")
    result = workshop.run("-rs")
    result.assert_outcomes(passed=2, failed=1)
    in_order(result, "no publishing", NO_DELETING)
    assert (result.ret, workshop.published()) == (1, False)


def test_a_users_fixture_fails_before_all_that(workshop: Workshop) -> None:
    fixture = """
        import pytest

        @pytest.fixture(scope="package")
        def mine(chroot):
            yield
            raise KeyError("mine")
    """
    step = DAMAGED.replace("test_damage(chroot)", "test_damage(chroot, mine)")
    make(workshop, "detaching", "deleting", yaml="checks: none", conftest=fixture, test_10=step)
    result = workshop.run("-rs")
    result.assert_outcomes(passed=1, errors=1, skipped=1)
    in_order(result, "KeyError: 'mine'", "is not clean", "no detaching", NO_DELETING)


@pytest.mark.parametrize("victim", ["holder", "keeper"])
def test_a_sandbox_that_dies(workshop: Workshop, victim: str) -> None:
    step = f"""
        import os, signal, pytest

        @pytest.mark.provision
        def test_step(chroot):
            os.kill(chroot._sandbox.{victim}, signal.SIGKILL)
            chroot.run("true")
    """
    make(workshop, "detaching", "deleting", test_10=step, test_90=CHECKS)
    result = workshop.run("-rs")
    result.assert_outcomes(failed=1, errors=1, skipped=2)
    in_order(result, "ERROR at teardown of test_check", f"then: {NO_DETACHING}", NO_DELETING)
    result.stdout.fnmatch_lines(["*the sandbox has died*"])
    assert (result.ret, workshop.published()) == (1, False)


def test_an_interrupt_is_one(workshop: Workshop) -> None:
    step = "import pytest\n@pytest.mark.provision\ndef test_step(chroot): raise KeyboardInterrupt"
    make(workshop, "detaching", "deleting", test_10=step, test_90=CHECKS)
    result = workshop.run(subprocess=True)
    assert (result.ret, workshop.published()) == (pytest.ExitCode.INTERRUPTED, False)
    result.stdout.fnmatch_lines([f"x: {NO_DETACHING}*", f"x: {NO_DELETING}*"])
    assert "Traceback" not in result.stderr.str()
