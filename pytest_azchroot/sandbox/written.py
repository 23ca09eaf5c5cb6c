"""What was written to covered file systems: the upper layers, compared with what is below them.

Processes of the image may still run, and swap what is being looked at. So no path is resolved here. Every name is
looked up in the descriptor of its own directory and never followed, and of what it leads to only regular files and
directories are opened. The work is bounded: in depth, in names that are kept, in bytes that are compared; and the
caller sets a time.
"""

from __future__ import annotations

import heapq
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from pytest_azchroot.printable import printable

from .layers import Layer
from .mounts import within
from .result import Write

VOLATILE = ("/run", "/tmp", "/var/tmp", "/var/log", "/var/cache")
"""What is written there is not meant to last."""

NAMED = 1000
"""So many changes are named; of the rest only their number is said."""
DEPTH = 100
"""Levels below a file system's root. Real trees have some thirty; each level takes four descriptors."""
_COMPARED = 64 << 20
"""Bytes up to which a changed file is compared with what it was, to say whether more than its times has changed."""
_LONGEST = 1000
"""Characters of a path that are shown."""

_OPAQUE = "trusted.overlay.opaque"
_BLOCK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

Traits = tuple[int, ...]
Skip = Callable[[str], bool]


@dataclass(frozen=True)
class Covered:
    """One file system of the image, under its overlay."""

    layer: Layer
    lower: str
    upper: str
    copied: bool
    """Whether ``upper`` is a copy of everything, and no upper layer."""


class Writes:
    """What has been written to covered file systems since this was made."""

    def __init__(self, covered: Sequence[Covered]) -> None:
        """To be made before anything of the image runs there."""
        self._covered = covered
        self._before = [_traits(each) for each in covered]

    def report(self) -> None:
        """Write every change to standard output, a line of JSON each, in the order of paths. For a child: it takes as
        long as there is much to look at."""
        changes = _Counted(write for pair in zip(self._covered, self._before, strict=True) for write in _changes(*pair))
        first = heapq.nsmallest(NAMED, changes, key=lambda write: write.path)
        if changes.number > len(first):
            first.append(Write("/", "written", changes.number - len(first)))
        with open(1, "wb", closefd=False) as stream:
            stream.writelines(json.dumps(asdict(write)).encode("ascii") + b"\n" for write in first)


@dataclass
class _Counted:
    """An iterable that knows how many it has given."""

    items: Iterator[Write]
    number: int = 0

    def __iter__(self) -> Iterator[Write]:
        for self.number, item in enumerate(self.items, 1):  # noqa: B020 - the count stays
            yield item


@dataclass(frozen=True)
class _Found:
    """One name of an upper layer."""

    path: str
    """Relative to the file system's root."""
    name: str
    status: os.stat_result
    upper: int
    """The directory that it is in."""
    lower: int | None
    """That directory below; None where there is none."""
    within: int | None = field(default=None)
    """Itself, where it is a directory that can be looked into."""


def _traits(covered: Covered) -> dict[str, Traits]:
    return {found.path: _what_changes(found.status) for found in _walk(covered)}


def _what_changes(status: os.stat_result) -> Traits:
    """What changes when somebody changes what is there. Times of a directory do not count: what was made in it and
    removed again is no change."""
    if _is_whiteout(status):
        return ()  # all of them are links to one inode, whose times change with each new one
    traits: Traits = (status.st_mode, status.st_uid, status.st_gid, status.st_ino)
    if stat.S_ISDIR(status.st_mode):
        return traits
    return (*traits, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_rdev)


def _changes(covered: Covered, before: Mapping[str, Traits]) -> Iterator[Write]:
    gone = {*before}
    for found in _walk(covered):
        gone.discard(found.path)
        if before.get(found.path) != _what_changes(found.status) and (kind := _kind(found)):
            yield Write(_shown(covered, found.path), kind)
    if covered.copied:  # gone from an upper layer is what we had put there, and the image never had
        yield from (Write(_shown(covered, path), "deleted") for path in gone)


def _shown(covered: Covered, path: str) -> str:
    """A path as it can be printed anywhere: names may hold what steers a terminal, and bytes that are no UTF-8."""
    text = os.fsencode(os.path.join(covered.layer.path, path)).decode(errors="backslashreplace")
    text = printable(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


# ---- walking


def _walk(covered: Covered) -> Iterator[_Found]:
    """Everything in an upper layer, but for volatile directories."""

    def is_volatile(path: str) -> bool:
        full = os.path.join(covered.layer.path, path).rstrip("/") or "/"
        return any(within(full, top) for top in VOLATILE)

    if is_volatile(""):
        return
    upper = os.open(covered.upper, _DIRECTORY)
    lower = os.open(covered.lower, _DIRECTORY)
    try:
        yield from _below(upper, lower, "", is_volatile)
    finally:
        os.close(upper)
        os.close(lower)


def _below(upper: int, lower: int | None, path: str, skip: Skip, depth: int = 1) -> Iterator[_Found]:
    with os.scandir(upper) as entries:
        for entry in entries:
            below = os.path.join(path, entry.name)
            if skip(below):
                continue
            try:
                status = os.stat(entry.name, dir_fd=upper, follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone meanwhile
            if not stat.S_ISDIR(status.st_mode) or depth > DEPTH:
                yield _Found(below, entry.name, status, upper, lower)
                continue
            with _directory(upper, entry.name) as inner, _directory(lower, entry.name) as beneath:
                # what could not be opened has been swapped for something else, which is a change
                yield _Found(below, entry.name, status if inner is None else os.fstat(inner), upper, lower, inner)
                if inner is not None:
                    yield from _below(inner, beneath, below, skip, depth + 1)


@contextmanager
def _directory(parent: int | None, name: str) -> Iterator[int | None]:
    """A directory by its name in another one; None where the name is anything else."""
    try:
        descriptor = None if parent is None else os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError:
        descriptor = None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


# ---- comparing


def _kind(found: _Found) -> str | None:
    """What became of a name that is not as it was; None if that says nothing of its own."""
    if _is_whiteout(found.status):
        return "deleted"
    before = _before(found)
    if before is None:
        return "written"
    if not stat.S_ISDIR(found.status.st_mode):
        return "touched" if _same_content(found, before) else "written"
    if found.within is None:
        return "written"
    if not stat.S_ISDIR(before.st_mode) or _is_opaque(found.within):
        return "replaced"
    return None if _ownership(found.status) == _ownership(before) else "touched"


def _before(found: _Found) -> os.stat_result | None:
    try:
        return None if found.lower is None else os.stat(found.name, dir_fd=found.lower, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_whiteout(status: os.stat_result) -> bool:
    # Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(directory: int) -> bool:
    return _OPAQUE in os.listxattr(directory) and os.getxattr(directory, _OPAQUE) == b"y"


def _ownership(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid


def _same_content(found: _Found, before: os.stat_result) -> bool:
    if stat.S_IFMT(found.status.st_mode) != stat.S_IFMT(before.st_mode):
        return False
    try:
        if stat.S_ISLNK(before.st_mode):
            return os.readlink(found.name, dir_fd=found.upper) == os.readlink(found.name, dir_fd=found.lower)
        if not stat.S_ISREG(before.st_mode) or before.st_size > _COMPARED:
            return False
        with _regular(found.upper, found.name) as one, _regular(found.lower, found.name) as other:
            return one is not None and other is not None and _same_bytes(one, other)
    except OSError:  # swapped or gone meanwhile
        return False


def _same_bytes(one: int, other: int) -> bool:
    left = os.fstat(other).st_size
    if left != os.fstat(one).st_size or left > _COMPARED:
        return False
    while left > 0:
        block = os.read(one, min(_BLOCK, left))
        if not block or block != os.read(other, len(block)):
            return False
        left -= len(block)
    return True


@contextmanager
def _regular(parent: int | None, name: str) -> Iterator[int | None]:
    """A regular file by its name in a directory; None where it is anything else by now.

    It is named first, without opening it, and looked at: opening a FIFO can wait for ever, opening a device may do
    anything.
    """
    if parent is None:
        yield None
        return
    named = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    opened = None
    try:
        if stat.S_ISREG(os.fstat(named).st_mode):
            opened = os.open(f"/proc/self/fd/{named}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        yield opened
    finally:
        os.close(named)
        if opened is not None:
            os.close(opened)
