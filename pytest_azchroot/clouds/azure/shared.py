"""What the builds of a host share: a private directory, locks that the kernel releases, small files of JSON.

The locks are flock(2)'s: a process that has been killed holds none.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_azchroot.errors import UnavailableError

Json = dict[str, Any]
SYSTEM = Path("/run/azchroot")
"""Of root. It is gone with the next boot, and so are the times in it."""

_STALLED = 30.0
"""Seconds for which nobody holds a lock who goes on: it is held to read and write a small file."""
_PAUSE = 0.002


def now() -> float:
    """Seconds since the host has booted, the same in all processes; it goes on while the host is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def home() -> Path:
    """Where the builds of this user meet."""
    if os.geteuid() == 0:
        return SYSTEM
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "azchroot") if runtime else Path(tempfile.gettempdir(), f"azchroot-{os.geteuid()}")


def private(path: Path) -> Path:
    """Make a directory that nobody else can enter, with those above it.

    :raises UnavailableError: it cannot be made, or is somebody else's: whoever writes into it decides what we ask of
        Azure, and where our token is sent.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        for each in (path, path.parent):
            found = each.lstat()
            strange = not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid()
            if strange or (each == path and found.st_mode & 0o077):
                raise UnavailableError(
                    f"{each} cannot be used to agree with other builds",
                    why="it is not a directory of this user alone",
                    hint=f"remove it, or chmod 700 {each}",
                )
    except OSError as error:
        raise UnavailableError(f"{path} cannot be made, where the builds of this host agree", why=str(error)) from error
    return path


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what it means if nothing can be written here.

    :raises UnavailableError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"{path.parent} cannot be written, where the builds of this host agree about its disks",
            why=error.strerror,
            hint=f"is its file system full, or read-only? `df -h {path.parent}` tells",
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock for a moment; waits for it.

    :raises UnavailableError: it cannot be made, or whoever holds it does not go on.
    """
    with explained(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _STALLED
    try:
        while not seized(fd):
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{path} stays locked, by which the builds of this host agree",
                    why="the process that has locked it does not go on: it may be suspended (Ctrl-Z)",
                    hint=f"`fuser {path}` names those that have it open: let it continue (kill -CONT), or end it",
                )
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(fd)


@contextmanager
def attempt(path: Path) -> Iterator[bool]:
    """Hold a lock if nobody has it; says whether.

    :raises UnavailableError: it cannot be made.
    """
    with explained(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        ours = seized(fd)
        if ours:
            with explained(path):
                os.pwrite(fd, f"{os.getpid():>10}".encode(), 0)
        yield ours
    finally:
        os.close(fd)


def holder(path: Path) -> str:
    """The process that has, or had, a lock that was taken by :func:`attempt`."""
    return path.read_text(encoding="utf-8").strip() or "of somebody"


def seized(fd: int) -> bool:
    """Lock an open file, if nobody else has it locked."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read(path: Path) -> Json:
    """An object; empty where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:  # of another version of us, or somebody's hand
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, content: Json) -> None:
    """Replace a file as a whole. It need not survive the host, so nothing is synced.

    :raises UnavailableError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    with explained(path):
        try:
            new.write_text(json.dumps(content), encoding="utf-8")
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


@contextmanager
def changing(path: Path) -> Iterator[Json]:
    """Change an object that others change too; what is in it when the block ends is kept."""
    with locked(path.with_suffix(".lock")):
        content = read(path)
        before = json.dumps(content)
        yield content
        if json.dumps(content) != before:
            write(path, content)


def fill(fd: int, content: Json) -> None:
    """Write an object into an open file.

    :raises OSError: there is no room for it.
    """
    with open(fd, "wb", closefd=False) as file:
        file.write(json.dumps(content).encode())
