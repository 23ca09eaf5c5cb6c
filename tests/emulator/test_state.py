"""The state: transactions, copies, and what is read again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.emulator.state import Resource, State

ID = "/subscriptions/s/resourceGroups/g/providers/P/disks/D1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the database."""
    return tmp_path / "state.sqlite3"


@pytest.fixture
def state(path: Path) -> Iterator[State]:
    """Nothing is in it."""
    state = State(path)
    yield state
    state.close()


def disk(size: int) -> Resource:
    """A resource."""
    return Resource(ID, "disks", {"id": ID, "properties": {"size": size}})


def test_ids_have_no_case_and_keep_it(state: State) -> None:
    with state.change():
        state.put(disk(1))
    found = state.get(ID.upper())
    assert found is not None and found.id == ID and found.name == "D1"


def test_each_change_has_its_etag(state: State) -> None:
    with state.change():
        assert [state.put(disk(size)).etag for size in (1, 2)] == [1, 2]


def test_what_is_read_is_a_copy(state: State) -> None:
    with state.change():
        made = state.put(disk(1))
        made.properties["size"] = 2
        found = state.get(ID)
        assert found is not None
        found.properties["size"] = 3
    again = state.get(ID)
    assert again is not None and again.properties == {"size": 1}


def test_a_change_that_fails_was_none(state: State, path: Path) -> None:
    called: list[int] = []
    with state.change():
        state.put(disk(1))
        state.put_record("grant", "a", {"n": 1})

    def fail() -> None:
        with state.change():
            state.put(disk(2))
            state.put_record("grant", "a", {"n": 2})
            state.put_record("grant", "b", {})
            state.remove(ID)
            state.after(lambda: called.append(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    for each in (state, State(path)):
        found = each.get(ID)
        assert found is not None and (found.properties, found.etag) == ({"size": 1}, 1)
        assert each.records("grant") == {"a": {"n": 1}}
    assert called == []


def test_all_is_read_again(state: State, path: Path) -> None:
    with state.change():
        state.put(Resource(ID, "disks", {"a": 1}, {"file": "f"}))
        state.put(Resource(ID + "x", "disks", {}))
        state.remove(ID + "X")
        state.put_record("operation", "o", {"status": "InProgress"})
        state.put_record("operation", "p", {})
        state.remove_record("operation", "p")
    other = State(path)
    assert other.find() == [Resource(ID, "disks", {"a": 1}, {"file": "f"})]
    assert other.records("operation") == {"o": {"status": "InProgress"}}
    other.close()


def test_what_comes_after_a_change_sees_it(state: State) -> None:
    seen: list[bool] = []
    with state.change():
        state.after(lambda: seen.append(state.get(ID) is not None))
        with state.change():
            state.put(disk(1))
        assert seen == []
    assert seen == [True]


def test_finding(state: State) -> None:
    with state.change():
        for name, kind in (("g1/a", "x"), ("g1/b", "y"), ("g2/c", "x")):
            state.put(Resource(f"/S/{name}", kind, {}))
    assert [each.name for each in state.find(under="/s/G1/")] == ["a", "b"]
    assert [each.name for each in state.find(kind="x")] == ["a", "c"]
