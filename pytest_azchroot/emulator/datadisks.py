"""The data disks of a virtual machine: what a request makes of them. Pure.

The model shows the goal at once. A disk that is to go stays in it, marked ``toBeDetached``, until it is gone; only
then are its LUN and the disk free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import errors
from .state import Json

LUNS = range(64)
_OPTIONS: dict[str, tuple[object, ...]] = {
    "caching": ("None", "ReadOnly", "ReadWrite"),
    "deleteOption": ("Detach", "Delete"),
    "writeAcceleratorEnabled": (False, True),
}


@dataclass(frozen=True)
class Wish:
    """A data disk that a request wants to be there."""

    disk: str
    """Its id."""
    lun: int
    options: Json
    """``caching`` and the like, as the entry shall have them."""

    @property
    def key(self) -> str:
        """The id in lower case."""
        return self.disk.lower()


@dataclass(frozen=True)
class Plan:
    """What to do."""

    add: tuple[Wish, ...]
    change: tuple[Wish, ...]
    """Disks that are there and stay."""
    remove: tuple[str, ...]
    """Disks, by key."""
    forced: frozenset[str]
    """Those of them that are taken away even if the machine does not let go."""


def disk_id(entry: Json) -> str:
    """The id in an entry of ``dataDisks``; empty where it is missing."""
    return str((entry.get("managedDisk") or {}).get("id") or "")


def is_leaving(entry: Json) -> bool:
    """Whether the entry is marked as going."""
    return bool(entry.get("toBeDetached"))


def replaced(current: Sequence[Json], wanted: Iterable[Json], *, vm: str, limit: int) -> Plan:
    """PUT or PATCH: the list is the goal. Disks that it lacks, or marks ``toBeDetached``, go.

    :param current: the machine's entries.
    :param vm: the machine's name.
    :raises ArmError: Azure would refuse it.
    """
    wishes, leaving, forced = [], set(), set()
    for entry in wanted:
        key = disk_id(entry).lower()
        if not is_leaving(entry):
            wishes.append(Wish(disk_id(entry), _lun(entry.get("lun")), _options(entry)))
            continue
        leaving.add(key)
        if str(entry.get("detachOption") or "").lower() == "forcedetach":
            forced.add(key)
    staying = {wish.key for wish in wishes}
    if both := staying & leaving:
        raise errors.invalid("dataDisks", sorted(both)[0])
    remove = [disk_id(entry).lower() for entry in current if disk_id(entry).lower() not in staying]
    return _checked(current, wishes, remove, forced & set(remove), vm=vm, limit=limit)


def changed(current: Sequence[Json], attach: Iterable[Json], detach: Iterable[Json], *, vm: str, limit: int) -> Plan:
    """``attachDetachDataDisks``: only the disks that it names change. Without a LUN a disk gets the lowest free one.

    :raises ArmError: Azure would refuse it.
    """
    present = {disk_id(entry).lower(): entry for entry in current}
    remove, forced = [], set()
    for each in detach:
        id_ = str(each.get("diskId") or "")
        if id_.lower() not in present:
            raise errors.not_attached(id_, vm)
        remove.append(id_.lower())
        if str(each.get("detachOption") or "").lower() == "forcedetach":
            forced.add(id_.lower())
    stay = [Wish(disk_id(each), each["lun"], {}) for key, each in present.items() if key not in remove]
    stay = [wish for wish in stay if not is_leaving(present[wish.key])]
    asked = list(attach)
    used = {each["lun"] for each in current} | {_lun(each["lun"]) for each in asked if each.get("lun") is not None}
    wishes = []
    for each in asked:
        id_ = str(each.get("diskId") or "")
        if not id_:
            raise errors.missing("dataDisksToAttach.diskId")
        lun = _lun(each["lun"]) if each.get("lun") is not None else None
        if lun is None:
            lun = present[id_.lower()]["lun"] if id_.lower() in present else _free(used)
        used.add(lun)
        wishes.append(Wish(id_, lun, _options(each)))
    again = {wish.key for wish in wishes} & {wish.key for wish in stay}
    stay = [wish for wish in stay if wish.key not in again]
    return _checked(current, [*stay, *wishes], remove, forced, vm=vm, limit=limit)


def _checked(
    current: Sequence[Json],
    wishes: Sequence[Wish],
    remove: Sequence[str],
    forced: Collection[str],
    *,
    vm: str,
    limit: int,
) -> Plan:
    present = {disk_id(entry).lower(): entry for entry in current}
    if len(wishes) > limit:
        raise errors.too_many_disks(limit)
    # The LUN of a disk that was asked to go earlier is not free before it is gone.
    used = {entry["lun"] for key, entry in present.items() if is_leaving(entry)}
    seen: set[str] = set()
    for wish in wishes:
        old = present.get(wish.key)
        if old is not None and is_leaving(old):
            raise errors.detaching(old["name"], vm)
        if wish.lun in used:
            raise errors.lun_taken(wish.lun)
        if wish.key in seen:
            raise errors.invalid("dataDisk.managedDisk.id", wish.disk)
        used.add(wish.lun)
        seen.add(wish.key)
        if old is not None and old["lun"] != wish.lun:
            raise errors.unchangeable("dataDisk.lun")
    add = tuple(wish for wish in wishes if wish.key not in present)
    change = tuple(wish for wish in wishes if wish.key in present)
    return Plan(add, change, tuple(remove), frozenset(forced))


def _lun(value: Any) -> int:
    if value is None:
        raise errors.missing("dataDisk.lun")
    if not isinstance(value, int) or isinstance(value, bool) or value not in LUNS:
        raise errors.lun_range(value)
    return value


def _free(used: Collection[int]) -> int:
    found = next((lun for lun in LUNS if lun not in used), None)
    if found is None:
        raise errors.too_many_disks(len(LUNS))
    return found


def _options(entry: Json) -> Json:
    found = {name: entry[name] for name in _OPTIONS if entry.get(name) is not None}
    for name, value in found.items():
        if value not in _OPTIONS[name]:
            raise errors.invalid(f"dataDisk.{name}", value)
    return found
