"""The bytes of disks, snapshots and images: one sparse file each, sharing extents where the file system can.

A file's name is made up, and never used again: a disk that is deleted and made again under its old id is another.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_azchroot.disk import copy, image, qemu

GIB = 1024**3
_UNFINISHED = ".part"


def new_name() -> str:
    """A name that no file has had."""
    return f"{uuid.uuid4().hex}.raw"


class Store:
    """Files below one directory, by name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self.directory / name

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self.path(name).stat().st_size

    def create(self, name: str, size: int) -> None:
        """An empty disk. What was there under this name is gone."""
        with self._making(name) as fd:
            os.ftruncate(fd, size)

    def duplicate(self, source: str, name: str, *, size: int | None = None) -> None:
        """A copy of a file as it is now, grown to ``size`` bytes if that is more.

        :raises DiskError: the source changed its length meanwhile.
        :raises OSError: as the system says.
        """
        with image.opened(self.path(source)) as fd, self._making(name) as target:
            length = os.fstat(fd).st_size
            copy.copy(fd, target, length=length)
            os.ftruncate(target, max(length, size or 0))

    def load(self, path: Path, name: str, *, size: int | None = None) -> None:
        """The disk in a disk image file of any kind that we know.

        :raises DiskError: it cannot be read.
        """
        with image.opened(path) as fd, self._making(name) as target:
            found = image.identify_open(fd, path)
            if found.plain:
                copy.copy(fd, target, length=found.size)
            else:
                qemu.convert(
                    image.qemu_node(found, fd),
                    source=fd,
                    target=target,
                    target_format="raw",
                    directory=self.directory,
                    doing=f"loading {path}",
                )
            os.ftruncate(target, max(found.size, size or 0))

    def grow(self, name: str, size: int) -> None:
        """Make a file longer; one that is longer already stays."""
        if self.size(name) < size:
            os.truncate(self.path(name), size)

    def cut(self, name: str, size: int) -> None:
        """Give a file this length."""
        os.truncate(self.path(name), size)

    def remove(self, name: str) -> None:
        """Remove a file; it need not be there."""
        self.path(name).unlink(missing_ok=True)

    def sweep(self, kept: Collection[str]) -> None:
        """Remove all files but these: what a killed emulator was making."""
        for path in self.directory.iterdir():
            if path.name not in kept:
                path.unlink()

    @contextmanager
    def _making(self, name: str) -> Iterator[int]:
        """A file that gets its name when it is done."""
        unfinished = self.path(name + _UNFINISHED)
        fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            yield fd
            os.rename(unfinished, self.path(name))
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)


def gib(size: int) -> int:
    """Bytes as ``diskSizeGB`` counts them: whole GiB, rounded up."""
    return max(1, -(-size // GIB))
