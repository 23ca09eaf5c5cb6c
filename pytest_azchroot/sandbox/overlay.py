"""Overlays: what is written to a covered image stays in memory, and what was written can be said. Runs in the
holder."""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_azchroot.errors import SandboxError

from . import layout, syscalls
from .layers import Layer
from .mounts import within
from .result import Write

VOLATILE = ("/run", "/tmp", "/var/tmp", "/var/log", "/var/cache")
"""What is written there is not meant to last."""

COPIED = frozenset({"vfat", "msdos", "exfat"})
"""File systems whose names ignore case: overlayfs refuses them as a lower layer (``ovl_dentry_weird``)."""

# a kernel's configuration may have other defaults, in which a change is not told by the upper layer alone
_OPTIONS = "redirect_dir=off,index=off,metacopy=off"
_FLAGS = {"nosuid": syscalls.MS_NOSUID, "nodev": syscalls.MS_NODEV, "noexec": syscalls.MS_NOEXEC}
_OPAQUE = "trusted.overlay.opaque"

_LEAST_ROOM = 4 << 20  # in a full file system too, things can be mounted and lent; and 0 would be no bound at all

Traits = tuple[int, ...]


@dataclass(frozen=True)
class Covered:
    """One file system of the image, under its overlay."""

    layer: Layer
    lower: str
    upper: str
    copied: bool
    """Whether ``upper`` is a copy of everything, and no upper layer."""


def cover(index: int, layer: Layer, *, node: str, directory: str, target: str) -> Covered:
    """Put an overlay over one file system.

    :param node: what a look into the merged tree shows as the device that is mounted there.
    :param directory: where the file system is mounted.
    :param target: where the overlay goes.
    :raises SandboxError: overlayfs refuses it.
    """
    lower, memory = f"{layout.LOWER}/{index}", f"{layout.UPPER}/{index}"
    upper, work = f"{memory}/upper", f"{memory}/work"
    os.makedirs(lower, exist_ok=True)
    os.makedirs(memory, exist_ok=True)
    # bound to a name of ours: lowerdir= would take a colon or comma in the path for its own
    syscalls.bind(directory, lower)
    syscalls.mount("tmpfs", memory, "tmpfs", flags=syscalls.MS_NOSUID, data=f"mode=700,size={_room(lower, layer)}")
    flags = sum(_FLAGS[flag] for flag in layer.flags)
    if layer.kind in COPIED:
        shutil.copytree(lower, upper, symlinks=True)
        syscalls.bind(upper, target)
        # a new bind has the flags of what is bound
        syscalls.mount(None, target, flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | flags)
        return Covered(layer, lower, upper, copied=True)
    os.mkdir(work)
    os.mkdir(upper)
    _resemble(upper, lower)
    data = f"lowerdir={lower},upperdir={upper},workdir={work},{_OPTIONS}"
    try:
        syscalls.mount(node, target, "overlay", flags=flags, data=data)
    except OSError as error:
        what = f"no overlay can be put over {layer.path} ({layer.kind})"
        raise SandboxError(what, why=os.strerror(error.errno or 0), hint="is overlayfs in this kernel?") from error
    return Covered(layer, lower, upper, copied=False)


def _room(lower: str, layer: Layer) -> int:
    """Bytes that an upper layer may hold: what is free below it, for that is what a merged tree says of itself; but
    never more than half of the machine's memory, the kernel's own bound for a tmpfs. A copy needs room for all."""
    found = os.statvfs(lower)
    blocks = found.f_blocks if layer.kind in COPIED else found.f_bavail
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(min(blocks * found.f_frsize, memory // 2), _LEAST_ROOM)


def _resemble(upper: str, lower: str) -> None:
    """The root of the merged tree is the upper one's."""
    status = os.stat(lower)
    os.chown(upper, status.st_uid, status.st_gid)
    os.chmod(upper, stat.S_IMODE(status.st_mode))
    os.utime(upper, ns=(status.st_atime_ns, status.st_mtime_ns))


class Writes:
    """What has been written to covered file systems since this was made."""

    def __init__(self, covered: Sequence[Covered]) -> None:
        self._covered = covered
        self._before = [_traits(each.upper) for each in covered]

    def find(self) -> list[Write]:
        """Every change, by path; volatile directories left out."""
        found = set()
        for each, before in zip(self._covered, self._before, strict=True):
            after = _traits(each.upper)
            for name in before.keys() | after.keys():
                if before.get(name) != after.get(name) and (kind := _kind(each, name, before, after)):
                    found.add(Write(os.path.join(each.layer.path, name), kind))
        lasting = (write for write in found if not any(within(write.path, top) for top in VOLATILE))
        return sorted(lasting, key=lambda write: write.path)


def _traits(top: str) -> dict[str, Traits]:
    """Relative path → what changes when somebody changes what is there. Times of a directory do not count: what was
    made in it and removed again is no change."""
    found = {}
    for name, status in _walk(top, ""):
        traits: Traits = (status.st_mode, status.st_uid, status.st_gid, status.st_ino)
        if _is_whiteout(status):
            traits = ()  # all of them are links to one inode, whose times change with each new one
        elif not stat.S_ISDIR(status.st_mode):
            traits += (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_rdev)
        found[name] = traits
    return found


def _walk(top: str, below: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(os.path.join(top, below)) as entries:
        for entry in entries:
            name = os.path.join(below, entry.name)
            status = entry.stat(follow_symlinks=False)
            yield name, status
            if stat.S_ISDIR(status.st_mode):
                yield from _walk(top, name)


def _kind(covered: Covered, name: str, before: dict[str, Traits], after: dict[str, Traits]) -> str | None:
    """What became of a path that is not as it was; None if that says nothing of its own."""
    upper, lower = os.path.join(covered.upper, name), os.path.join(covered.lower, name)
    if name not in after:
        # gone from an upper layer: what we had put there, and the image never had
        return "deleted" if covered.copied else None
    status = os.lstat(upper)
    if _is_whiteout(status):
        return "deleted"
    if not os.path.lexists(lower):
        return "written"
    if stat.S_ISDIR(status.st_mode):
        if _is_opaque(upper):
            return "replaced"
        return None if _ownership(upper) == _ownership(lower) else "touched"
    return "touched" if _same_content(upper, lower) else "written"


def _is_whiteout(status: os.stat_result) -> bool:
    # Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(directory: str) -> bool:
    return _OPAQUE in os.listxattr(directory, follow_symlinks=False) and os.getxattr(directory, _OPAQUE) == b"y"


def _ownership(path: str) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_mode, status.st_uid, status.st_gid


def _same_content(one: str, other: str) -> bool:
    first, second = os.lstat(one), os.lstat(other)
    if stat.S_IFMT(first.st_mode) != stat.S_IFMT(second.st_mode):
        return False
    if stat.S_ISLNK(first.st_mode):
        return os.readlink(one) == os.readlink(other)
    return stat.S_ISREG(first.st_mode) and filecmp.cmp(one, other, shallow=False)
