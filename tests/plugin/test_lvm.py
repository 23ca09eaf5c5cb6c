"""Images whose root is on LVM go the whole way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.disk import lvm_disk
from tests.disk.lvm_disk import VOLUMES, place
from tests.disk.lvm_writer import MIB, Group, Volume, write
from tests.sandbox.machine import eventually, killed_at_last

from .conftest import Workshop

pytestmark = pytest.mark.root

STEPS = """
    import pytest

    @pytest.mark.provision
    def test_step(chroot):
        chroot.write_text("/etc/motd", "hello\\n")
        chroot.write_text("/boot/vmlinuz", "kernel\\n")
        chroot.write_text("/var/made", "var\\n")
"""

CHECKS = """
    def test_each_is_a_mount(host):
        rows = [row.split() for row in host.check_output("cat /proc/mounts").splitlines()]
        sources = {row[1]: row[0] for row in rows}
        assert sources["/"] == "/dev/mapper/my--vg-root"
        assert sources["/var"] == "/dev/mapper/my--vg-var"

    def test_written(host):
        assert host.file("/boot/vmlinuz").content_string == "kernel\\n"
        assert host.file("/var/made").content_string == "var\\n"
"""


@pytest.fixture
def lvm(workshop: Workshop, tmp_path: Path) -> Workshop:
    """Its source has /boot on a partition, root and /var on volumes of LVM."""
    tree = tmp_path / "tree"
    shutil.copytree(workshop.source.parent / "root", tree, symlinks=True)
    workshop.source = lvm_disk.make(tmp_path / "lvm.raw", tree)
    return workshop


def published(workshop: Workshop) -> Path:
    return workshop.pytester.path / "images" / "x" / "x.raw"


def test_what_steps_write_lands_on_its_volume(lvm: Workshop) -> None:
    lvm.image(test_10=STEPS, test_90=CHECKS)
    result = lvm.run()
    result.assert_outcomes(passed=4)
    disk = published(lvm)
    assert lvm_disk.read(disk, place(VOLUMES["root"]), "/etc/motd") == "hello\n"
    assert lvm_disk.read(disk, place(VOLUMES["var"]), "/made") == "var\n"
    assert lvm_disk.read(disk, lvm_disk.BOOT, "/vmlinuz") == "kernel\n"
    for volume in VOLUMES.values():
        offset = f"{disk}?offset={place(volume)}"
        subprocess.run(["e2fsck", "-fn", offset], check=True, capture_output=True)


def with_two_roots(workshop: Workshop, tmp_path: Path) -> None:
    """A volume more, which is a root as well."""
    group = Group("my-vg", {**VOLUMES, "other": Volume([(0, 70, 20)])}, [100 * MIB])
    write(workshop.source, group, [lvm_disk.PHYSICAL])
    tree = tmp_path / "tree"
    (tree / "etc" / "fstab").write_text("/dev/my-vg/other / ext4\n")
    lvm_disk.ext4(workshop.source, place(group.volumes["other"]), 20 * MIB, "-d", tree)


def test_two_roots_are_not_clear(lvm: Workshop, tmp_path: Path) -> None:
    with_two_roots(lvm, tmp_path)
    lvm.image(test_10=STEPS, test_90=CHECKS)
    result = lvm.run()
    result.stdout.fnmatch_lines(["*which file system is the root is not clear*", "*the logical volume my-vg/root*"])
    result.stdout.fnmatch_lines(["*lvm_root_device: /dev/rootvg/rootlv*"])
    assert not lvm.published()


@pytest.mark.parametrize("device", ["/dev/my-vg/root", "/dev/mapper/my--vg-root"])
def test_the_user_names_the_volume(lvm: Workshop, tmp_path: Path, device: str) -> None:
    with_two_roots(lvm, tmp_path)
    lvm.image(yaml=f"lvm_root_device: {device}", test_10=STEPS, test_90=CHECKS)
    lvm.run().assert_outcomes(passed=4)
    assert lvm_disk.read(published(lvm), place(VOLUMES["root"]), "/etc/motd") == "hello\n"


def test_a_volume_that_is_not_there_is_said(lvm: Workshop) -> None:
    lvm.image(yaml="lvm_root_device: /dev/rootvg/rootlv", test_10=STEPS, test_90=CHECKS)
    result = lvm.run()
    result.stdout.fnmatch_lines(["*no logical volume rootvg/rootlv: its logical volumes are: my-vg/var, my-vg/root*"])
    assert not lvm.published()


def test_a_killed_build_leaves_nothing(lvm: Workshop) -> None:
    """The workshop looks for loop devices, mounts and processes afterwards."""
    step = """
        import pytest, time

        @pytest.mark.provision
        def test_step(chroot):
            chroot.write_text("/var/made", "x")
            open("reached", "w").close()
            time.sleep(1000)
    """
    lvm.image(test_10=step)
    reached = lvm.pytester.path / "reached"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "images"]
    run = subprocess.Popen(command, cwd=lvm.pytester.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with killed_at_last(run):
        assert eventually(reached.exists, patience=60)
        assert any("backing_file" in trace for trace in lvm.traces())
    lvm.wait_until_clean()
    assert not lvm.published()
