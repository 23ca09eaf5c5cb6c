"""Read-only checks of file systems: is what was written consistent? And what to say of one that is damaged."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Checker:
    """A tool that checks one kind of file system without writing to it and exits with 0 only if it is clean."""

    command: tuple[str, ...]
    package: str
    """The Debian package that has the tool."""
    by_hand: str
    """The command for who has the file system before him: it may repair it. btrfs-check(8) warns of ``--repair``."""

    def argv(self, node: str) -> list[str]:
        """The command for one node."""
        return [*self.command, node]


_EXT = Checker(("e2fsck", "-f", "-n"), "e2fsprogs", "e2fsck -f")

CHECKERS = {
    "ext2": _EXT,
    "ext3": _EXT,
    "ext4": _EXT,
    "xfs": Checker(("xfs_repair", "-n"), "xfsprogs", "xfs_repair"),
    "btrfs": Checker(("btrfs", "check", "--readonly"), "btrfs-progs", "btrfs check"),
    "vfat": Checker(("fsck.fat", "-n"), "dosfstools", "fsck.fat"),
}
"""By blkid's TYPE."""

_DAMAGED = (os.strerror(errno.EBADMSG), os.strerror(errno.EUCLEAN), "corrupted filesystem")
"""What kernels answer where a checksum or a structure is wrong (EFSBADCRC and EFSCORRUPTED of ext4 and XFS), and what
mount(8) makes of the second."""


def damage(kind: str | None, words: str) -> str | None:
    """What to do about a file system that is damaged; None if the words of a refusal do not say that it is.

    :param kind: by blkid.
    :param words: strerror(3), or the output of mount(8).
    """
    if not any(said in words for said in _DAMAGED):
        return None
    return _remedy(kind)


def doubt(kind: str | None, code: int) -> str | None:
    """What to do where a kernel may mean damage, or may mean what it does not know; None for other refusals.

    :param code: of errno(3). btrfs says EINVAL of a superblock whose checksum is wrong.
    """
    if code not in {errno.EINVAL, errno.EIO}:
        return None
    return f"dmesg says more; it may be newer than this kernel, or damaged: {_remedy(kind)}"


def _remedy(kind: str | None) -> str:
    checker = CHECKERS.get(kind or "")
    how = f"`{checker.by_hand}`" if checker else "the checker of its kind"
    return f"check it by {how}: losetup --find --show --partscan FILE makes a device of a copy, and of each partition"
