"""An image of another architecture, from image.yaml on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sandbox.foreign import EM_AARCH64, EM_IA64, handler, program, speaking

from .conftest import Workshop

pytestmark = pytest.mark.root

STEP = """
    import pytest

    @pytest.mark.provision
    def test_step(chroot):
        assert chroot.run(["/bin/sh"]).stdout == "hello\\n"
"""
CHECK = """
    def test_check():
        pass
"""


def _disk(workshop: Workshop, shell: bytes) -> Path:
    root = workshop.pytester.mkdir("root")
    for name in ("bin", "etc", "proc", "sys", "dev", "run", "tmp"):
        (root / name).mkdir()
    (root / "bin/sh").write_bytes(shell)
    (root / "bin/sh").chmod(0o755)
    disk = workshop.pytester.path / "foreign.raw"
    subprocess.run(["mkfs.ext4", "-q", "-d", root, disk, "8M"], check=True, capture_output=True)
    return disk


def test_what_does_not_run_here_is_refused_before_the_first_step(workshop: Workshop) -> None:
    workshop.source = _disk(workshop, program(EM_IA64))
    workshop.image(test_10=STEP, test_90=CHECK)
    result = workshop.run()
    result.stdout.fnmatch_lines(["*the image is ia64 and this machine is *: binfmt_misc *", "*qemu-user-static*"])
    result.assert_outcomes(errors=1, skipped=2)
    assert not workshop.published()


def test_what_an_interpreter_runs_is_built(workshop: Workshop) -> None:
    qemu = shutil.which("qemu-aarch64-static")
    assert qemu, "the tests need the package qemu-user-static"
    shell = program(EM_AARCH64, speaking(b"hello\n"), mark=f"azp{os.getpid() % 10000:04d}".encode())
    workshop.source = _disk(workshop, shell)
    workshop.image(test_10=STEP, test_90=CHECK)
    with handler(f"azchroot-plugin-{os.getpid()}", shell[:20], qemu, flags="F"):
        assert workshop.run().ret == 0
    assert workshop.published()
