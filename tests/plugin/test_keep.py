"""``--azchroot-keep``: the disk of an image outlives the session, for people to look at."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sandbox.machine import eventually, killed_at_last

from .conftest import STEPS, Workshop

pytestmark = pytest.mark.root

FAILING_CHECK = "def test_motd(host): assert host.file('/etc/motd').size == 0\n"
FAILING_STEP = """
    import pytest

    @pytest.mark.provision
    def test_step(chroot):
        chroot.write_text("/etc/motd", "half\\n")
        chroot.run("false")
"""


def kept(workshop: Workshop, name: str = "x") -> list[Path]:
    return sorted((workshop.pytester.path / "images" / name).glob("*.kept.raw"))


def read(disk: Path, path: str) -> str:
    return subprocess.run(["debugfs", "-R", f"cat {path}", disk], check=True, capture_output=True, text=True).stdout


def is_clean(disk: Path) -> bool:
    return subprocess.run(["e2fsck", "-fn", disk], check=False, capture_output=True).returncode == 0


def test_by_default_nothing_is_kept(workshop: Workshop) -> None:
    workshop.image("x", test_10_steps=FAILING_STEP)
    workshop.run()
    assert kept(workshop) == []


@pytest.mark.parametrize("keep", ["failed", "always"])
def test_the_disk_of_a_failed_check_is_kept_whole_and_clean(workshop: Workshop, keep: str) -> None:
    workshop.image("x", test_10_steps=STEPS, test_90_checks=FAILING_CHECK)
    workshop.run(f"--azchroot-keep={keep}")
    (disk,) = kept(workshop)
    assert read(disk, "/etc/motd") == "hello\n"
    assert is_clean(disk)
    assert not workshop.published()


def test_the_disk_of_a_failed_step_is_kept(workshop: Workshop) -> None:
    workshop.image("x", test_10_steps=FAILING_STEP)
    workshop.run("--azchroot-keep=failed")
    (disk,) = kept(workshop)
    assert read(disk, "/etc/motd") == "half\n"
    assert is_clean(disk)


def test_the_commands_that_enter_and_remove_it_are_printed(workshop: Workshop) -> None:
    workshop.image("x", yaml="mount_partition: 0", test_10_steps=FAILING_STEP)
    result = workshop.run("--azchroot-keep=failed")
    (disk,) = kept(workshop)
    result.stdout.fnmatch_lines([
        f"x: its disk was kept: {disk}",
        f"    look into it:  azchroot shell --partition 0 {disk}",
        f"    remove it:     rm {disk}",
    ])  # fmt: skip
    (remove,) = [line.split(":", 1)[1] for line in result.outlines if "remove it:" in line]
    subprocess.run(remove, shell=True, check=True)
    assert kept(workshop) == []


def test_failed_keeps_nothing_of_a_good_image(workshop: Workshop) -> None:
    workshop.image("x")
    assert workshop.run("--azchroot-keep=failed").ret == 0
    assert workshop.published()
    assert kept(workshop) == []


def test_failed_keeps_nothing_where_only_publishing_is_off(workshop: Workshop) -> None:
    workshop.image("x")
    workshop.run("--azchroot-keep=failed", "--azchroot-no-publish")
    assert kept(workshop) == []


def test_always_keeps_what_is_not_published(workshop: Workshop) -> None:
    workshop.image("x")
    result = workshop.run("--azchroot-keep=always", "--azchroot-no-publish")
    (place,) = {line.split(": ")[-1] for line in result.outlines if "its disk was kept" in line}
    assert read(Path(place), "/etc/motd") == "hello\n"
    os.unlink(place)


def test_a_disk_that_became_the_artifact_is_not_kept_twice(workshop: Workshop) -> None:
    directory = workshop.image("x")
    result = workshop.run("--azchroot-keep=always")
    assert kept(workshop) == []
    result.stdout.fnmatch_lines([f"    look into it:  azchroot shell {directory / 'x.raw'}"])
    result.stdout.no_fnmatch_line("*remove it*")


def test_a_disk_that_was_published_converted_is_kept_beside(workshop: Workshop) -> None:
    directory = workshop.image("x")
    (directory / "image.yaml").write_text(f"cloud: local\nsource: {workshop.source}\noutput: x.qcow2\n")
    assert workshop.run("--azchroot-keep=always").ret == 0
    (disk,) = kept(workshop)
    assert read(disk, "/etc/motd") == "hello\n"


def test_a_failed_teardown_counts_as_failed(workshop: Workshop) -> None:
    # decided after the last teardown, not after the last test
    directory = workshop.image("x")
    (directory / "conftest.py").write_text(
        "import pytest\n"
        "@pytest.fixture(scope='package', autouse=True)\n"
        "def late(image):\n    yield\n    raise RuntimeError('too late')\n"
    )
    result = workshop.run("--azchroot-keep=failed")
    assert result.ret == 1
    assert len(kept(workshop)) == 1
    assert not workshop.published()


def test_a_veto_counts_as_failed(workshop: Workshop) -> None:
    directory = workshop.image("x")
    (directory / "conftest.py").write_text("def pytest_azchroot_verdict(image, verdict): return 'no'\n")
    workshop.run("--azchroot-keep=failed")
    assert len(kept(workshop)) == 1


def test_the_manifest_names_it(workshop: Workshop) -> None:
    workshop.image("x", test_10_steps=FAILING_STEP)
    workshop.run("--azchroot-keep=failed", "--azchroot-output", "out")
    (disk,) = kept(workshop)
    manifest = json.loads((workshop.pytester.path / "out" / "x" / "manifest.json").read_text())
    assert manifest["kept"] == str(disk)


def test_a_disk_that_cannot_be_kept_is_a_problem_and_the_rest_is_released(workshop: Workshop) -> None:
    directory = workshop.image("x", test_10_steps=FAILING_STEP)
    (directory / "conftest.py").write_text(
        "from pytest_azchroot import DiskError\n"
        "from pytest_azchroot.clouds.local import LocalCloud\n"
        "class Full(LocalCloud):\n"
        "    def keep(self, order, disk): raise DiskError('no room')\n"
        "def pytest_azchroot_clouds(config): return [Full()]\n"
    )
    result = workshop.run("--azchroot-keep=failed")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["x: *no room*"])
    assert kept(workshop) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, 143)])
def test_an_interrupted_build_is_kept_only_if_always_is_said(
    workshop: Workshop, number: signal.Signals, code: int
) -> None:
    step = """
        import pytest

        @pytest.mark.provision
        def test_step(chroot):
            chroot.write_text("/etc/motd", "half\\n")
            open("ready", "w").close()
            chroot.run("sleep 1000")
    """
    workshop.image("x", test_10_steps=step)
    ready = workshop.pytester.path / "ready"
    for keep, count in (("failed", 0), ("always", 1)):
        command = [sys.executable, "-m", "pytest", "-p", "no:randomly", f"--azchroot-keep={keep}", "images"]
        running = subprocess.Popen(command, cwd=workshop.pytester.path, stdout=subprocess.PIPE, text=True)
        with killed_at_last(running):
            assert eventually(ready.exists, patience=60)
            time.sleep(0.1)
            running.send_signal(number)
            output, _ = running.communicate(timeout=60)
        ready.unlink()
        assert running.returncode == code, output
        assert len(kept(workshop)) == count, output


def test_a_kept_disk_has_a_name_of_its_time(workshop: Workshop) -> None:
    workshop.image("x", test_10_steps=FAILING_STEP)
    workshop.run("--azchroot-keep=failed")
    (disk,) = kept(workshop)
    assert re.fullmatch(r"x-\d{8}T\d{6}Z\.kept\.raw", disk.name)
