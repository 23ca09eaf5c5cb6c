"""What a build has left in Azure, in its journal and on the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pytest_azchroot import journal
from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.state import Resource

from .victim import MARK_AT

_TEMPORARY = ("disks", "snapshots")
_ARTIFACTS = ("images", "galleries/images/versions")


def artifacts(emulator: Emulator) -> list[Resource]:
    """Images and versions, in whatever state."""
    return [each for kind in _ARTIFACTS for each in emulator.azure.state.find(kind=kind)]


def temporary(emulator: Emulator) -> list[str]:
    """Ids of disks and snapshots, and of what is attached."""
    state = emulator.azure.state
    machine = emulator.machine()["properties"]["storageProfile"]["dataDisks"]
    return [
        *(each.id for kind in _TEMPORARY for each in state.find(kind=kind)),
        *(f"attachment of {each['managedDisk']['id']}" for each in machine),
    ]


def misstated(emulator: Emulator, mark: str) -> Iterator[str]:
    """Artifacts that are not complete, or hold something else than the build has written."""
    for each in artifacts(emulator):
        yield from misstated_one(emulator, each, mark)


def misstated_one(emulator: Emulator, artifact: Resource, mark: str) -> Iterator[str]:
    """The same of one."""
    state = artifact.properties["provisioningState"]
    if state != "Succeeded":
        yield f"{artifact.id} is {state}"
        return
    with emulator.azure.store.path(artifact.hidden["files"]["os"]).open("rb") as file:
        file.seek(MARK_AT)
        found = file.read(len(mark))
    if found != mark.encode():
        yield f"{artifact.id} holds {found!r}"


def unwritten(emulator: Emulator, state: Path) -> Iterator[str]:
    """What is in Azure, and not in a journal."""
    known = {entry.id.lower() for entry in entries(state)}
    for each in temporary(emulator):
        id = each.removeprefix("attachment of ")
        if id.lower() not in known:
            yield f"{each} is in no journal"
    for artifact in artifacts(emulator):
        complete = artifact.properties["provisioningState"] == "Succeeded"
        if not complete and artifact.id.lower() not in known:
            yield f"{artifact.id} is in no journal, and not complete"


def entries(state: Path) -> list[journal.Open]:
    """What journals have open."""
    return [entry for found in journal.records(state) if found.record is not None for entry in found.record.entries]


def on_machine(directory: Path) -> list[str]:
    """Processes and mounts that have to do with a directory, but for this process."""
    here, found = str(directory), []
    for entry in Path("/proc").glob("[0-9]*"):
        if entry.name != str(os.getpid()) and here in _text(entry / "environ"):
            found.append(f"process {entry.name}: {_text(entry / 'cmdline')}")
    found += [f"mount {line}" for line in _text(Path("/proc/self/mountinfo")).splitlines() if here in line]
    return found


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace").replace("\0", " ")
    return ""
