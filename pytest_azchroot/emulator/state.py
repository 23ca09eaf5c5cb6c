"""Resources, and what else must outlive the emulator, in SQLite.

Everything is held in memory too; each change is one transaction. ``synchronous=OFF``: a killed process loses
nothing, for what SQLite has written is in the kernel's cache. A machine that loses its power may lose the emulator's
state, which is no state to mourn.
"""

from __future__ import annotations

import copy
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """One resource. :attr:`body` is what clients see; :attr:`hidden` is ours."""

    id: str
    """As its first writer wrote it."""
    kind: str
    """``disks``, ``galleries/images``; ``groups`` for a resource group."""
    body: Json
    hidden: Json = field(default_factory=dict)
    etag: int = 1

    @property
    def key(self) -> str:
        """The id in lower case."""
        return self.id.lower()

    @property
    def name(self) -> str:
        """The last part of the id."""
        return self.id.rsplit("/", 1)[-1]

    @property
    def properties(self) -> Json:
        """``body["properties"]``, made if it is missing."""
        found: Json = self.body.setdefault("properties", {})
        return found


class State:
    """All resources, and records of other kinds by their name.

    Use it within :meth:`change`, which is a lock and a transaction. What is read is a copy.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._undo: list[Callable[[], None]] = []
        self._statements: list[tuple[str, tuple[Any, ...]]] = []
        self._after: list[Callable[[], None]] = []
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
            "CREATE TABLE IF NOT EXISTS resources(key TEXT PRIMARY KEY, id TEXT, kind TEXT, etag INT, body TEXT,"
            " hidden TEXT);"
            "CREATE TABLE IF NOT EXISTS records(kind TEXT, name TEXT, body TEXT, PRIMARY KEY(kind, name));"
        )
        rows = self._database.execute("SELECT id, kind, etag, body, hidden FROM resources ORDER BY rowid")
        self._resources = {
            id_.lower(): Resource(id_, kind, json.loads(body), json.loads(hidden), etag)
            for id_, kind, etag, body, hidden in rows
        }
        records = self._database.execute("SELECT kind, name, body FROM records ORDER BY rowid")
        self._records: dict[tuple[str, str], Json] = {(kind, name): json.loads(body) for kind, name, body in records}

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """All changes within are made, or on an exception none. Nested ones are part of the outer."""
        with self._lock:
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._commit()
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._depth -= 1
                after = self._after if self._depth == 0 else []
                if self._depth == 0:
                    self._after = []
        for each in after:
            each()

    def after(self, action: Callable[[], None]) -> None:
        """Do this when the change that runs has been made."""
        self._after.append(action)

    def get(self, key: str) -> Resource | None:
        """A resource by its id in any case."""
        found = self._resources.get(key.lower())
        return None if found is None else copy.deepcopy(found)

    def find(self, *, under: str = "", kind: str | None = None) -> list[Resource]:
        """Resources whose id begins with this, of one kind; in the order of their creation."""
        start = under.lower()
        return [
            copy.deepcopy(each)
            for key, each in self._resources.items()
            if key.startswith(start) and (kind is None or each.kind == kind)
        ]

    def put(self, resource: Resource) -> Resource:
        """Store a resource, with the next etag if it was there already."""
        old = self._resources.get(resource.key)
        etag = 1 if old is None else old.etag + 1
        stored = copy.deepcopy(Resource(resource.id, resource.kind, resource.body, resource.hidden, etag))
        self._resources[resource.key] = stored
        self._undo.append(lambda: _restore(self._resources, resource.key, old))
        values = (stored.key, stored.id, stored.kind, etag, json.dumps(stored.body), json.dumps(stored.hidden))
        update = "ON CONFLICT(key) DO UPDATE SET id=excluded.id, etag=excluded.etag, body=excluded.body,"
        statement = f"INSERT INTO resources VALUES(?,?,?,?,?,?) {update} hidden=excluded.hidden"
        self._statements.append((statement, values))
        return copy.deepcopy(stored)

    def remove(self, key: str) -> None:
        """Forget a resource; it need not be there."""
        old = self._resources.pop(key.lower(), None)
        if old is not None:
            self._undo.append(lambda: _restore(self._resources, key.lower(), old))
            self._statements.append(("DELETE FROM resources WHERE key=?", (key.lower(),)))

    def record(self, kind: str, name: str) -> Json | None:
        """A record, by its kind and name."""
        found = self._records.get((kind, name))
        return None if found is None else copy.deepcopy(found)

    def records(self, kind: str) -> dict[str, Json]:
        """All records of a kind, by name, oldest first."""
        return {name: copy.deepcopy(body) for (each, name), body in self._records.items() if each == kind}

    def put_record(self, kind: str, name: str, body: Json) -> None:
        """Store a record."""
        old = self._records.get((kind, name))
        self._records[kind, name] = copy.deepcopy(body)
        self._undo.append(lambda: _restore(self._records, (kind, name), old))
        statement = "INSERT INTO records VALUES(?,?,?) ON CONFLICT(kind, name) DO UPDATE SET body=excluded.body"
        self._statements.append((statement, (kind, name, json.dumps(body))))

    def remove_record(self, kind: str, name: str) -> None:
        """Forget a record; it need not be there."""
        old = self._records.pop((kind, name), None)
        if old is not None:
            self._undo.append(lambda: _restore(self._records, (kind, name), old))
            self._statements.append(("DELETE FROM records WHERE kind=? AND name=?", (kind, name)))

    def _commit(self) -> None:
        if self._statements:
            self._database.execute("BEGIN")
            try:
                for statement, values in self._statements:
                    self._database.execute(statement, values)
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
        self._undo, self._statements = [], []

    def _roll_back(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo, self._statements, self._after = [], [], []


def _restore(table: dict[Any, Any], key: object, old: object) -> None:
    if old is None:
        table.pop(key, None)
    else:
        table[key] = old
