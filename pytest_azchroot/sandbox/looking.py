"""A look into a file system that may be the root: mounted read-only in a mount namespace of its own, two small files
read from within, unmounted strictly. Runs in a child of the holder; nothing is written to the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_azchroot.disk import fsck
from pytest_azchroot.errors import SandboxError

from . import archive, inroot, layout, namespaces, process, syscalls

LIMIT = 1 << 18
"""Bytes: nobody's fstab is as long."""

_FSTAB = ("/etc/fstab",)
_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")  # in this order: os-release(5)
_READ_ONLY = {
    # a dirty log is not replayed, which would write to the disk even now
    "ext3": "noload",
    "ext4": "noload",
    "xfs": "norecovery,nouuid",
    "btrfs": "rescue=nologreplay",
}
_TOP = "subvolid=5"  # BTRFS_FS_TREE_OBJECTID, include/uapi/linux/btrfs_tree.h
_SUBVOLUME_INODE = 256  # BTRFS_FIRST_FREE_OBJECTID: the root directory of each subvolume
_MOST_SUBVOLUMES = 200
_DEPTH = 2
"""Levels below the top at which subvolumes are looked for: ``@rootfs`` and ``root`` are at the first."""


def look(node: str, kind: str, options: str) -> None:
    """Write to standard output what is in a file system and in each of its subvolumes, a line of JSON each.

    :param kind: blkid's type.
    :param options: more options of the mount, like ``subvol=@``; then only that is looked into.
    :raises SandboxError: it cannot be mounted, or not be unmounted again.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    namespaces.make_private()
    with _mounted(node, kind, options) as subvolume:
        _report(layout.ROOT, default=True, subvolume=subvolume)
    if kind == "btrfs" and not options:
        with _mounted(node, kind, _TOP):
            for path in sorted(_subvolumes(layout.ROOT))[:_MOST_SUBVOLUMES]:
                _report(path, default=False, subvolume=os.path.relpath(path, layout.ROOT))


@contextmanager
def _mounted(node: str, kind: str, options: str) -> Iterator[str | None]:
    """The file system at the place of the image's root, seen by this process alone; gives its subvolume."""
    flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    data = ",".join(filter(None, (_READ_ONLY.get(kind), options)))
    try:
        syscalls.mount(node, layout.ROOT, kind, flags=flags, data=data or None)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        hint = fsck.damage(kind, why)
        words = f"the file system is damaged ({why})" if hint else why
        if not options:  # which may be wrong themselves
            hint = hint or fsck.doubt(kind, error.errno or 0)
        raise SandboxError(f"{node} ({kind}) cannot be mounted", why=words, hint=hint) from error
    yield _subvolume() if kind == "btrfs" else None
    syscalls.umount(layout.ROOT)


def _subvolume() -> str:
    """Of the newest mount: its root within the file system (proc_pid_mountinfo(5), field 4), without slashes around."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        rows = [line.split(" ") for line in file]
    return next(row[3] for row in reversed(rows) if row[4] == layout.ROOT).strip("/")


def _subvolumes(directory: str, depth: int = _DEPTH) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            # what mount(8) would take for more than a name
            if entry.is_dir(follow_symlinks=False) and not set(entry.name) & {",", '"', "\\"}:
                if entry.inode() == _SUBVOLUME_INODE:
                    yield entry.path
                if depth > 1:
                    yield from _subvolumes(entry.path, depth - 1)


def _report(root: str, *, default: bool, subvolume: str | None) -> None:
    """In a child of our own, which enters the tree: no link in it leads out."""

    def report() -> None:
        inroot.enter(root)
        found = {"default": default, "subvolume": subvolume, "fstab": _text(_FSTAB), "os_release": _text(_OS_RELEASE)}
        with open(1, "wb", closefd=False) as stream:
            stream.write(json.dumps(found).encode("ascii") + b"\n")

    child = process.start(report, stdout=1)
    os.waitpid(child.pid, 0)
    child.result()


def _text(paths: tuple[str, ...]) -> str | None:
    """The first of these files that is one; anything else in its place is not read."""
    for path in paths:
        try:
            with archive.open_regular(path) as file:
                data = file.read(LIMIT + 1)
        except OSError:
            continue
        if len(data) > LIMIT:
            raise SandboxError(f"the image's {path} is longer than {LIMIT} bytes")
        return data.decode(errors="surrogateescape")
    return None
