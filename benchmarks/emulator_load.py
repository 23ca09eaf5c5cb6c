"""Eight clients attach, write and detach at once: ``python -m benchmarks.emulator_load [SECONDS]``, as root.

The emulator is ``azchroot emulator``, in a process of its own. Checked: no LUN is given twice, no write of a client is
lost, and at the end the emulator has the threads and descriptors that it had, and the memory that it had when it had
forgotten its first operations, of which it keeps a thousand.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.identity import ManagedIdentityCredential
from azure.mgmt.compute import ComputeManagementClient

from pytest_azchroot.emulator.isolation import misleading, no_way_out

CLIENTS = 8
MIB = 1024**2
SETTLED = 1500
"""Operations after which memory is compared."""
GROWTH = 8 * MIB
"""Bytes that it may differ by."""


@dataclass(frozen=True)
class Sample:
    """What the emulator has."""

    memory: int
    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Sample:
        """Now."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        memory = int(status["VmRSS"].split()[0]) * 1024
        return cls(memory, int(status["Threads"]), len(os.listdir(f"/proc/{pid}/fd")))

    def __str__(self) -> str:
        return f"{self.memory / MIB:6.1f} MiB  {self.threads:3} threads  {self.descriptors:3} descriptors"


class Client:
    """Has a disk of its own, which it attaches, writes to and detaches."""

    def __init__(self, told: dict[str, Any], number: int) -> None:
        self.name = f"disk{number}"
        self.rounds = 0
        self._links = Path(told["devices"]) / "disk/azure/scsi1"
        self._credential = ManagedIdentityCredential()
        self._compute: Any = ComputeManagementClient(self._credential, told["subscription"], polling_interval=0.05)
        empty = {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}
        body: Any = {"location": told["location"], "properties": empty}
        self.disk = str(self._compute.disks.begin_create_or_update("rg1", self.name, body).result().id)

    def run(self, stop: threading.Event) -> None:
        """Until told to stop."""
        while not stop.is_set():
            profile = self._change(dataDisksToAttach=[{"diskId": self.disk}])
            luns = [entry.lun for entry in profile.data_disks]
            (mine,) = [entry.lun for entry in profile.data_disks if entry.name == self.name]
            assert len(luns) == len(set(luns)), luns
            with (self._links / f"lun{mine}").open("r+b") as device:
                device.seek(MIB + self.rounds * 512)
                device.write(f"{self.name} {self.rounds}".encode().ljust(512))
            self._change(dataDisksToDetach=[{"diskId": self.disk}])
            self.rounds += 1

    def _change(self, **asked: Any) -> Any:
        return self._compute.virtual_machines.begin_attach_detach_data_disks("rg1", "vm1", asked).result()

    def written(self, device: Path) -> bool:
        """Whether all that it wrote is on a disk."""
        with device.open("rb") as file:
            file.seek(MIB)
            return all(file.read(512).strip() == f"{self.name} {n}".encode() for n in range(self.rounds))

    def look(self) -> bool:
        """Attach once more, and compare."""
        profile = self._change(dataDisksToAttach=[{"diskId": self.disk}])
        (mine,) = [entry.lun for entry in profile.data_disks if entry.name == self.name]
        try:
            return self.written(self._links / f"lun{mine}")
        finally:
            self._change(dataDisksToDetach=[{"diskId": self.disk}])

    def close(self) -> None:
        """Let go of connections."""
        self._compute.close()
        self._credential.close()


def measured(directory: Path, seconds: float) -> bool:
    """Run it; whether all is as it should be."""
    (directory / "profile.yaml").write_text("seconds: {virtualMachines.attachDetach: 0.05}\n")
    command = [sys.executable, "-m", "pytest_azchroot.cli", "emulator", "--port", "0", "--tls-port", "0"]
    options = ["--vm-size", "Standard_D16s_v5", "--profile", str(directory / "profile.yaml")]
    process = subprocess.Popen([*command, *options, str(directory / "azure")], stdout=subprocess.DEVNULL)
    try:
        while not (directory / "azure/environment.sh").exists():
            assert process.poll() is None
            time.sleep(0.05)
        told = json.loads((directory / "azure/environment.json").read_text())
        os.environ.update(told["environment"])
        return _loaded(told, process.pid, seconds)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def _loaded(told: dict[str, Any], pid: int, seconds: float) -> bool:
    first = Client(told, CLIENTS)
    first.look()  # from here on somebody watches partition tables
    first.close()
    before = _idle(pid)
    print(f"idle     {before}")
    clients = [Client(told, number) for number in range(CLIENTS)]
    stop, settled = threading.Event(), None
    with ThreadPoolExecutor(CLIENTS) as pool:
        runs = [pool.submit(client.run, stop) for client in clients]
        end = time.monotonic() + seconds
        while time.monotonic() < end and not any(run.done() for run in runs):
            time.sleep(min(5, max(0.1, end - time.monotonic())))
            operations, now = 2 * sum(client.rounds for client in clients), Sample.of(pid)
            settled = settled or (now if operations > SETTLED else None)
            print(f"{operations:7}  {now}", flush=True)
        stop.set()
        for run in runs:
            run.result()
    kept = [client.look() for client in clients]
    for client in clients:
        client.close()
    after = _idle(pid)
    print(f"idle     {after}")
    left = list(Path(told["devices"]).rglob("lun*"))
    flat = settled is None or after.memory - settled.memory < GROWTH
    found = {
        "rounds": [client.rounds for client in clients],
        "writes kept": all(kept),
        "links left": len(left),
        "threads and descriptors as before": (after.threads, after.descriptors) <= (before.threads, before.descriptors),
        "memory flat": "too short to tell" if settled is None else flat,
    }
    for what, value in found.items():
        print(f"{what}: {value}")
    return all(kept) and not left and flat and bool(found["threads and descriptors as before"])


def _idle(pid: int) -> Sample:
    """Connections that clients have closed end a moment later."""
    time.sleep(1)
    return Sample.of(pid)


def main(seconds: str = "60") -> int:
    """The command; 0 is well."""
    for name in misleading():
        del os.environ[name]
    with no_way_out(), tempfile.TemporaryDirectory(prefix="azchroot-load-") as directory:
        return 0 if measured(Path(directory), float(seconds)) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
