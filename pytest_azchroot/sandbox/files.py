"""Files in and out of the image: tasks of a child that has entered the image, so the kernel resolves every path
there. Data comes on standard input or goes to standard output."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.leaving import attached_to

from . import archive, command, inroot
from .archive import Entry, Window
from .passwd import UnknownNameError

_NEW_FILE = 0o644
_PIECE = 65536


def put_file(target: str, name: str, mode: int | None, owner: str | None, keep: bool) -> None:
    """Replace a file by what standard input holds, at once: a reader sees the old or the new, never a part.

    :param name: the file's name if the target is a directory or ends in ``/``; empty refuses both.
    :param keep: without a mode or an owner, keep those of the file that is replaced.
    """
    if target.endswith("/") or os.path.isdir(target):
        if not name:
            raise IsADirectoryError(21, "Is a directory", target)
        target = os.path.join(target, name)
    with open(0, "rb", closefd=False) as stream:
        _store(stream, target, mode=mode, owner=_owner(owner), keep=keep)


def put_directory(target: str, owner: str | None) -> None:
    """Merge the tree on standard input into a directory. Directories that are there keep their mode and owner."""
    ids = _owner(owner) or (0, 0)
    with open(0, "rb", closefd=False) as stream:
        for entry, window in archive.entries(stream):
            _place(entry, window, os.path.normpath(os.path.join(target, entry.name)), ids)


def get(source: str) -> None:
    """Write a file or a tree to standard output as a stream of :mod:`archive`."""
    with open(1, "wb", closefd=False) as stream:
        archive.pack(source, stream)


def read(source: str, limit: int | None) -> None:
    """Write the bytes of a file to standard output, or the first of them."""
    with archive.open_regular(source) as file, open(1, "wb", closefd=False) as stream:
        if limit is None:
            shutil.copyfileobj(file, stream)
        while limit and (data := file.read(min(limit, _PIECE))):
            stream.write(data)
            limit -= len(data)


def present(paths: Sequence[str]) -> None:
    """Write to standard output, as JSON, which of these are there, or cannot be looked at: who reads that one is told
    why."""
    found = []
    for path in paths:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass
        found.append(path)
    with open(1, "w", encoding="ascii", closefd=False) as stream:
        json.dump(found, stream)


def remove(target: str) -> None:
    """Remove a file or a link; it need not be there."""
    if os.path.lexists(target):
        os.unlink(target)


TASKS: dict[str, Callable[..., Any]] = {
    "put_file": put_file,
    "put_directory": put_directory,
    "get": get,
    "read": read,
    "present": present,
    "remove": remove,
}


def _owner(wanted: str | None) -> tuple[int, int] | None:
    if wanted is None:
        return None
    try:
        return command.accounts().owner(wanted)
    except UnknownNameError as error:
        raise SandboxError(f"no owner {wanted!r} can be given", why=str(error)) from None


def _place(entry: Entry, window: Window, path: str, ids: tuple[int, int]) -> None:
    if entry.kind == "directory":
        if not os.path.isdir(path):
            inroot.make_directories(os.path.dirname(os.path.realpath(path)))
            os.mkdir(os.path.realpath(path))
            os.chown(path, *ids)
            os.chmod(path, entry.mode)
    elif entry.kind == "symlink":
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink(entry.link, path)
        os.chown(path, *ids, follow_symlinks=False)
    else:
        _store(window, path, mode=entry.mode, owner=ids, keep=False)


def _store(
    stream: BinaryIO | Window, path: str, *, mode: int | None, owner: tuple[int, int] | None, keep: bool
) -> None:
    real = os.path.realpath(path)
    parent = os.path.dirname(real)
    inroot.make_directories(parent)
    mode, owner = _attributes(real, mode=mode, owner=owner, keep=keep)
    passing = os.path.join(parent, f".azchroot-{os.getpid()}")
    fresh = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fresh, "wb") as file:
            shutil.copyfileobj(stream, file)
            os.fchown(fresh, *owner)
            os.fchmod(fresh, mode)  # after chown, which clears set-uid
        os.rename(passing, real)
    except BaseException as error:
        with attached_to(error):
            os.unlink(passing)
        raise


def _attributes(
    path: str, *, mode: int | None, owner: tuple[int, int] | None, keep: bool
) -> tuple[int, tuple[int, int]]:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return _NEW_FILE if mode is None else mode, owner or (0, 0)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(22, f"{archive.kind_of(status.st_mode)}, not a regular file", path)
    if not keep:
        return _NEW_FILE if mode is None else mode, owner or (0, 0)
    return stat.S_IMODE(status.st_mode) if mode is None else mode, owner or (status.st_uid, status.st_gid)
