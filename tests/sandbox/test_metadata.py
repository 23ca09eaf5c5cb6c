"""Commands in the image do not reach the metadata service, and nothing else of the network changes."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_azchroot.errors import UnavailableError
from pytest_azchroot.sandbox import Confinement, Sandbox, metadata, syscalls

from .conftest import copy
from .machine import descendants_of, eventually, is_alive, run
from .network import own_network, serving

# what somebody may try; prints who answered, or why not
ASK = '''
import ctypes, errno, json, os, socket, struct, sys
UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
MAPPED, FASTOPEN, MPTCP = "::ffff:", 0x20000000, 262
libc = ctypes.CDLL(None, use_errno=True)

def connected(address, port, *, family=socket.AF_INET, kind=TCP, protocol=0):
    s = socket.socket(family, kind, protocol)
    s.settimeout(20)
    s.connect((address, port))
    if kind == UDP:
        s.send(b"?")
    return s.recv(100)

def sent(address, port, *, family=socket.AF_INET, kind=UDP, flags=0, protocol=0):
    s = socket.socket(family, kind, protocol)  # one with a timeout would not wait for the handshake
    s.sendto(b"?", flags, (address, port))
    return s.recv(100)

def message(address, port):
    s = socket.socket(socket.AF_INET, UDP)
    s.settimeout(20)
    s.sendmsg([b"?"], [], 0, (address, port))
    return s.recv(100)

def disguised(address, port):
    """Bound to what looks like a connection to somebody else, then reconnected."""
    s = socket.socket(socket.AF_INET, UDP)
    s.settimeout(20)
    s.connect(("127.0.0.1", 80))
    s.connect((address, port))
    s.send(b"?")
    return s.recv(100)

def asked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")

def other_family(address, port, *, named, connecting, family=socket.AF_INET6):
    """What a socket of one family is told of an address of another, or of none."""
    s = socket.socket(family, UDP)
    s.settimeout(20)
    where = struct.pack("=H", named) + struct.pack(">H4s8x", port, socket.inet_aton(address))
    if connecting:
        asked(libc.connect(s.fileno(), where, len(where)))
        s.send(b"?")
    else:
        asked(libc.sendto(s.fileno(), b"?", 1, 0, where, len(where)))
    return s.recv(100)

def many(address, port):
    """sendmmsg(2)."""
    s = socket.socket(socket.AF_INET, UDP)
    s.settimeout(20)
    where = ctypes.create_string_buffer(struct.pack("=H", 2) + struct.pack(">H4s8x", port, socket.inet_aton(address)))
    data = ctypes.create_string_buffer(b"?")
    part = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(data), 1))
    row = struct.pack("PIxxxxPNPNixxxxIxxxx", ctypes.addressof(where), 16, ctypes.addressof(part), 1, 0, 0, 0, 0)
    asked(libc.sendmmsg(s.fileno(), ctypes.create_string_buffer(row), 1, 0))
    return s.recv(100)

def elsewhere(address, port):
    """Connected to somebody else, and sent to this one."""
    s = socket.socket(socket.AF_INET, UDP)
    s.connect(("127.0.0.1", 80))
    s.sendto(b"?", (address, port))
    s.settimeout(1)  # what answers is not who it is connected to: not heard
    try:
        return s.recv(100)
    except TimeoutError:
        return b"token"

def child(address, port):
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, (tried(connected, address, port)).encode())
        os._exit(0)
    return os.read(read, 100)

def raw(address, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    return b"made"

def frames(address, port):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    return b"made"

def tried(function, *arguments, **options):
    try:
        return function(*arguments, **options).decode()
    except OSError as error:
        # no MPTCP in this kernel, no fast open, no IPv6: nothing to try
        unknown = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENOPROTOOPT)
        return "" if error.errno in unknown else type(error).__name__

WAYS = {
    "tcp": lambda a, p: connected(a, p),
    "mptcp": lambda a, p: connected(a, p, protocol=MPTCP),
    "mptcp in v6": lambda a, p: connected(MAPPED + a, p, protocol=MPTCP, family=socket.AF_INET6),
    "mptcp fast open": lambda a, p: sent(a, p, kind=TCP, protocol=MPTCP, flags=FASTOPEN),
    "v4 address, v6 socket": lambda a, p: other_family(a, p, named=2, connecting=False),
    "v4 address, v6 socket, connected": lambda a, p: other_family(a, p, named=2, connecting=True),
    "no family": lambda a, p: other_family(a, p, named=0, connecting=False, family=socket.AF_INET),
    "many": many,
    "elsewhere": elsewhere,
    "tcp in v6": lambda a, p: connected(MAPPED + a, p, family=socket.AF_INET6),
    "tcp fast open": lambda a, p: sent(a, p, kind=TCP, flags=FASTOPEN),
    "udp": lambda a, p: sent(a, p),
    "udp message": message,
    "udp in v6": lambda a, p: sent(MAPPED + a, p, family=socket.AF_INET6),
    "udp connected": lambda a, p: connected(a, p, kind=UDP),
    "udp connected in v6": lambda a, p: connected(MAPPED + a, p, kind=UDP, family=socket.AF_INET6),
    "udp reconnected": disguised,
    "orphan": child,
}
RAW = {"raw": raw, "frames": frames}
address, port = sys.argv[1], int(sys.argv[2])
wanted = RAW if port == 0 else WAYS
print(json.dumps({name: tried(way, address, port) for name, way in wanted.items()}))
'''

REACHED, REFUSED = {"token"}, {"PermissionError"}


@pytest.fixture
def network() -> Iterator[None]:
    with own_network(), serving():
        yield


@pytest.fixture
def image(hostile_disk: Path, tmp_path: Path) -> Path:
    """An image with a Python."""
    return copy(hostile_disk, tmp_path)


def _ask(sandbox: Sandbox, address: str, port: int, user: str = "root") -> set[str]:
    done = sandbox.inside(["/usr/bin/python3", "-c", ASK, address, str(port)], user=user, timeout=100)
    answers: dict[str, str] = json.loads(done.stdout)
    return _tried(answers)


def _tried(answers: dict[str, str]) -> set[str]:
    found = {answer for answer in answers.values() if answer}
    assert found
    return found


# ---- the program


def _decide(six: bool, address: str, port: int) -> int:
    """Run the program as the kernel does."""
    family = socket.AF_INET6 if six else socket.AF_INET
    packed = socket.inet_pton(family, address)
    context = struct.pack("=I", family) + (bytes(4) + packed if six else packed + bytes(16))
    context += struct.pack("=H2x", socket.htons(port))
    code, registers, at = metadata.program(six=six), {1: 0}, 0
    for _ in range(100):
        operation, target, _, offset, number = code[at]
        at += 1
        if operation == 0x61:
            (registers[target],) = struct.unpack_from("=I", context, offset)
        elif operation == 0xB7:
            registers[target] = number
        elif operation == 0x95:
            return registers[0]
        elif (registers[target] == number) == (operation == 0x16):
            at += offset
    raise AssertionError("it does not end")


@pytest.mark.parametrize(
    ("address", "port", "passes"),
    [
        ("169.254.169.254", 80, 0),
        ("169.254.169.254", 53, 0),
        ("169.254.169.253", 80, 1),
        ("168.63.129.16", 80, 0),
        ("168.63.129.16", 32526, 0),
        ("168.63.129.16", 53, 1),
        ("168.63.129.17", 80, 1),
        ("254.169.254.169", 80, 1),
        ("127.0.0.1", 80, 1),
    ],
)
def test_an_address_decides(address: str, port: int, passes: int) -> None:
    assert _decide(False, address, port) == passes
    assert _decide(True, f"::ffff:{address}", port) == passes


@pytest.mark.parametrize("prefix", ["2001:db8::", "::", "fe80::ffff:", "::1:ffff:", "1::ffff:"])
def test_an_address_that_only_ends_alike_is_another(prefix: str) -> None:
    assert _decide(True, f"{prefix}169.254.169.254", 80) == 1


def test_azure_is_known_by_its_asset_tag(tmp_path: Path) -> None:
    tag = tmp_path / "tag"
    assert not metadata.is_azure(tag)
    tag.write_text("7783-7084-3265-9085-8269-3286-77\n")
    assert metadata.is_azure(tag)
    tag.write_text("No Asset Tag\n")
    assert not metadata.is_azure(tag)


def test_without_a_control_group_it_is_said_and_on_azure_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metadata.deny(None) == "this kernel has no cgroup2"
    monkeypatch.setattr(metadata, "is_azure", lambda: True)
    with pytest.raises(UnavailableError, match="metadata_service: true"):
        metadata.deny(None)


# ---- real networks


@pytest.mark.root
@pytest.mark.usefixtures("network")
def test_the_metadata_service_is_not_reached_by_any_way(image: Path) -> None:
    with Sandbox.start(image, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend(None)
        assert sandbox.reaches_metadata is None
        for user in ("root", "worker"):
            assert _ask(sandbox, "169.254.169.254", 80, user) == REFUSED
            assert _ask(sandbox, "168.63.129.16", 80, user) == REFUSED
            assert _ask(sandbox, "168.63.129.16", 32526, user) == REFUSED
            assert _ask(sandbox, "169.254.169.254", 0, user) == REFUSED


@pytest.mark.root
@pytest.mark.usefixtures("network")
def test_the_rest_of_the_network_is_as_it_was(image: Path) -> None:
    with Sandbox.start(image, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend(None)
        for address, port in (("127.0.0.1", 80), ("192.0.2.7", 80), ("168.63.129.16", 53)):
            assert _ask(sandbox, address, port) == REACHED


@pytest.mark.root
@pytest.mark.usefixtures("network")
def test_the_build_machine_reaches_it_meanwhile(image: Path) -> None:
    with Sandbox.start(image, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        with socket.create_connection(("169.254.169.254", 80)) as connected:
            assert connected.recv(100) == b"token"
        done = sandbox.outside([sys.executable, "-c", ASK, "169.254.169.254", "80"])
        assert _tried(json.loads(done.stdout)) == REACHED


@pytest.mark.root
@pytest.mark.usefixtures("network")
def test_a_daemon_and_what_checks_run_do_not_reach_it_either(image: Path) -> None:
    with Sandbox.start(image, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend(None)
        waiting = "import os, time\nwhile not os.path.exists('/run/go'): time.sleep(0.01)\n"
        sandbox.write("/opt/daemon", f"{waiting}{ASK}".encode())
        sandbox.inside("setsid /usr/bin/python3 /opt/daemon 169.254.169.254 80 >/run/answer 2>&1 & true")
        sandbox.inside("touch /run/go")
        assert eventually(lambda: b"}" in sandbox.read("/run/answer"), patience=100)
        assert _tried(json.loads(sandbox.read("/run/answer"))) == REFUSED
        sandbox.seal()
        assert _ask(sandbox, "169.254.169.254", 80) == REFUSED
        sandbox.unmount()
        sandbox.close()


@pytest.mark.root
@pytest.mark.usefixtures("network")
def test_it_is_reached_if_that_is_wanted(image: Path) -> None:
    with Sandbox.start(image, hostname="image", confinement=Confinement(metadata_service=True)) as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend(None)
        assert sandbox.reaches_metadata == "metadata_service: true"
        assert _ask(sandbox, "169.254.169.254", 80) == REACHED
        assert _ask(sandbox, "168.63.129.16", 32526) == REACHED
        assert _groups_of(sandbox.holder) is None


@pytest.mark.root
@pytest.mark.usefixtures("network")
def test_no_group_can_be_moved_to(image: Path) -> None:
    """Not even by somebody who may mount, and to whom the build machine's /sys is lent."""
    given = Confinement(unconfined=("SYS_ADMIN",))
    move = "mkdir -p /tmp/group && mount -t cgroup2 none /tmp/group && echo $$ >/tmp/group/cgroup.procs && "
    with Sandbox.start(image, hostname="image", confinement=given) as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend(None)
        found = sandbox.inside(f"{move} ls -d /tmp/group/azchroot-* || cat /proc/self/cgroup", check=False)
        assert "azchroot" not in found.stdout
        sandbox.write("/opt/ask", ASK.encode())
        done = sandbox.inside(f"{move} exec /usr/bin/python3 /opt/ask 169.254.169.254 80")
        assert _tried(json.loads(done.stdout)) == REFUSED


@pytest.mark.root
@pytest.mark.usefixtures("network")
def test_no_group_is_there_where_the_build_machines_are_lent(image: Path) -> None:
    lent = [("bind", "/sys", "/sys"), ("proc", "proc", "/proc"), ("bind", "/dev", "/dev")]
    with Sandbox.start(image, hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend(lent)
        assert sandbox.outside(
            f"cd {sandbox.mount_path} && find sys/fs/cgroup -maxdepth 2 -name cgroup.controllers"
        ).stdout
        assert sandbox.inside(
            "ls /sys/fs/cgroup/cgroup.controllers /sys/fs/cgroup/*/cgroup.controllers", check=False
        ).code
        sandbox.write("/opt/ask", ASK.encode())
        for group in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
            sandbox.inside(f"echo $$ >{group}/cgroup.procs", check=False)
            done = sandbox.inside(
                f"echo $$ >{group}/cgroup.procs || true; exec /usr/bin/python3 /opt/ask 169.254.169.254 80"
            )
            assert _tried(json.loads(done.stdout)) == REFUSED


# ---- what stays


def _groups_of(pid: int) -> str | None:
    """The path of a process's own azchroot group."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::") and "/azchroot-" in line:
            return line[3:]
    return None


def _exists(group: str) -> bool:
    root = syscalls.detached_mount("cgroup2")
    try:
        return os.access(f"./{group}", os.F_OK, dir_fd=root)
    finally:
        os.close(root)


def _identity(group: str) -> int:
    root = syscalls.detached_mount("cgroup2")
    try:
        return os.stat(f"./{group}", dir_fd=root).st_ino
    finally:
        os.close(root)


def _links(identity: int) -> int:
    """How many BPF links there are on a group (BPF_LINK_GET_NEXT_ID, BPF_LINK_GET_FD_BY_ID, BPF_OBJ_GET_INFO_BY_FD)."""
    libc, found, at = ctypes.CDLL(None), 0, 0
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    while True:
        following = ctypes.create_string_buffer(struct.pack("=III", at, 0, 0), 12)
        if libc.syscall(number, 31, following, 12) != 0:
            return found
        (at,) = struct.unpack_from("=I", following.raw, 4)
        try:
            link = syscalls.bpf(30, struct.pack("=III", at, 0, 0))
        except OSError:  # it has gone meanwhile
            continue
        info = ctypes.create_string_buffer(64)
        query = ctypes.create_string_buffer(struct.pack("=IIQ", link, len(info), ctypes.addressof(info)), 16)
        if libc.syscall(number, 15, query, 16) == 0:
            kind, _, _, _, group = struct.unpack_from("=IIIIQ", info.raw)
            found += kind == 3 and group == identity  # BPF_LINK_TYPE_CGROUP
        os.close(link)


CALLER = """
import sys, time
from pathlib import Path
from pytest_azchroot.sandbox import Sandbox
input()
with Sandbox.start(Path(sys.argv[1]), hostname="image") as sandbox:
    sandbox.mount(sandbox.partition(1))
    sandbox.inside("sleep 1000 & true")
    print(sandbox.holder, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def nook() -> Iterator[str]:
    """A control group in which no other sandbox starts: it would sweep what is left. None may be left in it."""
    root = syscalls.detached_mount("cgroup2")
    name = f"tests-of-metadata-{os.getpid()}"
    os.mkdir(name, dir_fd=root)
    yield name
    os.rmdir(name, dir_fd=root)
    os.close(root)


@contextmanager
def _caller(disk: Path, nook: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A build that waits to be killed, and its holder."""
    command = [sys.executable, "-c", CALLER, str(disk)]
    root = syscalls.detached_mount("cgroup2")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as caller:
        try:
            assert caller.stdin is not None and caller.stdout is not None
            group = os.open(f"{nook}/cgroup.procs", os.O_WRONLY, dir_fd=root)
            os.write(group, str(caller.pid).encode())
            os.close(group)
            print(file=caller.stdin, flush=True)
            yield caller, int(caller.stdout.readline())
            caller.wait(60)
        finally:
            caller.kill()
            os.close(root)


@pytest.mark.root
@pytest.mark.parametrize("victims", ["caller", "keeper", "holder", "caller and keeper"])
def test_nothing_stays_of_a_killed_build(disk: Path, victims: str, nook: str) -> None:
    with _caller(disk, nook) as (caller, holder):
        below = descendants_of(caller.pid)
        group = _groups_of(holder)
        assert group is not None and group.startswith(f"/{nook}/")
        identity = _identity(group)
        assert _links(identity) == 3
        who = {"caller": caller.pid, "keeper": below[0], "holder": holder}
        for each in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none outlives another
            for victim in victims.split(" and "):
                os.kill(who[victim], each)
        assert eventually(lambda: not any(map(is_alive, below)))
        caller.send_signal(signal.SIGINT)
    assert _links(identity) == 0
    if victims == "caller and keeper":
        assert _exists(group)
        with _caller(disk, nook) as (caller, _):  # the next one finds it
            assert not _exists(group)
            caller.send_signal(signal.SIGINT)
    assert eventually(lambda: not _exists(group))


@pytest.mark.root
def test_nothing_stays_of_a_build_that_ends(bare: Sandbox) -> None:
    group = _groups_of(bare.holder)
    assert group is not None and _exists(group)
    bare.close()
    assert not _exists(group)


@pytest.mark.root
def test_nothing_stays_of_a_build_that_is_aborted(disk: Path) -> None:
    with Sandbox.start(disk, hostname="image") as sandbox:
        group = _groups_of(sandbox.holder)
        assert group is not None and _exists(group)
    assert not _exists(group)


@pytest.mark.root
def test_the_group_of_a_living_build_is_not_swept(disk: Path, template: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.raw"
    run("cp", "--sparse=always", template, second)
    with Sandbox.start(disk, hostname="one") as one, Sandbox.start(second, hostname="two") as two:
        groups = [_groups_of(each.holder) for each in (one, two)]
        assert None not in groups and len(set(groups)) == 2
        assert all(_exists(str(group)) for group in groups)


@pytest.mark.root
def test_a_tool_of_the_build_machine_is_where_the_caller_is(bare: Sandbox) -> None:
    assert bare.outside(["cat", "/proc/self/cgroup"]).stdout == Path("/proc/self/cgroup").read_text()
