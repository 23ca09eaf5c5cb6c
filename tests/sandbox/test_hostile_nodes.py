"""What a command in the image puts in the place of a node leads no tool of the build machine to another disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import Sandbox, layout

from .machine import run

pytestmark = pytest.mark.root


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """A disk of the build machine."""
    path = tmp_path / "other.raw"
    path.write_bytes(bytes(8 << 20))
    device = Path(run("losetup", "--find", "--show", path).strip())
    try:
        yield device
        run("sync", "-f", path)
        assert path.read_bytes() == bytes(8 << 20)
    finally:
        run("losetup", "-d", device)


def test_a_link_in_place_of_a_node(sandbox: Sandbox, other: Path) -> None:
    target = f"{layout.HOST_DEV}/{other.name}"
    found = next(each for each in sandbox.filesystems() if each.number == 1)
    names = [found.node, sandbox.device, "/dev/image1", "/dev/image", f"/dev/disk/by-uuid/{found.uuid}"]
    for name in names:
        sandbox.inside(["ln", "-snf", target, name])
        seen = sandbox.outside(["stat", "-L", "-c", "%t:%T", name]).stdout
        assert seen != sandbox.outside(["stat", "-L", "-c", "%t:%T", target]).stdout
        sandbox.inside(["ln", "-snf", target, name])
        assert next(each for each in sandbox.filesystems() if each.number == 1) == found
    for name in names:
        sandbox.inside(["ln", "-snf", target, name])
    sandbox.outside("for each in /dev/image1 /dev/disk/by-uuid/*; do head -c 512 /dev/zero >$each; done")


def test_a_link_in_place_of_a_directory_of_links(sandbox: Sandbox, other: Path) -> None:
    for directory in ("/dev/disk/by-uuid", "/dev/disk"):
        sandbox.inside(f"rm -rf {directory}; ln -s {layout.HOST_DEV} {directory}")
        assert sandbox.outside(["readlink", "-f", directory]).stdout == f"{directory}\n"


def test_a_directory_in_place_of_a_node_is_an_error(sandbox: Sandbox) -> None:
    sandbox.inside(f"rm {sandbox.partition(1)}; mkdir {sandbox.partition(1)}")
    with pytest.raises(SandboxError, match="Is a directory"):
        sandbox.outside("true")


def test_a_seal_after_all_of_that(sandbox: Sandbox, other: Path) -> None:
    target = f"{layout.HOST_DEV}/{other.name}"
    for name in (sandbox.partition(1), "/dev/image1", sandbox.device):
        sandbox.inside(["ln", "-snf", target, name])
    sandbox.seal()
    assert sandbox.inside("cat /etc/passwd").stdout.startswith("root:")
    sandbox.unmount()
    sandbox.close()
