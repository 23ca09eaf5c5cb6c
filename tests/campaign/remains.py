"""What a build has left of itself on the machine, and in which state its files are."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pytest_azchroot.disk.digest import digest_of
from pytest_azchroot.disk.outputs import MANIFEST
from pytest_azchroot.errors import DiskError
from pytest_azchroot.sandbox import syscalls

from . import stages, subject

GROUP = re.compile(r"/(\./.*/azchroot-[0-9a-f]{8})")
"""A control group, as the tracer sees it: below a mount that is nowhere."""
PARTIAL = re.compile(r"\..+\.[0-9a-f]{16}\.partial")
_PATIENCE = 20.0
"""Seconds. A loop device is free when the kernel has written what was dirty, and that may be after the last process."""


def left_on_machine(directory: Path, loops: Iterable[str], made: Iterable[str]) -> list[str]:
    """Processes, mounts, loop devices, partitions and control groups of builds in a directory, when the kernel has had
    its time.

    :param loops: the loop devices that they bound; by now another program may have them.
    :param made: the names that they made.
    """
    used = set(loops)
    groups = [group.group(1) for name in made if (group := GROUP.fullmatch(name))]
    deadline = time.monotonic() + _PATIENCE
    while (found := [*_held(directory, used), *_groups(groups)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def _held(directory: Path, loops: Iterable[str]) -> Iterator[str]:
    here = str(directory)
    for entry in Path("/proc").glob("[0-9]*"):
        if here in _text(entry / "environ"):
            yield f"process {entry.name}: {_text(entry / 'cmdline')}"
    for line in _text(Path("/proc/self/mountinfo")).splitlines():
        # also a namespace that is bound to a name, which lives on without processes
        if here in line or "azchroot" in line or " - nsfs " in line:
            yield f"mount {line}"
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        if _text(path).startswith(f"{here}/"):
            yield f"loop device {path.parts[3]}: {_text(path)}"
    for loop in loops:
        if not Path(f"/sys/block/{loop}/loop").exists():
            nodes = [*Path(f"/sys/block/{loop}").glob(f"{loop}p*"), *Path("/dev").glob(f"{loop}p*")]
            yield from (f"partition {node}" for node in nodes)


def _groups(names: Iterable[str]) -> Iterator[str]:
    if not names:
        return
    root = syscalls.detached_mount("cgroup2")
    try:
        for name in names:
            with suppress(FileNotFoundError):
                os.stat(name, dir_fd=root)
                yield f"control group {name}"
    finally:
        os.close(root)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""


def strangers(names: Iterable[str], directory: Path) -> list[str]:
    """Names that a build made outside of its directory on the build machine, but for what Python compiles and for
    control groups, which have to be gone."""
    own = (f"{directory}/", "/proc/", "/dev/null")
    return [
        name for name in names if not name.startswith(own) and "__pycache__" not in name and not GROUP.fullmatch(name)
    ]


def files(directory: Path) -> frozenset[str]:
    """Every name below a directory."""
    return frozenset(str(path.relative_to(directory)) for path in directory.rglob("*"))


def partials(names: Iterable[str]) -> list[str]:
    """Those that belong to unfinished files."""
    return [name for name in names if PARTIAL.fullmatch(name.rpartition("/")[2])]


def misstated(image: Path, digests: Iterable[str]) -> list[str]:
    """What is wrong with the files that an image has published: each that has its name has to hold what was sealed, and
    a manifest beside it has to say so. All may be missing; the manifest may, beside its artifact.

    :param digests: those that were taken at seals.
    """
    return [*_misstated(image, frozenset(digests))]


def _misstated(image: Path, digests: frozenset[str]) -> Iterator[str]:
    for name in subject.OUTPUTS:
        artifact, record = image / name, image / f"{name}{MANIFEST}"
        try:
            digest = digest_of(artifact) if artifact.exists() else None
        except DiskError as error:
            digest = str(error)
        if digest is not None and digest not in digests:
            yield f"{name} is not what was sealed"
        if record.exists():
            said = {Path(each["id"]).name: each["digest"] for each in json.loads(record.read_text())["artifacts"]}
            if digest is None:
                yield f"{record.name} is there without {name}"
            elif said.get(name) != digest:
                yield f"{record.name} speaks of another {name}"


def sealed(image: Path) -> str | None:
    """The digest of the last build that came to its verdict."""
    path = image / stages.SEALED
    return path.read_text() if path.exists() else None
