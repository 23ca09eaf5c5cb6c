"""A tree of files as one stream: for each entry a line of JSON, then the bytes of a file.

Not tar: both ends are ours, and names, modes and sizes need no second encoding. Owners do not travel; hard links
arrive as files of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One file, directory or symbolic link. ``name`` is relative to the top; the top itself is ``"."``."""

    name: str
    kind: str
    """``file``, ``directory`` or ``symlink``."""
    mode: int
    size: int = 0
    link: str = ""


class Window:
    """The bytes of one file within the stream."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self.left = size

    def read(self, size: int = _BLOCK) -> bytes:
        """At most size bytes; empty at the end of the file.

        :raises EOFError: the stream ends before the file does.
        """
        data = self._stream.read(min(size, self.left))
        if not data and self.left:
            raise EOFError("the stream ends within a file")
        self.left -= len(data)
        return data


def pack(top: str, stream: BinaryIO) -> None:
    """Write a file or a tree; a link at the top is followed, below it is kept.

    :raises OSError: something cannot be read, or is no file, directory or link.
    """
    if os.path.isdir(top):
        _pack_directory(top, ".", stream)
    else:
        _pack_file(top, ".", stream, follow=True)


def _pack_directory(path: str, name: str, stream: BinaryIO) -> None:
    _write(stream, Entry(name, "directory", stat.S_IMODE(os.stat(path).st_mode)))
    with os.scandir(path) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for each in found:
        below = each.name if name == "." else f"{name}/{each.name}"
        if each.is_symlink():
            _write(stream, Entry(below, "symlink", 0o777, link=os.readlink(each.path)))
        elif each.is_dir(follow_symlinks=False):
            _pack_directory(each.path, below, stream)
        else:
            _pack_file(each.path, below, stream, follow=False)


def _pack_file(path: str, name: str, stream: BinaryIO, *, follow: bool) -> None:
    with open_regular(path, follow=follow) as file:
        status = os.fstat(file.fileno())
        _write(stream, Entry(name, "file", stat.S_IMODE(status.st_mode), status.st_size))
        window = Window(file, status.st_size)
        while data := window.read():
            stream.write(data)


def open_regular(path: str, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading; never waits for the other end of a FIFO, never wakes a device.

    :raises OSError: it cannot be opened, or is something else.
    """
    _refuse_special(path, os.stat(path, follow_symlinks=follow))
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    file = open(os.open(path, flags), "rb")  # noqa: SIM115 - the caller closes it
    _refuse_special(path, os.fstat(file.fileno()))
    return file


def _refuse_special(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(22, f"{kind_of(status.st_mode)}, not a regular file", path)


def kind_of(mode: int) -> str:
    """``a directory``, ``a FIFO``, …"""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device",
        stat.S_IFLNK: "a symbolic link",
    }
    return kinds.get(stat.S_IFMT(mode), "a regular file")


def _write(stream: BinaryIO, entry: Entry) -> None:
    stream.write(json.dumps(asdict(entry)).encode("ascii") + b"\n")


def entries(stream: BinaryIO) -> Iterator[tuple[Entry, Window]]:
    """What :func:`pack` wrote. Each file's bytes are to be read before the next entry is asked for.

    :raises ValueError: a name that leads out of the tree.
    """
    while line := stream.readline():
        entry = Entry(**json.loads(line))
        if entry.name.startswith("/") or ".." in entry.name.split("/"):
            raise ValueError(f"the name {entry.name!r} leads out of the tree")
        window = Window(stream, entry.size)
        yield entry, window
        while window.read():
            pass


def unpack(stream: BinaryIO, top: str) -> None:
    """Write the tree below a directory of this machine, or the single file at this path.

    Nothing is written through a link that stands in the tree or came with it: every step is relative to an open
    directory and follows no link. Files belong to us; set-uid, set-gid and sticky bits are left out.
    """
    for entry, window in entries(stream):
        if entry.name == "." and entry.kind == "directory":
            os.makedirs(top, exist_ok=True)
            continue
        base, name = (os.path.dirname(top) or ".", os.path.basename(top)) if entry.name == "." else (top, entry.name)
        parent = _descend(base, os.path.dirname(name))
        try:
            _create(entry, window, os.path.basename(name), parent)
        finally:
            os.close(parent)


def _descend(base: str, relative: str) -> int:
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in filter(None, relative.split("/")):
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            deeper = os.open(part, flags, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = deeper
    return descriptor


def _create(entry: Entry, window: Window, name: str, parent: int) -> None:
    mode = entry.mode & 0o777
    if entry.kind == "directory":
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except FileExistsError:
            return
        os.chmod(name, mode | 0o700, dir_fd=parent)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
    if entry.kind == "symlink":
        os.symlink(entry.link, name, dir_fd=parent)
        return
    fresh = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
    with open(fresh, "wb") as file:
        shutil.copyfileobj(window, file)
        os.fchmod(fresh, mode)
