"""What the builds of a host want of their virtual machine's data disks: a directory of requests, a file each.

Who wants something writes a request and keeps its file locked; who holds the machine's lock (the leader) carries out
all of them with one call, and writes the answers. A request whose file is not locked is of a dead process and is
dropped. Only the leader reads the queue; notes and answers are the leader's to write.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pytest_azchroot.clouds.azure import shared

What = Literal["attach", "detach"]
_REQUEST, _ANSWER, _NOTE = ".request", ".answer", ".note"
_OLD = 60.0
_counter = itertools.count()


@dataclass(frozen=True)
class Request:
    """Something that a build wants."""

    id: str
    """In the order of arrival."""
    pid: int
    what: What
    disk: str
    """The disk's id, as its owner spells it."""
    caching: str = ""

    @property
    def key(self) -> str:
        """The disk's id, to compare: Azure's ids have no case."""
        return self.disk.lower()


@dataclass(frozen=True)
class Failure:
    """An error, as it goes from the leader to who asked."""

    what: str
    why: str | None = None
    hint: str | None = None
    status: int | None = None
    code: str | None = None


@dataclass(frozen=True)
class Answer:
    """What became of a request."""

    lun: int | None = None
    """Of a disk that has been attached."""
    operation: str | None = None
    """Where to ask how the work goes; None where there is none, or nobody knows it."""
    together: int = 1
    """How many requests the operation is for: its failure may be another's."""
    failure: Failure | None = None


@dataclass(frozen=True)
class Note:
    """What is known of a request that is not answered yet."""

    group: str = ""
    """Only what is in one group goes into one call: a call that was refused for one disk's sake is divided."""
    due: float = 0.0
    """Not to be tried before, as :func:`.shared.now` has it."""
    attempts: int = 0
    avoid: Sequence[int] = ()
    """LUNs that Azure has refused for it."""
    alone: bool = False
    """Its owner has to ask itself: another's credential was refused."""
    failure: Failure | None = None
    """The last refusal."""


class Queue:
    """The requests for one virtual machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def asked(self, what: What, disk: str, *, caching: str = "") -> Iterator[Request]:
        """Ask, as long as the block lasts.

        :raises UnavailableError: the request cannot be written.
        """
        pid = os.getpid()
        id_ = f"{time.clock_gettime_ns(time.CLOCK_BOOTTIME):020d}-{pid}-{next(_counter)}-{secrets.token_hex(3)}"
        request = Request(id_, pid, what, disk, caching)
        new = self._directory / f".{id_}"
        with shared.explained(new):
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with shared.explained(new):
                fcntl.flock(fd, fcntl.LOCK_EX)
                shared.fill(fd, asdict(request))
                new.rename(self._path(request.id, _REQUEST))  # it is whole and locked before anybody sees it
            yield request
        finally:
            new.unlink(missing_ok=True)
            self._drop(id_)
            os.close(fd)

    def waiting(self) -> list[Request]:
        """Requests of living processes without an answer, the oldest first. What the dead left is removed."""
        names = {each.name for each in self._directory.iterdir()}
        for name in names:
            self._forget_unfinished(name)
            id_, dot, suffix = name.rpartition(".")
            if dot + suffix in {_ANSWER, _NOTE} and id_ + _REQUEST not in names:
                (self._directory / name).unlink(missing_ok=True)
        ids = sorted(name.removesuffix(_REQUEST) for name in names if name.endswith(_REQUEST))
        found = [self._read(id_) for id_ in ids if id_ + _ANSWER not in names]
        return [each for each in found if each is not None]

    def lives(self, request: Request) -> bool:
        """Whether somebody still waits for it."""
        return self._read(request.id) is not None

    def answer(self, request: Request, answer: Answer) -> None:
        """Say what became of it."""
        shared.write(self._path(request.id, _ANSWER), asdict(answer))

    def answered(self, request: Request) -> Answer | None:
        """What became of it, if it is known."""
        found = shared.read(self._path(request.id, _ANSWER))
        return Answer(**{**found, "failure": _failure(found.get("failure"))}) if found else None

    def note(self, request: Request) -> Note:
        """What is known of it."""
        found = shared.read(self._path(request.id, _NOTE))
        avoid = tuple(found.get("avoid") or ())
        return Note(**{**found, "avoid": avoid, "failure": _failure(found.get("failure"))})

    def remember(self, request: Request, note: Note) -> None:
        """Write down what is known of it."""
        shared.write(self._path(request.id, _NOTE), asdict(note))

    def _path(self, id_: str, suffix: str) -> Path:
        return self._directory / f"{id_}{suffix}"

    def _read(self, id_: str) -> Request | None:
        """A request, if its owner lives; else it is removed."""
        path = self._path(id_, _REQUEST)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if shared.seized(fd):
                self._drop(id_)
                return None
            return Request(**shared.read(path))
        except TypeError:  # withdrawn this moment: nothing to read any more
            return None
        finally:
            os.close(fd)

    def _forget_unfinished(self, name: str) -> None:
        """What somebody was writing when he was killed."""
        path = self._directory / name
        with contextlib.suppress(FileNotFoundError):  # it is finished now
            if name.startswith(".") and time.time() - path.stat().st_mtime > _OLD:
                path.unlink()

    def _drop(self, id_: str) -> None:
        for suffix in (_REQUEST, _ANSWER, _NOTE):
            self._path(id_, suffix).unlink(missing_ok=True)


def _failure(found: dict[str, Any] | None) -> Failure | None:
    return None if found is None else Failure(**found)
