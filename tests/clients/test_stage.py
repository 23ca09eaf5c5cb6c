"""The stage itself: from it there is no way out, and nothing of it stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .stage import PROJECT, Ended, Stage, opened

pytestmark = pytest.mark.root

PLAIN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An empty one."""
    with opened(tmp_path_factory.mktemp("stage"), name="stage", images={}) as found:
        yield found


def shell(stage: Stage, script: str, *, timeout: float = 30) -> Ended:
    """A command on it."""
    return stage.run(["sh", "-c", script], environment=PLAIN, timeout=timeout)


def test_loopback_is_the_only_interface(stage: Stage) -> None:
    assert [line.split()[0] for line in shell(stage, "ip -brief link").output.splitlines()] == ["lo"]
    assert shell(stage, "ip route get 192.0.2.1").output == "RTNETLINK answers: Network is unreachable\n"


def test_azures_names_and_address_are_the_emulator(stage: Stage) -> None:
    script = "import urllib.request as r; print(r.urlopen(r.Request('http://169.254.169.254/metadata/versions', headers={'Metadata': 'true'})).status)"
    assert stage.run([sys.executable, "-c", script], environment=PLAIN, timeout=30).output == "200\n"
    assert shell(stage, "getent hosts management.azure.com").output.split()[0] == "127.0.0.1"


def test_a_disk_of_it_is_a_device_there(stage: Stage) -> None:
    group = "/subscriptions/22222222-2222-2222-2222-222222222222/resourceGroups/rg1/providers/Microsoft.Compute"
    empty = {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}
    stage.ask("PUT", f"{group}/disks/d1", {"location": "westus2", "properties": empty})
    wanted = {"dataDisksToAttach": [{"diskId": f"{group}/disks/d1", "lun": 3}]}
    stage.ask("POST", f"{group}/virtualMachines/vm1/attachDetachDataDisks", wanted)
    assert shell(stage, "blockdev --getsize64 /dev/disk/azure/scsi1/lun3").output == f"{1024**3}\n"
    assert not Path("/dev/disk/azure/scsi1/lun3").exists()


def test_what_takes_too_long_is_killed_with_all_it_has_started(stage: Stage) -> None:
    ended = shell(stage, "setsid sleep 4321 & echo started; trap '' TERM INT; sleep 4321", timeout=1)
    assert (ended.status, ended.output) == (-9, "started\n")
    assert not running("sleep 4321")


def test_nothing_stays_when_its_opener_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from tests.clients.stage import opened\n"
        f"with opened(pathlib.Path({str(tmp_path)!r}), name='killed', images={{}}) as stage:\n"
        "    print('open', flush=True)\n"
        "    stage.run(['sleep', '4322'], environment={'PATH': '/usr/bin:/bin'}, timeout=600)\n"
    )
    opener = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert opener.stdout is not None and opener.stdout.readline() == "open\n"
    settled(lambda: running("sleep 4322"))
    opener.kill()
    opener.wait()
    opener.stdout.close()
    settled(lambda: not running("sleep 4322") and not running(str(tmp_path)))
    assert not list(Path("/dev").glob(f"azc{opener.pid}*"))


def running(command: str) -> bool:
    """Whether a process with these words in its command line is there."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if command in words and entry.parts[2] != str(os.getpid()):
            return True
    return False


def settled(holds: Callable[[], bool]) -> None:
    """Wait until it is so: processes end a moment after what ends them."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
