"""Many builds at once, each a process of its own: what of them the broker sees. Run as a program.

The SDK is loaded once, and then forked: sixteen processes that load it themselves would take longer than all else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_azchroot.clouds.azure.broker import Broker
from pytest_azchroot.clouds.azure.calls import Call, Calls
from pytest_azchroot.clouds.azure.client import Azure
from pytest_azchroot.clouds.azure.credentials import credential
from pytest_azchroot.clouds.azure.environments import PUBLIC
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.spec.model import ImageSpec

POST = "POST virtualMachines/attachDetachDataDisks"
EMPTY = {"location": "westus2", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}}
Json = dict[str, Any]


def machine_of(emulator: AzureEmulator) -> Machine:
    """The virtual machine that the emulator plays."""
    settings = emulator.settings
    return Machine(
        name=settings.machine.name,
        subscription_id=settings.subscription,
        resource_group=settings.machine.group,
        location=settings.location,
        resource_id=settings.machine_id,
        size=settings.machine.size,
        vm_id=settings.vm_id,
    )


def connected(calls: Calls | None = None) -> Azure:
    """Azure, with the machine's identity."""
    return Azure(credential(ImageSpec(), None, PUBLIC), calls=Calls() if calls is None else calls)


def make_disks(emulator: AzureEmulator, count: int, *, prefix: str = "disk") -> list[str]:
    """Empty disks; returns their ids."""
    compute: Any = emulator.compute()
    pollers = [compute.disks.begin_create_or_update("rg1", f"{prefix}{number}", EMPTY) for number in range(count)]
    return [poller.result().id for poller in pollers]


def attached(emulator: AzureEmulator) -> dict[int, str]:
    """The machine's data disks: LUN → id in lower case."""
    model = emulator.emulator.machine()
    entries = model["properties"]["storageProfile"]["dataDisks"]
    return {entry["lun"]: entry["managedDisk"]["id"].lower() for entry in entries}


def count(emulator: AzureEmulator, name: str) -> int:
    """How many calls of a name there were."""
    return sum(call["name"] == name for call in emulator.calls())


def statuses(emulator: AzureEmulator) -> set[int]:
    """Of all calls."""
    return {call["status"] for call in emulator.calls()}


class Builds:
    """Processes that attach a disk each, all at once."""

    def __init__(self, emulator: AzureEmulator, meeting: Path, results: Path) -> None:
        self._order = {"machine": asdict(machine_of(emulator)), "meeting": str(meeting), "results": str(results)}
        self._results = results
        self._meeting = meeting
        self._environment = emulator.environment
        results.mkdir(exist_ok=True)

    def start(self, disks: Sequence[str], **order: Any) -> subprocess.Popen[bytes]:
        """A build for each disk.

        :param order: ``detach``: whether they also detach it; ``kill``: ``before`` or ``after`` the call that attaches,
            when so many (``crowd``) wait.
        """
        wanted = json.dumps({**self._order, "disks": list(disks), **order})
        return subprocess.Popen([sys.executable, "-m", __name__, wanted], env=self._environment)

    def requests(self) -> list[Path]:
        """What waits in the queue."""
        return list(self._meeting.glob("queue/*.request"))

    def found(self) -> dict[str, Json]:
        """What became of them, by the disk."""
        return {found["disk"]: found for found in map(_read, self._results.iterdir())}


def _read(path: Path) -> Json:
    found: Json = json.loads(path.read_text())
    return found


def main(order: Json) -> int:
    """Fork, let them begin at once, and wait for them."""
    start, go = os.pipe()
    children = []
    for disk in order["disks"]:
        pid = os.fork()
        if pid == 0:
            os.close(go)
            os.read(start, 1)
            build(order, disk)
            os._exit(0)
        children.append(pid)
    os.close(go)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


def build(order: Json, disk: str) -> None:
    """One of them."""
    azure = connected(_victim(order))
    broker = Broker(azure, Machine(**order["machine"]), directory=Path(order["meeting"]))
    found: Json = {"disk": disk}
    try:
        attaching = broker.attach(disk, caching="ReadOnly", timeout=order.get("timeout", 60))
        found["lun"] = attaching.lun
        if order.get("detach"):
            broker.detach(disk)
            broker.wait_detached(disk, timeout=60)
    except Exception as error:
        found["error"] = str(error)
    Path(order["results"], disk.rsplit("/", 1)[-1]).write_text(json.dumps(found))


def _victim(order: Json) -> Calls:
    """A process that is killed, like by the out-of-memory killer."""

    def before(name: str) -> None:
        if name == "GET virtualMachines":
            until(lambda: len(list(Path(order["meeting"], "queue").glob("*.request"))) >= order.get("crowd", 1))
        if name == POST and order.get("kill") == "before":
            os.kill(os.getpid(), signal.SIGKILL)

    def after(call: Call) -> None:
        if call.name == POST and order.get("kill") == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    return Calls(before=before, after=after)


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
