"""Read-only checks of file systems: is what was written consistent?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Checker:
    """A tool that checks one kind of file system without writing to it and exits with 0 only if it is clean."""

    command: tuple[str, ...]
    package: str
    """The Debian package that has the tool."""

    def argv(self, node: str) -> list[str]:
        """The command for one node."""
        return [*self.command, node]


_EXT = Checker(("e2fsck", "-f", "-n"), "e2fsprogs")

CHECKERS = {
    "ext2": _EXT,
    "ext3": _EXT,
    "ext4": _EXT,
    "xfs": Checker(("xfs_repair", "-n"), "xfsprogs"),
    "btrfs": Checker(("btrfs", "check", "--readonly"), "btrfs-progs"),
    "vfat": Checker(("fsck.fat", "-n"), "dosfstools"),
}
"""By blkid's TYPE."""
