"""An image of another architecture: it runs where the kernel has an interpreter, else there is a reason."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_azchroot.disk import elf
from pytest_azchroot.disk.elf import Header
from pytest_azchroot.errors import UnavailableError
from pytest_azchroot.sandbox import Sandbox, binfmt
from pytest_azchroot.sandbox.architecture import remedy, require_runnable
from pytest_azchroot.sandbox.binfmt import NOT_MOUNTED, State

from .foreign import EM_386, EM_AARCH64, EM_IA64, EM_X86_64, EXIT_OF_386, handler, program, speaking
from .machine import BUSYBOX, run

# as the kernel shows what Debian 12's qemu-user-static registers by systemd-binfmt
_ELF = "offset 0\nmagic 7f454c46{}\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
DEBIAN = {
    "qemu-aarch64": "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\n"
    + _ELF.format("0201010000000000000000000200b700"),
    "qemu-arm": "enabled\ninterpreter /usr/libexec/qemu-binfmt/arm-binfmt-P\nflags: POF\n"
    + _ELF.format("01010100000000000000000002002800"),
    "qemu-riscv64": "enabled\ninterpreter /usr/libexec/qemu-binfmt/riscv64-binfmt-P\nflags: POF\n"
    + _ELF.format("0201010000000000000000000200f300"),
}
# Ubuntu 22.04, by binfmt-support
UBUNTU = {"qemu-aarch64": DEBIAN["qemu-aarch64"].replace("POF", "POCF")}
# Ubuntu's package qemu-user-binfmt, whose interpreter is no static program and not opened beforehand
WITHOUT_F = {"qemu-aarch64": DEBIAN["qemu-aarch64"].replace("POF", "PO").replace("libexec/qemu-binfmt", "bin")}

ARM64 = program(EM_AARCH64)


def _state(files: dict[str, str], *, status: str = "enabled") -> State:
    found = [binfmt.parse(name, text) for name, text in files.items()]
    return State(True, status == "enabled", tuple(each for each in found if each is not None))


def _obstacle(state: State, data: bytes = ARM64, **image: bytes) -> str | None:
    def look(path: str) -> Header | None:
        return elf.header(image.get(Path(path).name.replace("-", "_").replace(".", "_"), b""))

    return binfmt.obstacle(state, data, image=look, native=("amd64",))


# ---- what the kernel says, as data


@pytest.mark.parametrize("files", [DEBIAN, UBUNTU])
def test_a_handler_with_the_flag_f_needs_nothing_of_the_image(files: dict[str, str]) -> None:
    assert _obstacle(_state(files)) is None
    chosen = binfmt.chosen(_state(files), ARM64)
    assert chosen is not None and chosen.interpreter == "/usr/libexec/qemu-binfmt/aarch64-binfmt-P"


def test_each_program_has_its_own_handler() -> None:
    state = _state(DEBIAN)
    found = [binfmt.chosen(state, program(machine, bits=bits)) for machine, bits in ((40, 32), (243, 64), (183, 64))]
    assert [each.name for each in found if each] == ["qemu-arm", "qemu-riscv64", "qemu-aarch64"]
    assert binfmt.chosen(state, program(40, bits=64)) is None
    assert binfmt.chosen(state, program(EM_X86_64)) is None


def test_what_is_masked_does_not_matter() -> None:
    freebsd = ARM64[:7] + b"\x09" + ARM64[8:]
    position_independent = ARM64[:16] + b"\x03" + ARM64[17:]
    for data in (freebsd, position_independent):
        assert binfmt.chosen(_state(DEBIAN), data) is not None


def test_a_program_without_a_handler() -> None:
    assert _obstacle(_state(DEBIAN), program(EM_IA64)) == "binfmt_misc has no handler for it"
    assert _obstacle(_state({})) == "binfmt_misc has no handler for it"


def test_nothing_is_known_where_it_is_not_mounted() -> None:
    assert (
        _obstacle(NOT_MOUNTED) == "binfmt_misc is not mounted on /proc/sys/fs/binfmt_misc, so no interpreter is known"
    )


def test_what_is_disabled_does_not_run() -> None:
    disabled = {name: text.replace("enabled", "disabled") for name, text in DEBIAN.items()}
    assert _obstacle(_state(disabled)) == "the handler qemu-aarch64 of binfmt_misc is disabled"
    assert _obstacle(_state(DEBIAN, status="disabled")) == "binfmt_misc is disabled (/proc/sys/fs/binfmt_misc/status)"


def test_without_f_the_interpreter_must_be_in_the_image_and_run_there() -> None:
    state, here = _state(WITHOUT_F), program(EM_X86_64)
    dynamic = program(EM_X86_64, loader="/lib64/ld-linux-x86-64.so.2")
    lacks = (
        "the handler qemu-aarch64 of binfmt_misc lacks the flag F, so its interpreter is looked for in the image, and"
    )
    path = "/usr/bin/aarch64-binfmt-P"
    assert _obstacle(state) == f"{lacks} {path} is not there"
    assert _obstacle(state, aarch64_binfmt_P=b"#!/bin/sh\n") == f"{lacks} {path} is not there"
    assert _obstacle(state, aarch64_binfmt_P=ARM64) == f"{lacks} {path} is there for aarch64 itself"
    assert (
        _obstacle(state, aarch64_binfmt_P=dynamic)
        == f"{lacks} {path} there needs /lib64/ld-linux-x86-64.so.2, which is not"
    )
    assert _obstacle(state, aarch64_binfmt_P=dynamic, ld_linux_x86_64_so_2=here) is None
    assert _obstacle(state, aarch64_binfmt_P=here) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "enabled\n", "enabled\ninterpreter /x\nflags: \nextension .exe\n", "register\n",
        "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7f4\n",
        "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7f45\nmask ff\n",
        "enabled\ninterpreter /x\nflags: F\noffset -1\nmagic 7f45\n",
        "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7f45\nmask zz00\n",
        "enabled\ninterpreter \nflags: F\noffset 0\nmagic 7f45\n",
    ],
)  # fmt: skip
def test_what_is_no_handler_of_programs_is_left_out(text: str) -> None:
    assert binfmt.parse("x", text) is None


def test_a_handler_sees_as_much_of_a_program_as_the_kernel_does() -> None:
    text = "enabled\ninterpreter /x\nflags: F\noffset {}\nmagic {}\n"
    far, long = binfmt.parse("x", text.format(250, "00" * 7)), binfmt.parse("x", text.format(0, "00" * 300))
    near = binfmt.parse("x", text.format(249, "00" * 7))
    assert far and long and near
    data = bytes(4096)
    assert [each.takes(data) for each in (far, long, near)] == [False, False, True]
    assert not near.takes(data[:255])


def test_the_files_are_read(tmp_path: Path) -> None:
    assert binfmt.read(tmp_path) == NOT_MOUNTED
    for name, text in {**DEBIAN, "register": "", "status": "enabled\n"}.items():
        (tmp_path / name).write_text(text)
    assert binfmt.read(tmp_path) == _state(DEBIAN)
    (tmp_path / "status").write_text("disabled\n")
    assert binfmt.read(tmp_path).enabled is False


MOUNT = "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc"
ENABLE = "echo 1 >/proc/sys/fs/binfmt_misc/status"
REGISTER = "update-binfmts --enable, or systemctl restart systemd-binfmt"
INSTALL = "apt-get install qemu-user-static (qemu-user-binfmt on a system that has no such package)"
DISABLED = {name: text.replace("enabled", "disabled") for name, text in DEBIAN.items()}


@pytest.mark.parametrize(
    ("state", "installed", "steps"),
    [
        (NOT_MOUNTED, True, [MOUNT, REGISTER]),
        (NOT_MOUNTED, False, [MOUNT, INSTALL]),
        (_state({}), True, [REGISTER]),
        (_state({}), False, [INSTALL]),
        (_state(DISABLED), True, [REGISTER]),
        (_state(DEBIAN, status="disabled"), True, [ENABLE]),
        (_state(WITHOUT_F), True, [INSTALL]),
    ],
)
def test_what_is_left_to_do(state: State, installed: bool, steps: list[str]) -> None:
    *found, where = remedy(state, ARM64, installed=installed).split("; ")
    assert [each.removeprefix("then ") for each in found] == steps
    assert where == "in a container, do it on the machine that runs the container"


# ---- real images


@contextmanager
def _mounted(root: Path) -> Iterator[Sandbox]:
    disk = root.parent / "disk.raw"
    run("mkfs.ext4", "-q", "-d", root, disk, "8M")
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        yield sandbox
        sandbox.unmount()
        sandbox.close()


def _write(root: Path, path: str, data: bytes) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(0o755)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def here() -> str:
    return elf.of_machine(os.uname().machine)


MARK = f"azt{os.getpid() % 10000:04d}".encode()
"""By this a test's handler takes the test's programs and nobody else's."""


@pytest.mark.root
def test_an_image_of_this_machine_runs_by_itself(root: Path, here: str) -> None:
    _write(root, "bin/busybox", BUSYBOX.read_bytes())
    (root / "bin/sh").symlink_to("busybox")
    with _mounted(root) as sandbox:
        found = require_runnable(sandbox)
    assert found is not None
    assert (found.architecture.kernel, found.emulator) == (here, None)


@pytest.mark.root
def test_the_kernel_decides_on_a_sibling_of_this_machine(root: Path) -> None:
    _write(root, "bin/sh", program(EM_386, EXIT_OF_386, bits=32))
    try:
        subprocess.run([root / "bin/sh"], check=True)
        runs = True
    except OSError:  # a kernel without IA32_EMULATION, or no x86 at all
        runs = False
    with _mounted(root) as sandbox:
        if runs:
            found = require_runnable(sandbox)
            assert found is not None and found.architecture.debian == "i386"
        else:
            with pytest.raises(UnavailableError, match="the image is i686"):
                require_runnable(sandbox)


@pytest.mark.root
def test_of_an_image_without_programs_nothing_is_said(root: Path) -> None:
    _write(root, "bin/sh", b"#!/bin/true\n")
    os.mkfifo(root / "sbin-init")
    (root / "sbin").mkdir()
    (root / "sbin/init").symlink_to("/sbin-init")
    with _mounted(root) as sandbox:
        assert require_runnable(sandbox) is None


@pytest.mark.root
def test_an_image_of_another_machine_is_refused_with_the_reason(root: Path, here: str) -> None:
    _write(root, "opt/sh", program(EM_IA64))
    (root / "bin").mkdir()
    (root / "bin/sh").symlink_to("/opt/sh")
    with _mounted(root) as sandbox, pytest.raises(UnavailableError) as raised:
        require_runnable(sandbox)
    assert raised.value.what == f"the image is ia64 and this machine is {here}"
    assert raised.value.why is not None and raised.value.why.startswith("binfmt_misc ")
    assert raised.value.hint is not None and "qemu-user-static" in raised.value.hint


@pytest.mark.root
def test_links_are_followed_in_the_image(root: Path) -> None:
    # on the build machine both names are programs that run
    _write(root, "bin/busybox", program(EM_IA64))
    (root / "bin/sh").symlink_to("../../../../../bin/busybox")
    with _mounted(root) as sandbox, pytest.raises(UnavailableError, match="the image is ia64"):
        require_runnable(sandbox)


@pytest.mark.root
def test_an_image_without_a_shell_is_told_by_other_programs(root: Path) -> None:
    _write(root, "sbin/init", program(EM_IA64))
    with _mounted(root) as sandbox, pytest.raises(UnavailableError, match="the image is ia64"):
        require_runnable(sandbox)


@pytest.mark.root
def test_an_image_of_another_machine_runs_by_an_interpreter(root: Path) -> None:
    qemu = shutil.which("qemu-aarch64-static")
    assert qemu, "the tests need the package qemu-user-static"
    data = program(EM_AARCH64, speaking(b"hello from elsewhere\n"), mark=MARK)
    _write(root, "bin/sh", data)
    with handler(f"azchroot-test-{os.getpid()}", data[:20], qemu, flags="F"), _mounted(root) as sandbox:
        found = require_runnable(sandbox)
        assert found is not None
        assert found.architecture.debian == "arm64"
        assert found.emulator in {qemu, "an interpreter of binfmt_misc"}
        assert sandbox.inside(["/bin/sh"]).stdout == "hello from elsewhere\n"


@pytest.mark.root
def test_an_interpreter_that_is_not_in_the_image_is_no_help(root: Path, here: str) -> None:
    data = program(EM_IA64, mark=MARK)
    _write(root, "bin/sh", data)
    with (
        handler(f"azchroot-test-{os.getpid()}", data[:20], str(BUSYBOX)),
        _mounted(root) as sandbox,
        pytest.raises(UnavailableError, match=f"the image is ia64 and this machine is {here}"),
    ):
        require_runnable(sandbox)


@pytest.mark.root
def test_an_interpreter_that_fails_is_named(root: Path) -> None:
    data = program(EM_IA64, mark=MARK)
    _write(root, "bin/sh", data)
    with (
        handler(f"azchroot-test-{os.getpid()}", data[:20], "/bin/false", flags="F"),
        _mounted(root) as sandbox,
        pytest.raises(UnavailableError) as raised,
    ):
        require_runnable(sandbox)
    assert "exited with" in str(raised.value) or "not mounted" in str(raised.value)


@pytest.mark.root
def test_looking_writes_nothing(root: Path) -> None:
    _write(root, "bin/sh", program(EM_IA64))
    with _mounted(root) as sandbox:
        before = sandbox.outside(["find", sandbox.mount_path, "-printf", "%p %C@ %m\n"]).stdout
        with pytest.raises(UnavailableError):
            require_runnable(sandbox)
        assert sandbox.outside(["find", sandbox.mount_path, "-printf", "%p %C@ %m\n"]).stdout == before
