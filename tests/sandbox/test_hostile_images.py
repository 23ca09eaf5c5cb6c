"""No way out of the image: neither a path that is given to the sandbox nor a command in it reaches a canary on the
build machine. The image is hostile; what it holds, and what runs in it, was made by somebody who knows the sandbox."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import Chroot, CommandError, Sandbox, landlock, syscalls
from pytest_azchroot.sandbox.testinfra import make_host

from . import attacks
from .canary import Canary
from .conftest import copy
from .machine import eventually

pytestmark = pytest.mark.root

UP = "../" * 40


def python(sandbox: Sandbox, canary: Canary, source: str, *arguments: str) -> object:
    """Run an attack in the image; True if it says that it got anywhere."""
    argv = ["python3", "-c", attacks.program(source), str(canary.file), *arguments]
    done = canary.attempt(lambda: sandbox.inside(argv, check=False, timeout=60))
    code, output = getattr(done, "code", None), str(getattr(done, "output", ""))
    assert "Traceback" in output or output == "", output
    return code == 0


# ---- paths: each way to name the canary, given to each call

LINKS = {
    "absolute": "{file}",
    "relative": UP + "{file}",
    "root of PID 1": "/proc/1/root{file}",
    "directory of PID 1": "/proc/1/cwd/" + UP + "{file}",
    "root of itself": "/proc/self/root/" + UP + "{file}",
    "thread": "/proc/thread-self/task/../root/" + UP + "{file}",
    "descriptor of PID 1": "/proc/1/fd/9/" + UP + "{file}",
    **{f"inherited descriptor {number}": f"/proc/self/fd/{number}/" + UP + "{file}" for number in range(3, 13)},
    "mount point": "/run/azchroot/root/" + UP + "{file}",
    "loop of links": "/opt/loop",
}

CALLS: dict[str, Callable[[Sandbox, Canary, Path], object]] = {
    "read": lambda sandbox, canary, _: sandbox.read("/opt/link"),
    "read below a directory": lambda sandbox, canary, _: sandbox.read("/opt/directory/canary"),
    "get": lambda sandbox, canary, tmp_path: _got(sandbox, "/opt/link", tmp_path / "got"),
    "get of a tree": lambda sandbox, canary, tmp_path: _got(sandbox, "/opt/directory", tmp_path / "tree"),
    "write": lambda sandbox, canary, _: sandbox.write("/opt/link", b"changed"),
    "write below a directory": lambda sandbox, canary, _: sandbox.write("/opt/directory/new/file", b"changed"),
    "put": lambda sandbox, canary, tmp_path: sandbox.put(_mine(tmp_path), "/opt/link", mode=0o4777),
    "put into a directory": lambda sandbox, canary, tmp_path: sandbox.put(_mine(tmp_path), "/opt/directory/"),
    "remove": lambda sandbox, canary, _: sandbox.remove("/opt/directory/canary"),
    "directory of a command": lambda sandbox, canary, _: sandbox.inside("cat canary; rm canary", cwd="/opt/directory"),
    "program": lambda sandbox, canary, _: sandbox.inside(["/opt/link"]),
    "program of a user": lambda sandbox, canary, _: sandbox.inside(["/opt/link"], user="worker"),
    "argument": lambda sandbox, canary, _: sandbox.inside("cat /opt/link; echo changed >> /opt/link"),
    "testinfra": lambda sandbox, canary, _: make_host(sandbox, 60).file("/opt/link").content_string,
}


def _mine(directory: Path) -> Path:
    """A file to put. Nothing else of this machine is given to an attack that may succeed one day."""
    path = directory / "mine"
    path.write_text("changed")
    return path


def _got(sandbox: Sandbox, source: str, target: Path) -> str:
    sandbox.get(source, target)
    return "".join(path.read_text() for path in [target, *target.rglob("*")] if path.is_file())


@pytest.fixture
def links(hostile: Sandbox, canary: Canary, request: pytest.FixtureRequest) -> None:
    """Links of the image to the canary and to its directory."""
    form = LINKS[request.param]
    file, directory = (form.format(file=path) for path in (canary.file, canary.directory))
    hostile.inside("rm -rf /opt/link /opt/directory /opt/loop; ln -s loop /opt/loop")
    hostile.inside(["ln", "-s", file, "/opt/link"])
    hostile.inside(["ln", "-s", directory, "/opt/directory"])


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("links", LINKS, indirect=True)
@pytest.mark.usefixtures("links")
def test_a_link_does_not_lead_out(hostile: Sandbox, canary: Canary, tmp_path: Path, call: str) -> None:
    def attack() -> object:
        try:
            return CALLS[call](hostile, canary, tmp_path)
        except RuntimeError as error:  # testinfra's, for a file that is not there
            return error

    canary.attempt(attack)


@pytest.mark.parametrize("links", ["root of PID 1", "inherited descriptor 9"], indirect=True)
@pytest.mark.usefixtures("links")
def test_lists_of_users_do_not_lead_out(hostile: Sandbox, canary: Canary) -> None:
    top = hostile.mount_path
    hostile.outside(f"mv {top}/etc/passwd {top}/etc/own; ln -s /opt/link {top}/etc/passwd")
    try:
        with pytest.raises(SandboxError):
            hostile.inside(["true"], user=canary.token)  # the canary has a line for this user
        with pytest.raises(SandboxError):
            hostile.write("/opt/owned", b"", owner=canary.token)
    finally:
        hostile.outside(f"mv -f {top}/etc/own {top}/etc/passwd")


@pytest.mark.parametrize("link", ["{file}", "/proc/1/root{file}", UP + "{file}"])
def test_what_is_lent_does_not_lead_out(hostile_disk: Path, canary: Canary, tmp_path: Path, link: str) -> None:
    disk = copy(hostile_disk, tmp_path)
    file, directory = (link.format(file=path) for path in (canary.file, canary.directory))
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        for name, target in (("etc/resolv.conf", file), ("run", directory), ("dev", directory), ("sys", directory)):
            sandbox.outside(["ln", "-s", target, f"{sandbox.mount_path}/{name}"])
        canary.attempt(lambda: sandbox.lend(None))
        canary.attempt(lambda: sandbox.inside("cat /etc/resolv.conf; echo changed > /etc/resolv.conf; touch /run/new"))
        canary.attempt(lambda: sandbox.outside(f"ls {canary.directory}; cat {canary.directory}/canary >/dev/null"))
        canary.attempt(sandbox.unmount)


@pytest.mark.parametrize("link", ["{path}", "/proc/1/root{path}", UP + "{path}"])
def test_a_copied_file_does_not_lead_out(hostile: Sandbox, canary: Canary, link: str) -> None:
    parent = canary.directory.parent
    hostile.inside(f"rm -rf {parent}; mkdir -p {parent.parent}")
    hostile.inside(["ln", "-s", link.format(path=parent), str(parent)])
    # the image's link to itself, or one that leads nowhere in it: the canary would be renamed and removed
    with pytest.raises(SandboxError):
        hostile.copy_files([str(canary.file)])
    hostile.ask("give_back")


def test_a_script_is_not_stored_through_a_link(hostile: Sandbox, canary: Canary, tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("#!/bin/sh\necho of the suite\n")
    chroot = Chroot(hostile, directory=tmp_path, environment={}, timeout=60, guard=None)
    for link in (f"/proc/1/root{canary.directory}", f"/proc/self/fd/9/{UP}{canary.directory}"):
        hostile.inside(["ln", "-snf", link, "/run/azchroot"])
        canary.attempt(lambda: chroot.script("canary"))
    hostile.inside("rm /run/azchroot")


def test_a_tree_with_links_is_not_followed_out_here(hostile: Sandbox, canary: Canary, tmp_path: Path) -> None:
    hostile.inside(f"mkdir -p /opt/tree; ln -snf {canary.directory} /opt/tree/a; ln -snf {canary.file} /opt/tree/b")
    hostile.get("/opt/tree", tmp_path / "tree")
    hostile.inside("rm /opt/tree/*; mkdir /opt/tree/a; echo changed > /opt/tree/a/canary; echo changed > /opt/tree/b")
    with pytest.raises(SandboxError):
        hostile.get("/opt/tree", tmp_path / "tree")
    hostile.inside("rm -r /opt/tree/a")
    hostile.get("/opt/tree", tmp_path / "tree")
    assert (tmp_path / "tree" / "b").read_text() == "changed\n"


@pytest.mark.parametrize("path", ["{UP}{file}", "/opt/../..{file}", "/proc/self/cwd/{UP}{file}"])
def test_dots_do_not_lead_out(hostile: Sandbox, canary: Canary, tmp_path: Path, path: str) -> None:
    path = path.format(UP=UP, file=canary.file)
    canary.attempt(lambda: hostile.read(path))
    canary.attempt(lambda: hostile.get(path, tmp_path / "got"))
    canary.attempt(lambda: hostile.write(path, b"changed"))
    hostile.remove(path)


# ---- what commands try


@pytest.mark.parametrize(
    "source",
    [
        attacks.TRACE,
        attacks.MEMORY,
        attacks.DESCRIPTORS,
        attacks.LISTING,
        attacks.NAMESPACE,
        attacks.USER_NAMESPACE,
        attacks.USER_NAMESPACE_BY_CLONE,
        attacks.USER_NAMESPACE_BY_CLONE3,
        attacks.MOUNT,
        attacks.REMOUNT,
        attacks.UMOUNT,
        attacks.PIVOT,
        attacks.CHROOT,
        attacks.KEYRING,
        attacks.RESTART,
        attacks.HOSTNAME,
    ],
)
def test_a_program_does_not_get_out(hostile: Sandbox, canary: Canary, source: str) -> None:
    assert not python(hostile, canary, source)


def test_signals_do_not_reach_out(hostile: Sandbox, canary: Canary) -> None:
    for pid in (canary.process.pid, os.getpid(), hostile.keeper, hostile.holder):
        hostile.inside(["python3", "-c", attacks.program(attacks.SIGNALS), "", str(pid)], ok_codes=[1])
    hostile.inside("kill -9 -1", check=False)


def test_a_file_handle_does_not_lead_out_of_a_bound_directory(
    hostile_disk: Path, canary: Canary, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "up").symlink_to(canary.directory)
    disk = copy(hostile_disk, tmp_path)
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend([("proc", "proc", "/proc"), ("bind", str(shared), "/opt/shared")], resolv_conf="image")
        assert not python(sandbox, canary, attacks.HANDLE, "/opt/shared", _handle(canary.file).hex())
        canary.attempt(lambda: sandbox.inside("cat /opt/shared/../aviary/canary"))
        canary.attempt(lambda: sandbox.inside("cat /opt/shared/up/canary"))
        canary.attempt(
            lambda: sandbox.inside(["ln", f"/opt/shared/../{canary.directory.name}/canary", "/opt/shared/x"])
        )
        canary.attempt(lambda: sandbox.get("/opt/shared", tmp_path / "got"))
        canary.attempt(lambda: sandbox.write("/opt/shared/up/canary", b"changed"))
    assert os.listdir(shared) == ["up"]


def _handle(path: Path) -> bytes:
    """name_to_handle_at(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    assert libc.name_to_handle_at(-100, os.fsencode(path), handle, ctypes.byref(mount), 0) == 0
    return handle.raw[: 8 + struct.unpack("=I", handle.raw[:4])[0]]


def test_nodes_are_not_made(hostile: Sandbox, canary: Canary) -> None:
    for number in (os.makedev(1, 1), os.stat(canary.file).st_dev, os.makedev(7, 0), os.makedev(10, 237)):
        assert not python(hostile, canary, attacks.NODE, str(number))


@pytest.mark.parametrize("node", ["memory", "zero", "disk"])
def test_nodes_of_the_image_do_not_open(hostile: Sandbox, canary: Canary, node: str) -> None:
    with pytest.raises(CommandError, match="Permission denied"):
        hostile.inside(["head", "-c", "1", f"/opt/{node}"])
    with pytest.raises(SandboxError, match="device"):
        hostile.read(f"/opt/{node}")


def test_a_link_as_dev_does_not_let_nodes_open(hostile_disk: Path, tmp_path: Path) -> None:
    disk = copy(hostile_disk, tmp_path)
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.outside(["ln", "-s", "opt", f"{sandbox.mount_path}/dev"])
        sandbox.lend([("proc", "proc", "/proc")], resolv_conf="image")
        with pytest.raises(CommandError, match="Permission denied"):
            sandbox.inside("head -c 1 /dev/zero")


def test_the_disk_of_another_image_does_not_open(hostile: Sandbox, disk: Path, canary: Canary) -> None:
    with Sandbox.start(disk, hostname="other") as other:
        other.mount(other.partition(1))
        other.write("/opt/file", f"\n{canary.token}\n".encode())
        name, number = os.path.basename(other.device), os.stat(other.device).st_rdev
        top = hostile.mount_path
        hostile.outside(["mknod", f"{top}/opt/other", "b", str(os.major(number)), str(os.minor(number))])
        canary.attempt(lambda: hostile.inside(f"cat /opt/other /dev/{name} | grep -a '^[0-9a-f]*$'"))
        with pytest.raises(CommandError, match="Permission denied"):
            hostile.inside("head -c 1 /opt/other; exit 1")
        assert not python(hostile, canary, attacks.NODE, str(number))
        hostile.inside("rm /opt/other")


@pytest.mark.parametrize("make", ["mkfifo /opt/odd", "python3 -c 'import socket; socket.socket(1).bind(\"/opt/odd\")'"])
def test_a_fifo_or_socket_holds_nobody(hostile: Sandbox, canary: Canary, tmp_path: Path, make: str) -> None:
    hostile.inside(f"rm -f /opt/odd; {make}")
    for call in (
        lambda: hostile.read("/opt/odd"),
        lambda: hostile.get("/opt/odd", tmp_path / "got"),
        lambda: hostile.write("/opt/odd", b""),
        lambda: hostile.put(canary.file, "/opt/odd"),
    ):
        with pytest.raises(SandboxError, match="not a regular file"):
            call()


def test_a_set_uid_program_has_no_more_than_root(hostile: Sandbox) -> None:
    status = "print(open('/proc/self/status').read())"
    sets = hostile.inside(["set-uid", "-c", status], user="worker").stdout
    fields = dict(line.split(":\t", 1) for line in sets.splitlines() if ":\t" in line)
    bound = hostile.inside("grep CapBnd /proc/self/status").stdout.split()[1]
    assert fields["Uid"].split()[:2] == ["1234", "0"]
    assert fields["CapEff"] == fields["CapBnd"] == bound
    for source in (attacks.MEMORY, attacks.MOUNT, attacks.HOSTNAME, attacks.NAMESPACE):
        with pytest.raises(CommandError, match=r"not permitted|denied"):
            hostile.inside(["set-uid", "-c", attacks.program(source), ""], user="worker")


@pytest.mark.parametrize(
    "knob",
    [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
    ],
)
def test_the_kernels_settings_are_not_changed(hostile: Sandbox, canary: Canary, knob: str) -> None:
    before = Path(knob).read_text() if knob.startswith("/proc/sys/") else None
    with pytest.raises(CommandError):
        hostile.inside(f": >> {knob}")  # opened for writing, and nothing written
    assert before is None or Path(knob).read_text() == before


def test_an_abstract_socket_of_the_build_machine_is_not_reached(hostile: Sandbox, canary: Canary) -> None:
    if syscalls.landlock_version() < landlock.SINCE:
        pytest.skip("this kernel cannot tell abstract sockets apart: Landlock of Linux 6.12 does")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0azchroot-{canary.token[:8]}")
        listener.listen()
        assert not python(hostile, canary, attacks.ABSTRACT_SOCKET, f"azchroot-{canary.token[:8]}")


def test_abstract_sockets_of_the_image_work(hostile: Sandbox) -> None:
    serve = "import socket; s = socket.socket(1); s.bind('\\0of-the-image'); s.listen(); s.accept()[0].send(b'hello')"
    ask = "import socket; s = socket.socket(1); s.connect('\\0of-the-image'); print(s.recv(9))"
    hostile.inside(f'setsid python3 -c "{serve}" >/dev/null 2>&1 &')
    assert eventually(lambda: "hello" in hostile.inside(["python3", "-c", ask], check=False).stdout)


def test_nothing_is_inherited(hostile: Sandbox) -> None:
    listing = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    assert hostile.inside(["python3", "-c", listing]).stdout == "[0, 1, 2, 3]\n", "3 is that of the list itself"
    assert "azchroot" not in hostile.inside("cat /proc/self/mountinfo").stdout


# ---- processes that race with a transfer


def _in_the_background(sandbox: Sandbox, canary: Canary, source: str) -> None:
    sandbox.write("/opt/attack", attacks.program(source).encode())
    sandbox.inside(f"setsid python3 /opt/attack {canary.file} >/dev/null 2>/opt/errors &")


@pytest.mark.parametrize("call", ["read", "get", "write", "put", "remove", "command"])
def test_a_directory_that_is_swapped_does_not_lead_out(
    hostile: Sandbox, canary: Canary, tmp_path: Path, call: str
) -> None:
    path = "/opt/swap/canary"
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: hostile.read(path),
        "get": lambda: _got(hostile, "/opt/swap", tmp_path / "got"),
        "write": lambda: hostile.write(path, b"changed"),
        "put": lambda: hostile.put(_mine(tmp_path), path),
        "remove": lambda: hostile.remove(path),
        "command": lambda: hostile.inside("cat canary; echo changed > canary", cwd="/opt/swap"),
    }
    _in_the_background(hostile, canary, attacks.SWAP)
    for _ in range(40):
        canary.attempt(calls[call])
    assert [each.command for each in hostile.survivors()] != [], hostile.read("/opt/errors")
    hostile.end(hostile.survivors())
    hostile.inside("rm -rf /opt/swap /opt/other /opt/out")


def test_a_transfer_that_is_stopped_gives_nothing_away(hostile: Sandbox, canary: Canary, tmp_path: Path) -> None:
    hostile.inside("rm -f /opt/seen; truncate -s 64M /opt/large")
    _in_the_background(hostile, canary, attacks.SPY)
    before = canary.file.read_bytes()
    for _ in range(10):
        hostile.put(canary.file, "/opt/put")  # the canary itself is what such a child has open
        hostile.get("/opt/large", tmp_path / "large")
        hostile.inside(["true"])
    hostile.end(hostile.survivors())
    seen = hostile.read("/opt/seen").decode().split("\n")
    assert "met" in seen, "the spy has seen no transfer"
    assert set(seen) - {"met", ""} == set()
    assert canary.file.read_bytes() == before
