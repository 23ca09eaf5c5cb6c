"""Overlays: what is written to a covered image stays in memory. Runs in the holder."""

from __future__ import annotations

import os
import shutil
import stat

from pytest_azchroot.errors import SandboxError

from . import layout, mounts, syscalls
from .layers import Layer
from .written import Covered

COPIED = frozenset({"vfat", "msdos", "exfat"})
"""File systems whose names ignore case: overlayfs refuses them as a lower layer (``ovl_dentry_weird``)."""

# a kernel's configuration may have other defaults, in which a change is not told by the upper layer alone
_OPTIONS = "redirect_dir=off,index=off,metacopy=off"
_FLAGS = {"nosuid": syscalls.MS_NOSUID, "nodev": syscalls.MS_NODEV, "noexec": syscalls.MS_NOEXEC}

_LEAST_ROOM = 4 << 20  # in a full file system too, things can be mounted and lent; and 0 would be no bound at all


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
    _bind(directory, lower, layer, node=node)
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


def _bind(directory: str, lower: str, layer: Layer, *, node: str) -> None:
    """Give the file system a name of ours: ``lowerdir=`` would take a colon or comma in the path for its own.

    :raises SandboxError: by its path something else was found. Before the last step processes of the image may run,
        and what they put in place of a directory of the path could lead to the build machine.
    """
    syscalls.bind(directory, lower)
    bound = [mount for mount in mounts.current() if mount.point == lower][-1]
    same = (bound.root, bound.type) == (layer.root, layer.kind)
    if not same or os.stat(bound.source).st_rdev != os.stat(node).st_rdev:
        what = f"{layer.path} of the image was moved while it was looked at"
        raise SandboxError(what, hint="end what a step has left running before a check")


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
