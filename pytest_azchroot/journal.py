"""What a run has acquired that the kernel would not release by itself, written down before it is asked for.

One file a run, ``journal/RUN.jsonl`` below the state directory: a line that says who runs, then a line for each thing
that is about to be made, that has been learnt of it, and that has been released. A run lives as long as it holds the
lock of its file; what kills it releases the lock, and ``azchroot sweep`` removes what is open then.

The lock is flock(2)'s, of the open file. A program that the run executes does not have it (the file is closed on
exec); a child that is forked and executes nothing does, and the run counts as living until that child has ended too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.records import VERSION, JournalError, Open, Record, parse

__all__ = ["Entry", "Found", "Journal", "JournalError", "Open", "Record", "parse", "records", "state_directory", "tidy"]

STATE_DIRECTORY = "AZCHROOT_STATE_DIR"
_SYSTEM = Path("/var/lib/azchroot")
_SUFFIX = ".jsonl"
_NEW = ".new"
"""Of a file that is not yet a journal: its run may not have locked it, and has asked for nothing."""
_WRITTEN = "written"
_LOOKED_AT = 0.2
"""Seconds in which others who read a journal, as every build does that begins, are done with it."""
_PAUSE = 0.01


# -- writing


@dataclass(frozen=True)
class Entry:
    """One thing in a journal, until it is released."""

    journal: Journal
    number: int
    kind: str
    id: str
    facts: Mapping[str, str]
    """What was known when it was asked for; :meth:`note` adds to what a later reader finds."""

    def note(self, **facts: str) -> None:
        """Add facts, or change them. They are on disk when this returns.

        :raises JournalError: they cannot be written.
        """
        self.journal.append({"entry": self.number, "facts": facts})

    def done(self) -> None:
        """It is released, or has become an artifact. Saying it twice is no mistake.

        :raises JournalError: it cannot be written. A sweep will then find that the thing is not there.
        """
        self.journal.forget(self.number)


class Journal:
    """The journal of one run; :meth:`begin` makes one, :meth:`adopted` takes over that of a dead one. Threads may
    share it."""

    def __init__(self, path: Path, descriptor: int, record: Record) -> None:
        self.path = path
        self.record = record
        """What it said when it was begun or adopted."""
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._open = {each.number for each in record.entries}
        self._next = max(self._open, default=0) + 1

    @property
    def run(self) -> str:
        """The id of the run: unique, and later ones sort behind earlier ones."""
        return self.record.run

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What was open when it was adopted, and is open still."""
        known = [each for each in self.record.entries if each.number in self._open]
        return tuple(Entry(self, each.number, each.kind, each.id, each.facts) for each in known)

    @classmethod
    def begin(cls, *, directory: Path | None = None, host: str) -> Journal:
        """Make a journal and hold its lock. Nobody sees the file without lock while this process lives.

        :param directory: the state directory; default :func:`state_directory`.
        :param host: the unique id of this machine.
        :raises JournalError: it cannot be written.
        """
        now = datetime.now(timezone.utc)
        run = f"{now:%Y%m%dT%H%M%S.%f}Z-{secrets.token_hex(4)}"
        head = {"version": VERSION, "run": run, "host": host, "pid": os.getpid(), "started": now.isoformat()}
        text = json.dumps(head) + "\n"
        path = _place(directory) / f"{run}{_SUFFIX}"
        with _explained(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = _new(path.with_suffix(_NEW))
            try:
                _write(descriptor, text.encode())
                path.with_suffix(_NEW).rename(path)
                _sync_directory(path.parent)
            except BaseException:
                for name in (path.with_suffix(_NEW), path):
                    name.unlink(missing_ok=True)
                os.close(descriptor)
                raise
        return cls(path, descriptor, parse(text))

    @classmethod
    def adopted(cls, path: Path) -> Journal | None:
        """Take over the journal of a dead run, with its lock; None if the run lives, somebody else has taken it over,
        or it is gone.

        :raises JournalError: it cannot be read.
        """
        with _explained(path, "read"):
            descriptor = _taken(path, patience=_LOOKED_AT)
            if descriptor is None:
                return None
            try:
                return cls(path, descriptor, parse(_text(descriptor)))
            except BaseException:
                os.close(descriptor)
                raise

    def intend(self, kind: str, id: str, **facts: str) -> Entry:
        """Write down what is about to be asked for. It is on disk when this returns: ask then.

        :param facts: what a sweep needs besides; no secrets.
        :raises JournalError: it cannot be written: do not ask.
        """
        with self._lock:
            number, self._next = self._next, self._next + 1
        at = datetime.now(timezone.utc).isoformat()
        self.append({"entry": number, "kind": kind, "id": id, "facts": facts, "at": at})
        with self._lock:
            self._open.add(number)
        return Entry(self, number, kind, id, facts)

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line, all of it or nothing.

        :raises JournalError: it cannot be written.
        """
        data = json.dumps(line).encode() + b"\n"
        with self._lock, _explained(self.path):
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            try:
                _write(self._descriptor, data)
            except OSError:
                os.ftruncate(self._descriptor, end)
                raise

    def forget(self, number: int) -> None:
        """Write that an entry is done.

        :raises JournalError: it cannot be written.
        """
        with self._lock:
            known = number in self._open
            self._open.discard(number)
        if known:
            self.append({"entry": number, "done": True})

    def close(self) -> None:
        """Release the lock. The file goes where nothing is open, else it waits for a sweep.

        :raises JournalError: it cannot be removed.
        """
        with self._lock, _explained(self.path):
            if self._descriptor < 0:
                return
            try:
                if not self._open and not self.record.damaged:
                    self.path.unlink(missing_ok=True)
            finally:
                descriptor, self._descriptor = self._descriptor, -1
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may have it open
                os.close(descriptor)


# -- the directory


@dataclass(frozen=True)
class Found:
    """A journal that is there."""

    path: Path
    """Its stem is the run's id."""
    alive: bool
    """Its run lives, or another sweep has taken it over."""
    record: Record | None
    problem: AzchrootError | None = None
    """Why there is no record."""


def state_directory() -> Path:
    """``$AZCHROOT_STATE_DIR``; else ``/var/lib/azchroot`` for root, and for others ``azchroot`` in
    ``$XDG_STATE_HOME`` (XDG Base Directory Specification: ``~/.local/state``)."""
    if given := os.environ.get(STATE_DIRECTORY):
        return Path(given).absolute()
    if os.geteuid() == 0:
        return _SYSTEM
    home = os.environ.get("XDG_STATE_HOME") or ""
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local/state"
    return base / "azchroot"


def records(directory: Path | None = None) -> Iterator[Found]:
    """The journals of a state directory, the oldest first.

    :raises JournalError: the directory cannot be read.
    """
    for path in _files(directory, _SUFFIX):
        yield from _found(path)


def tidy(directory: Path | None = None) -> None:
    """Remove what runs left that were killed before they had a journal.

    :raises JournalError: the directory cannot be read, or written to.
    """
    for path in _files(directory, _NEW):
        with _explained(path, "removed"):
            descriptor = _taken(path)
            if descriptor is not None:
                path.unlink(missing_ok=True)
                os.close(descriptor)


def _files(directory: Path | None, suffix: str) -> list[Path]:
    place = _place(directory)
    with _explained(place, "read"):
        try:
            return [place / name for name in sorted(os.listdir(place)) if name.endswith(suffix)]
        except FileNotFoundError:
            return []


def _found(path: Path) -> Iterator[Found]:
    alive = False
    try:
        with _explained(path, "read"):
            descriptor = _taken(path, fcntl.LOCK_SH)
            alive = descriptor is None
            if descriptor is None:
                text = path.read_text(encoding="utf-8", errors="replace")
            else:
                text = _text(descriptor)
                os.close(descriptor)
        yield Found(path, alive, parse(text))
    except AzchrootError as error:
        if path.exists():
            yield Found(path, alive, None, error)


def _place(directory: Path | None) -> Path:
    return (state_directory() if directory is None else directory.absolute()) / "journal"


def _new(path: Path) -> int:
    """Make a file and lock it. A sweep may come between and remove it: then again."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _taken(path: Path, kind: int = fcntl.LOCK_EX, *, patience: float = 0.0) -> int | None:
    """The file, open and locked; None if another has it locked, or it is gone.

    :param kind: who only looks takes a lock that others who look can have, too.
    :param patience: seconds to wait for those.
    """
    deadline = time.monotonic() + patience
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        while not _locked(descriptor, kind):
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(_PAUSE)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _text(descriptor: int) -> str:
    with open(descriptor, encoding="utf-8", errors="replace", newline="", closefd=False) as file:
        return file.read()


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path, doing: str = _WRITTEN) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = f"nothing is asked for that is not written down; {STATE_DIRECTORY} names another directory"
        what = f"the journal {path} cannot be {doing}"
        raise JournalError(what, why=error.strerror, hint=hint if doing == _WRITTEN else None) from error
