"""What checks have written is listed while they still run: nothing that they put in the way of the list leads it out of
the image, stops it, or makes it endless."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import Sandbox, Write, written

from . import attacks
from .canary import Canary
from .conftest import copy
from .machine import eventually

pytestmark = pytest.mark.root

EXCHANGE = """
def exchange(one, other, times=200):
    for _ in range(times):
        check(libc.renameat2(-100, one, -100, other, 2))  # RENAME_EXCHANGE
"""

SWAPS = {
    # what was to be looked into is by turns a link to the canary's directory
    "directory": """
os.makedirs("/opt/in/below", exist_ok=True)
os.symlink(os.path.dirname(canary), "/opt/out")
while True:
    exchange(b"/opt/in/below", b"/opt/out")
""",
    "parent": """
os.makedirs("/opt/in/below/canary", exist_ok=True)
os.symlink(os.path.dirname(os.path.dirname(canary)), "/opt/out")
os.makedirs("/opt/in/" + os.path.basename(os.path.dirname(canary)), exist_ok=True)
while True:
    exchange(b"/opt/in", b"/opt/out")
""",
    # what was to be read is by turns a FIFO that nobody writes to, a link to the canary, a device
    "fifo": """
os.mkfifo("/opt/out")
while True:
    open("/etc/passwd", "a").close()
    exchange(b"/etc/passwd", b"/opt/out")
""",
    "link": """
os.symlink(canary, "/opt/out")
while True:
    exchange(b"/etc/passwd", b"/opt/out")
""",
    "device": """
while True:
    exchange(b"/etc/passwd", b"/opt/disk")
""",
    "gone": """
while True:
    for each in range(50):
        os.makedirs(f"/opt/in/{each}/x", exist_ok=True)
    for each in range(50):
        os.rmdir(f"/opt/in/{each}/x")
        os.rmdir(f"/opt/in/{each}")
""",
}

STOP = """
import signal
number = int(sys.argv[2])
while True:
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        try:
            if pid != 1 and open(f"/proc/{pid}/comm").read() == "azchroot-holder\\n":
                os.kill(pid, number)
        except (FileNotFoundError, ProcessLookupError):
            pass
"""


@pytest.fixture
def covered(hostile: Sandbox) -> Iterator[Sandbox]:
    """The hostile image under overlays."""
    hostile.overlay()
    yield hostile
    hostile.end(hostile.survivors())
    hostile.drop_overlay()


def attack(sandbox: Sandbox, canary: Canary, source: str, *arguments: str) -> None:
    """Start a program that goes on."""
    sandbox.write("/tmp/attack", attacks.program(EXCHANGE + source).encode())
    words = " ".join(["python3 /tmp/attack", str(canary.file), *arguments])
    sandbox.inside(f"setsid {words} >/tmp/errors 2>&1 &")
    assert eventually(lambda: any("attack" in each.command for each in sandbox.survivors()))


@pytest.mark.parametrize("swap", SWAPS)
def test_what_is_swapped_is_not_followed(covered: Sandbox, canary: Canary, swap: str) -> None:
    (canary.directory / "below").mkdir()
    (canary.directory / "below" / canary.token).touch()
    (canary.directory / canary.token).touch()
    attack(covered, canary, SWAPS[swap])
    for _ in range(60):
        canary.got += [write.path for write in covered.writes()]
    assert [each.command for each in covered.survivors()] != [], covered.read("/tmp/errors")
    (canary.directory / canary.token).unlink()
    (canary.directory / "below" / canary.token).unlink()
    (canary.directory / "below").rmdir()


def test_a_file_system_that_is_moved_is_not_looked_for_elsewhere(
    hostile_disk: Path, tmp_path: Path, canary: Canary
) -> None:
    """A process of a step swaps a directory above a mount point, while a check's overlay is put over it."""
    with Sandbox.start(copy(hostile_disk, tmp_path), hostname="image") as sandbox:
        sandbox.mount(sandbox.partition(0))
        sandbox.lend(None)
        sandbox.inside("mkdir -p /opt/in/below")
        top = sandbox.mount_path
        sandbox.outside(["mount", "--bind", f"{top}/etc", f"{top}/opt/in/below"])
        (canary.directory / "below").mkdir()
        (canary.directory / "below" / canary.token).touch()
        swap = f'os.symlink("{canary.directory}", "/opt/out")\nwhile True:\n    exchange(b"/opt/in", b"/opt/out")\n'
        attack(sandbox, canary, swap)
        outcomes = set()
        for _ in range(60):
            try:
                sandbox.overlay()
                canary.attempt(lambda: sandbox.inside("ls /opt/in/below /opt/out/below; true", check=False))
                outcomes.add("covered")
            except SandboxError as error:
                outcomes.add(str(error))
            if sandbox.is_covered:
                sandbox.drop_overlay()
        assert sandbox.survivors() != (), sandbox.read("/tmp/errors")
        (canary.directory / "below" / canary.token).unlink()
        (canary.directory / "below").rmdir()
    assert outcomes


# ---- as much as can be


def test_many_files_are_counted_and_the_first_are_named(covered: Sandbox) -> None:
    covered.inside(["python3", "-c", "import os\nfor n in range(20000): os.mknod(f'/opt/{n:05}')"])
    found = covered.writes()
    assert found[:2] == (Write("/opt/00000", "written"), Write("/opt/00001", "written"))
    assert found[-1] == Write("/", "written", 20000 - written.NAMED)
    assert len(found) == written.NAMED + 1
    covered.inside(["touch", "/opt/20000"])
    assert covered.writes()[-1].count == found[-1].count + 1


def test_a_deep_directory_is_named_as_far_as_it_is_walked(covered: Sandbox) -> None:
    deep = "import os\nos.chdir('/opt')\nfor _ in range(10000):\n    os.mkdir('d'); os.chdir('d')\nos.mknod('file')"
    covered.inside(["python3", "-c", deep])
    found = covered.writes()
    assert found[0] == Write("/opt/d", "written")
    assert found[-1] == Write("/opt" + "/d" * written.DEPTH, "written")
    assert len(found) == written.DEPTH


def test_long_paths_are_cut(covered: Sandbox) -> None:
    deep = "import os\nos.chdir('/opt')\nfor _ in range(90):\n    os.mkdir('d' * 255); os.chdir('d' * 255)"
    covered.inside(["python3", "-c", deep])
    assert max(len(write.path) for write in covered.writes()) < 1100


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"caf\xe9", "caf\\xe9"), (b"a\nb", "a\\nb"), (b"\x1b[2J", "\\x1b[2J"), ("caf\u00e9".encode(), "caf\u00e9"), (b"\xe2\x80\xae", "\\u202e")],
)  # fmt: skip
def test_any_name_can_be_printed(covered: Sandbox, name: bytes, shown: str) -> None:
    covered.inside(
        ["python3", "-c", f"import os; os.mkdir(b'/opt/' + {name!r}); os.mknod(b'/opt/' + {name!r} + b'/x')"]
    )
    assert covered.writes() == (Write(f"/opt/{shown}", "written"), Write(f"/opt/{shown}/x", "written"))


def test_volatile_directories_are_not_walked(covered: Sandbox) -> None:
    covered.inside(["python3", "-c", "import os\nfor n in range(5000): os.mknod(f'/tmp/{n}')"])
    assert covered.writes() == ()


def test_a_file_of_any_size_is_compared_in_no_time(hostile: Sandbox) -> None:
    hostile.inside("truncate -s 1099511627776 /opt/sparse")
    hostile.overlay()
    hostile.inside("touch /opt/sparse")
    assert hostile.writes() == (Write("/opt/sparse", "written"),)
    hostile.drop_overlay()
    hostile.inside("rm /opt/sparse")


# ---- the child that makes the list is in reach of the image's signals


def test_a_list_that_is_killed_is_an_error(covered: Sandbox, canary: Canary) -> None:
    covered.inside(["python3", "-c", "import os\nfor n in range(20000): os.mknod(f'/opt/{n:05}')"])
    attack(covered, canary, STOP, "9")
    with pytest.raises(SandboxError, match="what was written to the image cannot be listed"):
        covered.writes()
    covered.end(covered.survivors())
    assert len(covered.writes()) > 1
