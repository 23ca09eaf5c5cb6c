"""Which disk gets which LUN. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_azchroot.clouds.azure.queue import Answer, Failure, Note, Request

MOST = 64
"""LUNs that a virtual machine has, whatever its size (lisa#692: "must be between '0' and '63'")."""


@dataclass(frozen=True)
class DataDisk:
    """A data disk in the model of a virtual machine."""

    lun: int
    key: str
    """The id of the managed disk in lower case; empty where it is a page blob."""
    leaving: bool
    """It is being detached, or the last try to detach it has failed. It has its LUN until it is gone."""


def data_disks(model: Mapping[str, Any]) -> list[DataDisk]:
    """All of a machine's model, as GET answers it."""
    profile = (model.get("properties") or {}).get("storageProfile") or {}
    return [
        DataDisk(int(each["lun"]), disk_key(each), bool(each.get("toBeDetached")))
        for each in profile.get("dataDisks") or []
    ]


def disk_key(entry: Mapping[str, Any]) -> str:
    """The managed disk of an entry of ``dataDisks``, in lower case; empty where it is a page blob."""
    return str((entry.get("managedDisk") or {}).get("id") or "").lower()


def free(disks: Iterable[DataDisk], avoid: Collection[int] = ()) -> list[int]:
    """LUNs that can be given, the lowest first."""
    used = {each.lun for each in disks} | set(avoid)
    return [lun for lun in range(MOST) if lun not in used]


@dataclass
class Plan:
    """What to do about a batch of requests."""

    attach: list[tuple[Request, int]] = field(default_factory=list)
    """With their LUNs."""
    detach: list[Request] = field(default_factory=list)
    answers: list[tuple[Request, Answer]] = field(default_factory=list)
    """What is so already, or cannot be."""
    later: list[tuple[Request, Failure]] = field(default_factory=list)
    """What has to wait for a disk that is on its way out."""

    @property
    def requests(self) -> list[Request]:
        """Those that go into the call."""
        return [*self.detach, *(request for request, _ in self.attach)]


def planned(
    disks: Sequence[DataDisk],
    batch: Iterable[tuple[Request, Note]],
    *,
    limit: int | None,
    machine: str,
    size: str,
) -> Plan:
    """Decide on a batch of requests.

    :param disks: what the machine's model has now.
    :param limit: how many data disks the machine's size allows, if that is known.
    :param machine: its name, and
    :param size: its size, to tell of.
    """
    plan, seen = Plan(), dict[str, Request]()
    there = {each.key: each for each in disks if each.key}
    for request, note in batch:
        first = seen.setdefault(request.key, request)
        found = there.get(request.key)
        if first.what != request.what:
            continue  # one call does not do both to one disk; it stays for the next
        if request.what == "detach":
            if found is None:
                plan.answers.append((request, Answer()))
            else:  # one that is leaving too: if the last try has failed, this is the way to try again
                plan.detach.append(request)
        elif found is not None and found.leaving:
            plan.later.append((request, _leaving(request, machine)))
        elif found is not None:
            plan.answers.append((request, Answer(found.lun)))
        elif first is request:  # asked for twice, it is attached when the first one is
            _place(plan, request, disks, limit=limit, avoid=note.avoid, machine=machine, size=size)
    return plan


def _place(
    plan: Plan,
    request: Request,
    disks: Sequence[DataDisk],
    *,
    limit: int | None,
    avoid: Collection[int],
    machine: str,
    size: str,
) -> None:
    """Find a LUN for a disk, if there is room."""
    luns = free(disks, {*avoid, *(lun for _, lun in plan.attach)})
    if luns and (limit is None or len(disks) + len(plan.attach) < limit):
        plan.attach.append((request, luns[0]))
    elif not plan.attach:  # else it is told next time, if those get their disks
        full = _full(request, machine=machine, size=size, limit=limit or MOST, used=len(disks))
        if any(each.leaving for each in disks) or plan.detach:
            plan.later.append((request, full))
        else:
            plan.answers.append((request, Answer(failure=full)))


def _name(request: Request) -> str:
    return request.disk.rsplit("/", 1)[-1]


def _leaving(request: Request, machine: str) -> Failure:
    return Failure(
        f"the disk {_name(request)} cannot be attached to {machine}",
        why="it is still being detached, or the last try to detach it has failed",
        hint="detach it once more",
        code="AttachDiskWhileBeingDetached",
    )


def _full(request: Request, *, machine: str, size: str, limit: int, used: int) -> Failure:
    return Failure(
        f"the disk {_name(request)} cannot be attached to {machine}",
        why=f"the machine's size {size} allows {limit} data disks, and it has {used}",
        hint="run fewer builds at once on it, detach what nobody needs, or take a larger size",
        code="OperationNotAllowed",
    )
