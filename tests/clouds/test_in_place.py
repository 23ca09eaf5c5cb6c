"""A source that is only read, where it is: who else may have it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_azchroot.clouds import Order
from pytest_azchroot.clouds.local import LocalCloud
from pytest_azchroot.errors import DiskError
from pytest_azchroot.spec import BUILTIN_CLOUDS, load
from tests.disk.conftest import sparse_disk


@pytest.fixture
def source(tmp_path: Path) -> Path:
    sparse_disk(tmp_path / "base.raw")
    return tmp_path / "base.raw"


@pytest.fixture
def order(source: Path) -> Order:
    path = source.parent / "image.yaml"
    path.write_text("cloud: local\nsource: base.raw\nskip_create_image: true\n")
    configuration = load(path, clouds=BUILTIN_CLOUDS, environ={})
    return Order("image", source.parent, configuration, publish=False, read_only=True)


def refusal(order: Order) -> str:
    with pytest.raises(DiskError) as caught, LocalCloud().create(order):
        pass
    return str(caught.value)


def test_others_may_read_it(order: Order) -> None:
    with LocalCloud().create(order) as one, LocalCloud().create(order) as two:
        assert one.read_only and two.read_only


def test_a_virtual_machine_may_not_write_to_it(order: Order, source: Path) -> None:
    """QEMU locks single bytes of the file."""
    tool = shutil.which("qemu-io") or pytest.fail("qemu-io is not installed: apt-get install qemu-utils")
    machine = subprocess.Popen([tool, "-f", "raw", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with machine:
        assert machine.stdin and machine.stdout
        machine.stdin.write("length\n")
        machine.stdin.flush()
        machine.stdout.readline()
        assert f"{source} is in use: a virtual machine or another program has locked it" in refusal(order)
        machine.stdin.close()


@pytest.mark.root
@pytest.mark.parametrize("options", [(), ("--read-only",)])
def test_a_loop_device_may_read_it(order: Order, source: Path, options: tuple[str, ...]) -> None:
    line = ["losetup", "--find", "--show", *options, str(source)]
    device = subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()
    try:
        if options:
            with LocalCloud().create(order) as disk:
                assert disk.read_only
        else:
            assert f"{source} is in use: {device} is bound to it" in refusal(order)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
