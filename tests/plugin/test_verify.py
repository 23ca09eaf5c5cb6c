"""``--azchroot-verify``: the checks of a suite on an image that exists already."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import STEPS, Workshop

pytestmark = pytest.mark.root

MOTD = """
    def test_motd(host):
        assert host.file("/etc/motd").content_string == "hello\\n"
"""


@pytest.fixture
def built(workshop: Workshop) -> Path:
    """The suite ``x``, with the image that it has published."""
    directory = workshop.image("x", test_10_steps=STEPS, test_90_checks=MOTD)
    assert workshop.run().ret == 0
    return directory / "x.raw"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("image", ["x.raw", "x.vhd", "x.qcow2"])
def test_the_checks_of_a_suite_pass_on_its_image(workshop: Workshop, image: str) -> None:
    directory = workshop.image("x", test_10_steps=STEPS, test_90_checks=MOTD)
    text = (directory / "image.yaml").read_text()
    (directory / "image.yaml").write_text(text.replace("x.raw", image))
    assert workshop.run().ret == 0
    before = sha256(directory / image)
    result = workshop.run("--azchroot-verify", f"images/x/{image}")
    result.assert_outcomes(passed=1, deselected=2)
    result.stdout.fnmatch_lines([
        f"azchroot: the checks of x on images/x/{image}, which is only read; publishing off",
        f"x  verified  images/x/{image} (1 check passed)*",
    ])  # fmt: skip
    assert sha256(directory / image) == before


def test_a_failing_check_fails_the_verification(workshop: Workshop, built: Path) -> None:
    (built.parent / "test_90_checks.py").write_text("def test_motd(host): assert host.file('/etc/motd').size == 0\n")
    result = workshop.run("--azchroot-verify", str(built))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["x  not verified: 1 failed (test_90_checks.py::test_motd)*"])


def test_no_copy_is_made(workshop: Workshop, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the size is said by the file, and nothing of it is on this file system a second time
    (built.parent / "test_90_checks.py").write_text(
        "def test_disk(image, host):\n"
        "    assert image.disk.read_only\n"
        "    assert image.disk.source.endswith('x.raw')\n"
        "    assert host.run('true').succeeded\n"
    )
    assert workshop.run("--azchroot-verify", str(built)).ret == 0


def test_what_checks_write_goes_nowhere_and_fails_it(workshop: Workshop, built: Path) -> None:
    before = sha256(built)
    (built.parent / "test_90_checks.py").write_text("def test_bad(host): host.run('echo x >/etc/motd')\n")
    result = workshop.run("--azchroot-verify", str(built))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["x  not verified: a check wrote /etc/motd (test_90_checks.py::test_bad)*"])
    assert sha256(built) == before


def test_each_file_sees_the_image_anew_where_writes_are_discarded(workshop: Workshop, built: Path) -> None:
    with (built.parent / "image.yaml").open("a") as file:
        file.write("verify_writes: discard\n")
    (built.parent / "test_90_checks.py").write_text("def test_bad(host): host.run('rm /etc/motd')\n")
    (built.parent / "test_91_more.py").write_text(
        "def test_motd(host):\n    assert host.file('/etc/motd').exists\n    assert host.file('/proc/1/stat').exists\n"
    )
    result = workshop.run("--azchroot-verify", str(built))
    result.assert_outcomes(passed=2, deselected=2)
    assert result.ret == 0


def test_an_image_that_was_built_elsewhere_needs_no_source_of_its_own(workshop: Workshop, built: Path) -> None:
    text = (built.parent / "image.yaml").read_text()
    (built.parent / "image.yaml").write_text(text.replace(str(workshop.source), "not-there.raw"))
    assert workshop.run("--azchroot-verify", str(built)).ret == 0


def test_an_image_of_azure_is_verified_as_a_file(workshop: Workshop, built: Path) -> None:
    (built.parent / "image.yaml").write_text(
        "cloud: azure\n"
        "source: debian:debian-12:12:latest\n"
        "image_resource_id: /subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/g/providers/"
        "Microsoft.Compute/images/i\n"
        "use_azure_cli_auth: true\n"
        "mount_partition: 0\n"
    )
    result = workshop.run("--azchroot-verify", str(built))
    assert result.ret == 0
    result.stdout.fnmatch_lines(["x  verified  *"])


def test_what_makes_an_image_is_not_run(workshop: Workshop, built: Path) -> None:
    with (built.parent / "image.yaml").open("a") as file:
        file.write("pre_mount_commands: ['false']\npost_mount_commands: ['false']\npre_unmount_commands: ['false']\n")
        file.write("copy_files: [/not/there]\nos_disk_size_gb: 9\n")
    (built.parent / "conftest.py").write_text("def pytest_azchroot_mounted(image, chroot): chroot.run('false')\n")
    assert workshop.run("--azchroot-verify", str(built)).ret == 0


def test_several_images_are_refused(workshop: Workshop, built: Path) -> None:
    workshop.image("y")
    result = workshop.run("--azchroot-verify", str(built))
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["*--azchroot-verify names one image, and the checks of 2 are selected: x, y (name the directory of one)"]
    )


def test_one_of_several_can_be_chosen(workshop: Workshop, built: Path) -> None:
    workshop.image("y")
    assert workshop.run("--azchroot-verify", str(built), "images/x").ret == 0


def test_a_file_that_is_not_there_is_named(workshop: Workshop, built: Path) -> None:
    result = workshop.run("--azchroot-verify", "nothing.vhd")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*nothing.vhd cannot be opened: No such file or directory*"])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--azchroot-require-publish", "*publishes nothing, so --azchroot-require-publish makes no sense with it"),
        ("--azchroot-overwrite", "*publishes nothing, so --azchroot-overwrite makes no sense with it"),
        ("--azchroot-keep=always", "*makes no disk, so there is none to keep*"),
    ],
)
def test_options_that_contradict_it_are_refused(workshop: Workshop, built: Path, option: str, words: str) -> None:
    result = workshop.run("--azchroot-verify", str(built), option)
    assert result.ret == 4
    result.stderr.fnmatch_lines([words])


def test_a_part_of_the_checks_does_not_verify_the_image(workshop: Workshop, built: Path) -> None:
    (built.parent / "test_91_more.py").write_text("def test_more(host): pass\n")
    result = workshop.run("--azchroot-verify", str(built), "-k", "test_motd")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["x  not verified: 1 deselected (test_91_more.py::test_more)*"])


def test_an_image_whose_checks_were_all_skipped_is_not_verified(workshop: Workshop, built: Path) -> None:
    (built.parent / "test_90_checks.py").write_text("import pytest\ndef test_motd(host): pytest.skip('not today')\n")
    result = workshop.run("--azchroot-verify", str(built))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["x  not verified: no check passed*"])


def test_an_image_that_was_not_shut_down_is_refused_with_the_reason(workshop: Workshop, built: Path) -> None:
    # as a snapshot of a running machine is: copied while it is mounted
    script = 'mkdir m; mount -o loop "$0" m && touch m/x && sync m && cp "$0" dirty'
    subprocess.run(["unshare", "-m", "sh", "-ec", script, built], cwd=workshop.pytester.path, check=True)
    (workshop.pytester.path / "dirty").replace(built)
    result = workshop.run("--azchroot-verify", str(built))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*was not unmounted*"])


def test_a_file_that_somebody_changes_is_not_verified(workshop: Workshop, built: Path) -> None:
    """As ``azchroot shell --write`` has it."""
    with built.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = workshop.run("--azchroot-verify", str(built))
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*DiskError: {built} is in use: *", "hint: wait until it has ended; *"])


def test_a_file_that_is_verified_is_not_changed(workshop: Workshop, built: Path) -> None:
    (built.parent / "test_90_checks.py").write_text(
        "import fcntl, pytest\n"
        "def test_locked(image, host):\n"
        "    with open(image.disk.source, 'rb+') as file, pytest.raises(BlockingIOError):\n"
        "        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    )
    assert workshop.run("--azchroot-verify", str(built)).ret == 0


def test_two_can_verify_one_image_at_the_same_time(workshop: Workshop, built: Path) -> None:
    (built.parent / "test_90_checks.py").write_text(
        "import os, subprocess, sys\n"
        "def test_twice(host):\n"
        "    if 'INNER' not in os.environ:\n"
        f"        command = [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', '--azchroot-verify', '{built}', __file__]\n"
        "        subprocess.run(command, env={**os.environ, 'INNER': '1'}, check=True)\n"
    )
    assert workshop.run("--azchroot-verify", str(built)).ret == 0


def test_the_manifest_says_that_it_was_verified(workshop: Workshop, built: Path) -> None:
    assert workshop.run("--azchroot-verify", str(built), "--azchroot-output", "out").ret == 0
    manifest = json.loads((workshop.pytester.path / "out" / "x" / "manifest.json").read_text())
    assert (manifest["published"], manifest["verified"]) == (False, True)
    assert manifest["source"]["id"] == str(built)
    command = [sys.executable, "-m", "pytest_azchroot.cli", "digest", str(built)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert manifest["source"]["digest"] == manifest["disk"]["digest"] == done.stdout.split()[0]


def test_one_file_of_checks_does_not_verify_the_image_and_no_step_is_missed(workshop: Workshop, built: Path) -> None:
    result = workshop.run("--azchroot-verify", str(built), "images/x/test_90_checks.py")
    assert result.ret == 0
    result.stdout.re_match_lines([r"x  not verified: only a part of its directory was selected(  \[.*)?$"])


def test_a_suite_without_checks_cannot_verify(workshop: Workshop, built: Path) -> None:
    (built.parent / "test_90_checks.py").unlink()
    result = workshop.run("--azchroot-verify", str(built))
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*cannot verify:", "--azchroot-verify runs checks, and none is selected"])


def test_what_a_check_has_written_is_not_told_in_words_of_a_build(workshop: Workshop, built: Path) -> None:
    (built.parent / "test_90_checks.py").write_text("def test_bad(host): host.run('echo x >/etc/motd')\n")
    workshop.run("--azchroot-verify", str(built)).stdout.no_fnmatch_line("*mark it provision*")
