"""Many clients at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import Machine, Profile, Settings

from .conftest import MIB, Compute, attach, connect, detach, disk_of, loops_below, platform_disk, settled
from .test_machines import data_disks, lun_link

pytestmark = pytest.mark.root
CLIENTS = 8
SECONDS = float(os.environ.get("AZCHROOT_EMULATOR_SECONDS", "5"))
"""How long the clients go on. benchmarks/emulator_load.py does this for a minute, with the emulator's memory alone."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A machine with room for all, and operations that take long enough to meet."""
    machine = Machine(size="Standard_D16s_v5")
    return replace(settings, machine=machine, profile=Profile({"virtualMachines.attachDetach": 0.05}))


def descriptors() -> int:
    """Open ones of this process."""
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Client:
    """Attaches a disk of its own, writes to its device, and detaches it, again and again."""

    def __init__(self, emulator: Emulator, number: int) -> None:
        self.settings = emulator.settings
        self.compute: Compute = connect(emulator.url, emulator.settings)
        self.name = f"disk{number}"
        self.disk = platform_disk(self.compute, emulator.settings, self.name).id
        self.rounds = 0

    def run(self, until: float) -> None:
        """Until this time."""
        while time.monotonic() < until:
            profile = attach(self.compute, self.disk)
            mine = [entry for entry in profile.data_disks if entry.name == self.name]
            luns = [entry.lun for entry in profile.data_disks]
            assert len(mine) == 1 and len(luns) == len(set(luns))
            link = lun_link(self.settings, mine[0].lun)
            with link.open("r+b") as device:
                device.seek(MIB + self.rounds * 512)  # between partition table and partitions
                device.write(f"{self.name} {self.rounds}".encode().ljust(512))
            detach(self.compute, self.disk)
            self.rounds += 1


def test_no_lun_twice_no_disk_lost_and_nothing_leaks(emulator: Emulator) -> None:
    clients = [Client(emulator, number) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda client: client.run(time.monotonic() + 1), clients))  # connections and pools are warm
        before, memory = (threading.active_count(), descriptors()), resident()
        until = time.monotonic() + SECONDS
        list(pool.map(lambda client: client.run(until), clients))
        settled(lambda: (threading.active_count(), descriptors()) <= before)
    assert resident() - memory < 32 * MIB
    assert data_disks(clients[0].compute) == []
    assert loops_below(emulator.settings.directory) == []
    for client in clients:
        path = emulator.azure.store.path(emulator.azure.resource(client.disk).hidden["file"])
        with path.open("rb") as file:
            file.seek(MIB)
            for number in range(client.rounds):
                assert file.read(512).strip() == f"{client.name} {number}".encode()


def test_a_disk_is_attached_once(emulator: Emulator) -> None:
    compute = connect(emulator.url, emulator.settings)
    disk = platform_disk(compute, emulator.settings, "d1").id
    found = gathered([partial(attach, connect(emulator.url, emulator.settings), disk, lun=lun) for lun in range(4)])
    assert [isinstance(each, Exception) for each in found].count(False) == 1
    assert len(data_disks(compute)) == 1


def test_one_name_is_made_once(emulator: Emulator) -> None:
    def make() -> Any:
        return disk_of(connect(emulator.url, emulator.settings), "d1", {"createOption": "Empty"}, diskSizeGB=1)

    gathered([make] * 6)
    assert len(list(emulator.azure.store.directory.iterdir())) == 1


def gathered(actions: list[Callable[[], Any]]) -> list[Any]:
    """What they return or raise, at once."""

    def caught(action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(caught, actions))
