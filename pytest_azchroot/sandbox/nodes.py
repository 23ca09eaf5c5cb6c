"""Devices: opening them, whatever names there are for them, and making names for them in the private /dev.

Programs in the image may write to that directory. So no link in it is ever followed here: it would lead from the
build machine's root.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from . import layout


def open_device(name: str, number: int, flags: int) -> int:
    """Open a block device: by the build machine's node, on whose inode udev's lock is, else by a node made for it."""
    node = f"{layout.HOST_DEV}/{name}"
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(node)
        if stat.S_ISBLK(status.st_mode) and status.st_rdev == number:
            return os.open(node, flags | os.O_CLOEXEC)
    return open_number(number, flags)


def open_number(number: int, flags: int, *, kind: int = stat.S_IFBLK) -> int:
    """Open a device by number, whatever names exist.

    :param kind: ``S_IFBLK`` or ``S_IFCHR``.
    """
    node = f"{layout.NODES}/{number}"
    os.mknod(node, kind | 0o600, number)
    try:
        return os.open(node, flags | os.O_CLOEXEC)
    finally:
        os.unlink(node)


def put_node(name: str, number: int) -> None:
    """Make the node of a block device, unless it is there.

    :param name: below the private /dev.
    """
    with _parent(name) as (directory, last):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(last, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISBLK(status.st_mode) and status.st_rdev == number:
                return
            os.unlink(last, dir_fd=directory)
        before = os.umask(0)  # mknod obeys it
        try:
            os.mknod(last, stat.S_IFBLK | 0o660, number, dir_fd=directory)
        finally:
            os.umask(before)


def put_link(name: str, target: str) -> None:
    """Make a link to another name below the private /dev. A directory is not replaced."""
    with _parent(name) as (directory, last), contextlib.suppress(IsADirectoryError):
        _unlink(last, directory)
        os.symlink(os.path.relpath(target, os.path.dirname(name) or "."), last, dir_fd=directory)


def remove(name: str) -> None:
    """Remove a node or link, if it is there, and directories that are empty without it."""
    with _parent(name) as (directory, last), contextlib.suppress(IsADirectoryError):
        _unlink(last, directory)
    above = os.path.dirname(name)
    if above:
        with _parent(above) as (directory, last), contextlib.suppress(OSError):  # others are in it
            os.rmdir(last, dir_fd=directory)


def clear(name: str) -> None:
    """Make a directory, and let nothing be in it."""
    with _parent(f"{name}/.") as (directory, _):
        for each in os.listdir(directory):
            with contextlib.suppress(IsADirectoryError):
                _unlink(each, directory)


def is_there(name: str) -> bool:
    """Whether there is a name below the private /dev."""
    with _parent(name) as (directory, last):
        return last in os.listdir(directory)


def _unlink(name: str, directory: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


@contextlib.contextmanager
def _parent(name: str) -> Iterator[tuple[int, str]]:
    """The directory of a name below the private /dev, made if need be, and the last part of the name. Whatever stands
    in its place but a directory is removed."""
    *parents, last = name.split("/")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(layout.DEV, flags)
    try:
        for part in parents:
            try:
                inner = os.open(part, flags, dir_fd=directory)
            except OSError:
                _unlink(part, directory)
                os.mkdir(part, 0o755, dir_fd=directory)
                inner = os.open(part, flags, dir_fd=directory)
            os.close(directory)
            directory = inner
        yield directory, last
    finally:
        os.close(directory)
