"""An image that nobody changes or publishes is looked at where it is: no copy, sealed from the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import STEPS, Workshop

pytestmark = pytest.mark.root

READ_ONLY = """
    def test_disk(image, host):
        assert image.disk.read_only is {}
        assert host.file("/etc/passwd").exists
        assert host.file("/proc/1/stat").exists
"""
NO_PUBLISH = "--azchroot-no-publish"


@pytest.fixture
def looked_at(workshop: Workshop) -> Path:
    """An image with checks alone, which say that their disk is the source."""
    return workshop.image("x", test_90_checks=READ_ONLY.format("True"))


def said(directory: Path, read_only: bool, **files: str) -> None:
    for name, text in {**files, "test_90_checks": READ_ONLY.format(read_only)}.items():
        (directory / f"{name}.py").write_text("\n".join(line[4:] for line in text.splitlines()) + "\n")


@pytest.mark.usefixtures("looked_at")
def test_where_publishing_is_off_the_source_is_not_copied(workshop: Workshop) -> None:
    before = workshop.source.read_bytes()
    result = workshop.run(NO_PUBLISH)
    result.assert_outcomes(passed=1, skipped=1)
    assert workshop.source.read_bytes() == before


def test_skip_create_image_switches_publishing_off(workshop: Workshop) -> None:
    workshop.image("x", yaml="skip_create_image: true", test_90_checks=READ_ONLY.format("True"))
    workshop.run().assert_outcomes(passed=1, skipped=1)


@pytest.mark.usefixtures("looked_at")
def test_a_part_of_the_suite_publishes_nothing(workshop: Workshop) -> None:
    workshop.run("images/x/test_90_checks.py::test_disk").assert_outcomes(passed=1)


def test_steps_that_are_not_selected_change_nothing(workshop: Workshop) -> None:
    workshop.image("x", test_10_steps=STEPS, test_90_checks=READ_ONLY.format("True"))
    workshop.run("images/x/test_90_checks.py").assert_outcomes(passed=1)


def test_what_is_to_be_published_is_copied(workshop: Workshop, looked_at: Path) -> None:
    said(looked_at, False)
    workshop.run().assert_outcomes(passed=2)
    assert workshop.published()


def test_what_a_step_changes_is_copied(workshop: Workshop, looked_at: Path) -> None:
    said(looked_at, False, test_10_steps=STEPS)
    workshop.run(NO_PUBLISH).assert_outcomes(passed=2, skipped=1)


@pytest.mark.parametrize(
    "line",
    [
        "pre_mount_commands: ['true']",
        "post_mount_commands: ['touch {{ mount_path }}/x']",
        "pre_unmount_commands: ['true']",
        "copy_files: [/etc/hostname]",
        "os_disk_size_gb: 1",
    ],
)
def test_what_image_yaml_changes_is_copied(workshop: Workshop, line: str) -> None:
    workshop.image("x", yaml=line, test_90_checks=READ_ONLY.format("False"))
    workshop.run(NO_PUBLISH).assert_outcomes(passed=1, skipped=1)


@pytest.mark.parametrize(
    "conftest",
    [
        "def pytest_azchroot_mounted(image, chroot): chroot.write_text('/etc/x', '')\n",
        "import pytest\n@pytest.fixture(scope='package')\ndef disk(disk):\n    disk.run('true')\n    return disk\n",
        "import pytest\n@pytest.fixture(scope='package')\ndef chroot(chroot):\n    return chroot\n",
    ],
)
def test_what_a_conftest_changes_is_copied(workshop: Workshop, looked_at: Path, conftest: str) -> None:
    said(looked_at, False)
    (looked_at / "conftest.py").write_text(conftest)
    workshop.run(NO_PUBLISH).assert_outcomes(passed=1, skipped=1)


def test_a_format_that_the_kernel_cannot_read_is_copied(workshop: Workshop, looked_at: Path) -> None:
    workshop.pytester.run("qemu-img", "convert", "-O", "qcow2", str(workshop.source), "x.qcow2")
    text = (looked_at / "image.yaml").read_text()
    (looked_at / "image.yaml").write_text(text.replace(str(workshop.source), "../../x.qcow2"))
    said(looked_at, False)
    workshop.run(NO_PUBLISH).assert_outcomes(passed=1, skipped=1)


def test_the_device_cannot_be_written(workshop: Workshop) -> None:
    check = """
        import pytest

        def test_device(disk, host):
            with pytest.raises(Exception, match="(?i)not permitted|read-only"):
                disk.run(f"dd if=/dev/zero of={disk.device} count=1 conv=notrunc")
    """
    workshop.image("x", test_90_checks=check)
    before = workshop.source.read_bytes()
    workshop.run(NO_PUBLISH).assert_outcomes(passed=1, skipped=1)
    assert workshop.source.read_bytes() == before


@pytest.mark.usefixtures("looked_at")
def test_it_takes_no_room(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/null/no-directory")  # a copy would have to be made there
    workshop.run("images/x/test_90_checks.py").assert_outcomes(passed=1)


def test_a_read_only_image_is_not_kept(workshop: Workshop, looked_at: Path) -> None:
    (looked_at / "test_90_checks.py").write_text("def test_bad(host): assert False\n")
    result = workshop.run(NO_PUBLISH, "--azchroot-keep=always")
    result.stdout.no_fnmatch_line("*was kept*")
    assert list(looked_at.glob("*.kept.raw")) == []
