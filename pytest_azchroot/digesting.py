"""The payload digest of a sealed disk, taken while its checks run.

A file is in the page cache, and its holes are known; a managed disk has to be read from one end to the other, at the
speed that was paid for. Nothing may write to it after the seal, and whether something has is seen when it is closed
(:mod:`pytest_azchroot.disk.writing`): so it makes no difference when it is read.
"""

from __future__ import annotations

import stat
import threading
from pathlib import Path

from pytest_azchroot.disk.copy import Progress, quiet
from pytest_azchroot.disk.digest import digest
from pytest_azchroot.disk.image import opened


class _StoppedError(Exception):
    """Nobody wants to know any more."""


class Digesting:
    """Takes the digest in a thread; :meth:`result` waits for it.

    :param path: the disk. It is open until the thread has ended.
    :param size: in bytes.
    """

    def __init__(self, path: Path, *, size: int) -> None:
        self._path = path
        self._size = size
        self._stopped = threading.Event()
        self._found: str | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def result(self) -> str:
        """The digest.

        :raises DiskError: the disk cannot be read.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found

    def stop(self) -> None:
        """Let go of the disk, whether or not it has been read."""
        self._stopped.set()
        self._thread.join()

    def _take(self) -> None:
        try:
            self._found = taken(self._path, size=self._size, progress=self._look)
        except Exception as error:  # it is raised where somebody asks for the result
            self._error = error

    def _look(self, done: int, total: int) -> None:
        if self._stopped.is_set():
            raise _StoppedError


def is_worthwhile(path: Path) -> bool:
    """Whether reading a disk takes so long that it should begin early: it is no file."""
    return stat.S_ISBLK(path.stat().st_mode)


def taken(path: Path, *, size: int, progress: Progress = quiet) -> str:
    """The payload digest of a disk, now.

    :raises DiskError: it cannot be read.
    """
    with opened(path) as fd:
        return digest(fd, size=size, progress=progress)
