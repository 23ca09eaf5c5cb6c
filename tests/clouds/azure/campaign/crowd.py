"""Many builds at once on one virtual machine, each a process of its own. Run as a program with a file that says what to
do; prints what became of them.

Azure's documented limits hold, and operations take a while: nobody is in a hurry here.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pytest_azchroot.clouds.azure import shared
from pytest_azchroot.emulator.isolation import no_way_out
from pytest_azchroot.emulator.settings import Machine, Profile

from . import ground, remains, server, victim

LATENCIES = Profile(
    {
        "disks.create": 1.0,
        "virtualMachines.attachDetach": 1.5,
        "images.create": 1.0,
        "versions.create": 2.0,
        "disks.delete": 0.3,
    },
    request=0.005,
)
SIZE = "Standard_D8s_v5"
"""Sixteen data disks."""
_PATIENCE = 300


def main(count: int, directory: Path) -> dict[str, Any]:
    """Build; what became of it, as the test wants to know it."""
    told = ground.prepare(directory / "ground", machine=Machine(size=SIZE))
    children = [_begun(number, told.subscription, directory) for number in range(count)]
    assembly = ground.copied(told, directory / "azure", profile=LATENCIES, throttled=True)
    with assembly.emulator as emulator:
        environment = json.dumps(ground.environment(assembly)).encode() + b"\n"
        for _, tell in children:
            os.write(tell, environment)
        for pid, _ in children:
            os.waitpid(pid, 0)
        calls = Counter(f"{each['name']} {each['status']}" for each in emulator.calls.read())
        marks = {number: _mark(number) for number in range(count)}
        wrong = [
            f"{each.id} holds another's"
            for each in remains.artifacts(emulator)
            if [*remains.misstated_one(emulator, each, marks[int(each.name.rpartition(".")[2].rpartition("-")[2])])]
        ]
        return {
            "results": [json.loads((directory / f"{number}.json").read_text()) for number in range(count)],
            "calls": calls,
            "artifacts": len(remains.artifacts(emulator)),
            "wrong": wrong,
            "left": [*remains.temporary(emulator), *(str(each) for each in remains.entries(directory / "state"))],
        }


def _mark(number: int) -> str:
    return f"this-is-{number:03}"


def _begun(number: int, subscription: str, directory: Path) -> tuple[int, int]:
    image = directory / "images" / f"web-{number}"
    image.mkdir(parents=True)
    options = {
        "source": f"{ground.URN}:latest",
        "image_resource_id": f"/subscriptions/{subscription}/resourceGroups/rg1/providers/Microsoft.Compute/images/web-{number}",
        "shared_image_destination": {**ground.GALLERY, "image_version": f"1.0.{number}"},
        "polling_duration_timeout": _PATIENCE,
        "shared_image_gallery_timeout": _PATIENCE,
    }
    (image / "image.yaml").write_text(victim.image_yaml(**options))
    told, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(told)
        return pid, tell
    try:
        with open(told) as file:
            os.environ.update(json.loads(file.readline()))
        os.environ["AZCHROOT_STATE_DIR"] = str(directory / "state")
        shared.SYSTEM = directory / "run"
        result = victim.build(image, _mark(number))
        (directory / f"{number}.json").write_text(json.dumps(vars(result)))
    finally:
        os._exit(0)


if __name__ == "__main__":
    assert server
    wanted = json.loads(Path(sys.argv[1]).read_text())
    with no_way_out():
        print(json.dumps(main(wanted["count"], Path(wanted["directory"]))))
