"""What a request makes of a machine's data disks; pure."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_azchroot.emulator import datadisks
from pytest_azchroot.emulator.datadisks import Plan
from pytest_azchroot.emulator.errors import ArmError


def entry(disk: str, lun: int, **more: Any) -> dict[str, Any]:
    """Of a machine's model."""
    return {"lun": lun, "name": disk, "managedDisk": {"id": f"/D/{disk}"}, "toBeDetached": False, **more}


def ask(disk: str, **more: Any) -> dict[str, Any]:
    """Of an attachDetach request."""
    return {"diskId": f"/D/{disk}", **more}


def changed(current: list[Any], attach: list[Any], detach: list[Any] | None = None, limit: int = 8) -> Plan:
    """Of attachDetachDataDisks."""
    return datadisks.changed(current, attach, detach or [], vm="vm", limit=limit)


def replaced(current: list[Any], wanted: list[Any], limit: int = 8) -> Plan:
    """Of PUT."""
    return datadisks.replaced(current, wanted, vm="vm", limit=limit)


def luns(plan: Plan) -> dict[str, int]:
    """What is added where."""
    return {wish.disk: wish.lun for wish in plan.add}


def test_the_lowest_free_lun() -> None:
    assert luns(changed([entry("a", 0), entry("b", 2)], [ask("c"), ask("d"), ask("e")])) == {
        "/D/c": 1,
        "/D/d": 3,
        "/D/e": 4,
    }


def test_a_lun_that_another_asks_for_is_not_free() -> None:
    assert luns(changed([], [ask("a"), ask("b", lun=0)])) == {"/D/a": 1, "/D/b": 0}


def test_a_lun_of_a_disk_that_leaves_is_not_free_before_it_has_left() -> None:
    leaving = entry("a", 0, toBeDetached=True)
    assert luns(changed([leaving], [ask("b")])) == {"/D/b": 1}
    with pytest.raises(ArmError, match="A disk at LUN 0 already exists"):
        changed([leaving], [ask("b", lun=0)])


def test_one_request_may_give_a_lun_to_another_disk() -> None:
    plan = changed([entry("a", 0)], [ask("b", lun=0)], [ask("a")])
    assert luns(plan) == {"/D/b": 0} and plan.remove == ("/d/a",)


def test_what_is_there_already_stays() -> None:
    plan = changed([entry("a", 3)], [ask("A", caching="ReadOnly")])
    assert plan.add == () and [(wish.lun, wish.options) for wish in plan.change] == [(3, {"caching": "ReadOnly"})]


def test_put_is_the_whole_list() -> None:
    current = [entry("a", 0), entry("b", 1)]
    plan = replaced(current, [entry("B", 1), entry("c", 5)])
    assert luns(plan) == {"/D/c": 5} and plan.remove == ("/d/a",)
    assert replaced(current, []).remove == ("/d/a", "/d/b")


def test_put_with_a_mark_removes() -> None:
    plan = replaced([entry("a", 0)], [entry("a", 0, toBeDetached=True, detachOption="ForceDetach")])
    assert plan.remove == ("/d/a",) and plan.forced == {"/d/a"}


@pytest.mark.parametrize(
    ("current", "wanted", "code"),
    [
        ([], [entry("a", 0), entry("b", 0)], "InvalidParameter"),
        ([], [entry("a", 0), entry("a", 1)], "InvalidParameter"),
        ([], [entry("a", -1)], "InvalidParameter"),
        ([], [{"managedDisk": {"id": "/D/a"}}], "InvalidParameter"),
        ([], [{**entry("a", 0), "lun": "0"}], "InvalidParameter"),
        ([], [{**entry("a", 0), "lun": True}], "InvalidParameter"),
        ([], [entry("a", 0, caching="Sometimes")], "InvalidParameter"),
        ([entry("a", 0)], [entry("a", 1)], "PropertyChangeNotAllowed"),
        ([entry("a", 0, toBeDetached=True)], [entry("a", 0)], "AttachDiskWhileBeingDetached"),
        ([], [entry(str(number), number) for number in range(9)], "OperationNotAllowed"),
        ([entry("a", 0)], [entry("a", 0), entry("a", 0, toBeDetached=True)], "InvalidParameter"),
    ],
)
def test_refusals(current: list[Any], wanted: list[Any], code: str) -> None:
    with pytest.raises(ArmError) as caught:
        replaced(current, wanted)
    assert caught.value.code == code


def test_detaching_what_is_not_there() -> None:
    with pytest.raises(ArmError, match="not attached"):
        changed([], [], [ask("a")])


def test_sixty_four_disks_at_most() -> None:
    full = [entry(str(number), number) for number in range(64)]
    with pytest.raises(ArmError, match="is 64"):
        changed(full, [ask("more")], limit=100)
