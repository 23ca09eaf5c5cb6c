"""What the sandbox does to the image's own tree, run in a child that has entered the image.

The kernel resolves every path there, so no link in the image leads out of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

from pytest_azchroot.leaving import attached_to

from . import capabilities, namespaces


def enter(root: str) -> None:
    """Enter the image to work on its files."""
    namespaces.enter(root)
    capabilities.keep_for_files()


@dataclass(frozen=True)
class Target:
    """A path in the image, free of links, and what had to be made for it to be there, outermost first."""

    path: str
    made: tuple[str, ...]


def make_target(path: str, *, directory: bool) -> Target:
    """Make sure that there is something to mount on."""
    real = os.path.realpath(path)
    made = make_directories(real if directory else os.path.dirname(real))
    if not directory and not os.path.lexists(real):
        os.close(os.open(real, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        made.append(real)
    return Target(real, tuple(made))


def make_targets(paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """:func:`make_target` for directories that file systems of ours will be mounted on, and for paths in these: they
    are there as soon as their file system is, and it has no links that lead away.

    :return: nothing where links of the image lead from one into another: that has to be looked for when that one is
        mounted.
    """
    tops = [path for path in paths if not any(path.startswith(f"{other}/") for other in paths)]
    real = {top: os.path.realpath(top) for top in tops}
    if any(f"{one}/".startswith(f"{other.rstrip('/')}/") for one, other in permutations(real.values(), 2)):
        return {}
    found = {top: asdict(make_target(top, directory=True)) for top in tops}
    within = [(path, top) for path in paths for top in tops if path.startswith(f"{top}/")]
    return {**found, **{path: {"path": real[top] + path[len(top) :], "made": []} for path, top in within}}


def make_directories(path: str) -> list[str]:
    """os.makedirs that says what it made, outermost first."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        os.mkdir(each, 0o755)
    return missing[::-1]


def is_read_only(path: str) -> bool:
    """Whether a path cannot be made because its file system is mounted read-only."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def remove_made(paths: list[str]) -> None:
    """Take away what :func:`make_target` made, unless it has become something else: a directory with content, a file
    with bytes, a link. Then it is the image's."""
    for path in reversed(paths):
        if os.path.islink(path) or not os.path.lexists(path):
            continue
        if os.path.isdir(path):
            if not os.listdir(path):
                os.rmdir(path)
        elif os.path.getsize(path) == 0:
            os.unlink(path)


@dataclass(frozen=True)
class Copied:
    """A file that was lent, and the name under which the image's own one waits."""

    path: str
    aside: str | None
    made: tuple[str, ...]


def copy_in(descriptor: int, path: str, *, mode: int) -> Copied:
    """Put a copy at a path of the image. What was there is renamed, not copied: nothing of it can be lost."""
    parent = os.path.realpath(os.path.dirname(path))
    made = make_directories(parent)
    name = os.path.basename(path)
    final = os.path.join(parent, name)
    aside = None
    if os.path.lexists(final):
        if os.path.isdir(final) and not os.path.islink(final):
            raise IsADirectoryError(21, "Is a directory", final)
        aside = os.path.join(parent, f".{name}.azchroot-original")
        if os.path.lexists(aside):
            raise FileExistsError(17, "File exists", aside)
        os.rename(final, aside)
    try:
        fresh = os.open(final, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(descriptor, "rb", closefd=False) as source, open(fresh, "wb") as target:
            shutil.copyfileobj(source, target)
            os.fchmod(target.fileno(), mode)
    except BaseException as error:
        with attached_to(error):
            give_back(Copied(final, aside, tuple(made)))
        raise
    return Copied(final, aside, tuple(made))


def give_back(copied: Copied) -> None:
    """Take the copy out again, whatever became of it, and put the image's own file back."""
    if os.path.lexists(copied.path):
        os.unlink(copied.path)
    if copied.aside is not None:
        os.rename(copied.aside, copied.path)
    remove_made(list(copied.made))


def as_it_ships(take_out: Sequence[Callable[[], None]], made: list[list[str]]) -> None:
    """Take out of an overlay what the image below it is lent."""
    for each in take_out:
        each()
    for paths in reversed(made):
        remove_made(paths)
