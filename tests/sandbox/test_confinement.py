"""Syncs that cost nothing, and capabilities that an image has back."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_azchroot.sandbox import CommandError, Confinement, Sandbox, capabilities, seccomp
from pytest_azchroot.spec.fields import REFUSED_CAPABILITIES

from .machine import PARTITION_START, run

SYNC_OF_A_PIPE = "true | sync -d /proc/self/fd/0"
"""fdatasync of a pipe is EINVAL (fdatasync(2)) unless somebody answers in the kernel's place."""


@contextmanager
def confined(disk: Path, confinement: Confinement) -> Iterator[Sandbox]:
    with Sandbox.start(disk, hostname="image", confinement=confinement) as sandbox:
        sandbox.mount(sandbox.partition(1))
        sandbox.lend(None)
        yield sandbox


def _numbers(machine: str, rules: seccomp.Rules) -> set[int]:
    return {value for operation, _, _, value in seccomp.program(machine, rules) if operation == 0x15}


def test_every_sync_of_each_architecture_is_answered() -> None:
    rules = seccomp.inside(may_unshare=True, fast_sync=True)
    assert {74, 75, 162, 306, 26, 277, 118, 148, 36, 344, 144, 314} <= _numbers("x86_64", rules)
    assert {82, 83, 81, 267, 227, 84} <= _numbers("aarch64", rules)
    assert not {74, 75, 162} & _numbers("x86_64", seccomp.inside(may_unshare=True, fast_sync=False))
    assert not {74, 75, 162} & _numbers("x86_64", seccomp.NO_SWAP)


def test_jumps_stay_in_the_program() -> None:
    for machine in ("x86_64", "aarch64"):
        code = seccomp.program(machine, seccomp.inside(may_unshare=False, fast_sync=True))
        for at, (operation, _, skip, _) in enumerate(code):
            assert operation not in {0x15, 0x45} or (skip < 256 and at + 1 + skip < len(code))


def test_the_spec_and_the_sandbox_name_the_same_capabilities() -> None:
    assert tuple(capabilities.REFUSED) == REFUSED_CAPABILITIES


@pytest.mark.root
def test_a_sync_is_answered_inside_and_carried_out_outside(sandbox: Sandbox) -> None:
    sandbox.inside(SYNC_OF_A_PIPE)
    with pytest.raises(CommandError, match=os.strerror(errno.EINVAL)):
        sandbox.outside(SYNC_OF_A_PIPE)


@pytest.mark.root
def test_syncs_can_be_carried_out(disk: Path) -> None:
    with (
        confined(disk, Confinement(fast_sync=False)) as sandbox,
        pytest.raises(CommandError, match=os.strerror(errno.EINVAL)),
    ):
        sandbox.inside(SYNC_OF_A_PIPE)


@pytest.mark.root
def test_a_close_writes_out_what_was_not_synced(disk: Path, tmp_path: Path) -> None:
    with confined(disk, Confinement()) as sandbox:
        sandbox.inside("seq 1 100000 > /opt/numbers; sync; sync -d /opt/numbers")
        sandbox.unmount()
        sandbox.close()
    # from the file, past every cache but the page cache of the file itself, which the close has written out
    part = f"{disk}?offset={PARTITION_START}"
    found = subprocess.run(["debugfs", "-R", "cat /opt/numbers", part], capture_output=True, check=True).stdout
    assert found == b"".join(b"%d\n" % number for number in range(1, 100001))
    direct = run("dd", f"if={disk}", "iflag=direct", "bs=1M", "status=none", f"of={tmp_path / 'direct'}")
    assert direct == ""
    assert (tmp_path / "direct").read_bytes() == disk.read_bytes()


@pytest.mark.root
def test_the_machine_is_not_renamed_without_it(sandbox: Sandbox) -> None:
    # what `waagent -deprovision` does, and it goes on if it fails
    before = socket.gethostname()
    done = sandbox.inside("echo localhost.localdomain > /etc/hostname; hostname localhost.localdomain", check=False)
    assert done.code == 1
    assert (socket.gethostname(), sandbox.inside("hostname").stdout) == (before, "image\n")


@pytest.mark.root
def test_capabilities_are_given_back(disk: Path) -> None:
    before = socket.gethostname()
    with confined(disk, Confinement(unconfined=("SYS_ADMIN", "MKNOD"))) as sandbox:
        sandbox.inside("mount -t tmpfs none /tmp && touch /tmp/x && umount /tmp")
        sandbox.inside("mknod /opt/zero c 1 5 && head -c 1 /opt/zero >/dev/null")
        sandbox.inside("hostname renamed")
        assert socket.gethostname() == before
        with pytest.raises(CommandError):
            sandbox.inside("ls /proc/1/root/")
        sandbox.unmount()
        sandbox.close()
