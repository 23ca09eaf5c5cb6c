"""Which file system of a disk is its root, and what else its fstab mounts. Pure: facts in, a plan out.

The root is the partition that the user names; else the one whose type says so (UAPI group, Discoverable Partitions
Specification); else the only file system that can be one; else the one whose own ``/etc/fstab`` and
``/etc/os-release`` say so. What is not clear is an error that lists what there is. Everything is looked for on this
disk alone: a name like ``/dev/sda1`` or a UUID may well be another's on the machine that builds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_azchroot.disk import fstab
from pytest_azchroot.disk.mountplan import Mount, MountPlan, layout, resolve, said
from pytest_azchroot.disk.probe import FileSystem
from pytest_azchroot.errors import DiskError

__all__ = ["Choice", "Look", "Mount", "MountPlan", "candidates", "plan"]

ROOT_TYPES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "erofs", "squashfs"})
"""File systems that can hold a Linux root, as blkid calls them."""

ROOT_GUIDS = frozenset(
    {
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",  # x86-64
        "b921b045-1df0-41c3-af44-4c6f280d3fae",  # ARM-64
    }
)

_NAME_IT = "name it in image.yaml: `mount_partition: 2` (0 is the whole disk)"
_OPAQUE = {
    "crypto_LUKS": "is encrypted (LUKS), which nobody but its owner can open",
    "LVM2_member": "is a physical volume of LVM, whose volumes are not mounted yet",
}
_MANUAL = "mount it by `manual_mount_command`"


@dataclass(frozen=True)
class Choice:
    """The file systems that may be the root, and why these."""

    candidates: tuple[FileSystem, ...]
    by: str
    """For a reader: what spoke for them."""
    certain: bool
    """Whether the one candidate is the root whatever it holds."""


@dataclass(frozen=True)
class Look:
    """What was read of a file system, or of one subvolume of it."""

    number: int
    """The partition."""
    subvolume: str | None = None
    """btrfs: its path from the top, ``""`` for the top itself."""
    default: bool = True
    """Whether it is what a mount without options gives."""
    fstab: str | None = None
    os_release: str | None = None
    problem: str | None = None
    """Why nothing could be read."""

    @property
    def name(self) -> str:
        """For a reader."""
        return f"partition {self.number}" + (f", subvolume {self.subvolume or '/'}" if not self.default else "")


def candidates(filesystems: Sequence[FileSystem], *, partition: int | None = None) -> Choice:
    """Which file systems may be the root.

    :param partition: the one that the user names.
    :raises DiskError: none can be; says what there is instead.
    """
    if partition is not None:
        return Choice((_named(filesystems, partition),), "mount_partition", certain=True)
    there = [each for each in filesystems if each.number or len(filesystems) == 1]
    typed = [each for each in there if each.parttype in ROOT_GUIDS and each.type is not None]
    if typed:
        for each in typed:
            _refuse_opaque(each)
        return Choice(tuple(typed), "the type of its partition", certain=len(typed) == 1)
    found = [each for each in there if each.type in ROOT_TYPES]
    opaque = [each for each in there if each.type in _OPAQUE]
    if not found:
        if opaque:
            _refuse_opaque(opaque[0])
        raise DiskError("no root can be found", why="no partition holds a Linux file system", hint=_NAME_IT)
    # beside LUKS or LVM the only file system may well be /boot
    return Choice(tuple(found), "the only Linux file system", certain=len(found) == 1 and not opaque)


def plan(
    filesystems: Sequence[FileSystem], choice: Choice, looks: Sequence[Look], *, options: Sequence[str] = ()
) -> MountPlan:
    """What to mount, in order.

    :param looks: what was read of each candidate.
    :param options: the user's for the root; a ``subvol=`` there has decided which subvolume that is.
    :raises DiskError: the root is not clear, or something that fstab needs is not on this disk.
    """
    look = _certain(choice, looks, filesystems) if choice.certain else _elected(choice, looks, filesystems)
    by = choice.by if choice.certain else "its /etc/fstab and /etc/os-release"
    root = next(each for each in filesystems if each.number == look.number)
    chosen = {part.partition("=")[0] for option in options for part in option.split(",")}
    own = () if look.default or chosen & {"subvol", "subvolid"} else (f"subvol={look.subvolume or '/'}",)
    return layout(root, filesystems, by=by, options=own, text=look.fstab, system=_system(look))


def _named(filesystems: Sequence[FileSystem], number: int) -> FileSystem:
    found = next((each for each in filesystems if each.number == number), None)
    if found is None:
        there = ", ".join(str(each.number) for each in filesystems if each.number) or "none"
        raise DiskError(f"the disk has no partition {number}", why=f"its partitions are: {there}")
    _refuse_opaque(found)
    return found


def _refuse_opaque(found: FileSystem) -> None:
    if found.type in _OPAQUE:
        raise DiskError(f"{said(found)} cannot be mounted as the root", why=f"it {_OPAQUE[found.type]}", hint=_MANUAL)


def _certain(choice: Choice, looks: Sequence[Look], filesystems: Sequence[FileSystem]) -> Look:
    """The one candidate, whatever it holds; of its subvolumes the one that is a root, else the default."""
    (only,) = choice.candidates
    own = [look for look in looks if look.number == only.number]
    if unread := [look.problem for look in own if look.problem]:
        raise DiskError(f"{said(only)}, the root by {choice.by}, cannot be read", why=unread[0])
    return _best(own, filesystems) or next((look for look in own if look.default), Look(only.number))


def _elected(choice: Choice, looks: Sequence[Look], filesystems: Sequence[FileSystem]) -> Look:
    found = _best(looks, filesystems)
    if found is not None:
        return found
    why = "none of them has /etc/fstab or /etc/os-release of its own: " + _listed(choice.candidates)
    unread = [f"\n  {look.name} was not read: {look.problem}" for look in looks if look.problem]
    opaque = [f"\n  {said(each)} {_OPAQUE[each.type]}" for each in filesystems if each.type in _OPAQUE]
    raise DiskError("no root can be found", why="".join([why, *unread, *opaque]), hint=_NAME_IT)


def _best(looks: Iterable[Look], filesystems: Sequence[FileSystem]) -> Look | None:
    """The one look that is most of a root.

    :raises DiskError: several are.
    """
    ranked = [(rank, look) for look in looks if (rank := _rank(look, filesystems))]
    if not ranked:
        return None
    highest = max(rank for rank, _ in ranked)
    best = [look for rank, look in ranked if rank == highest]
    defaults = [look for look in best if look.default]
    if len(best) > 1 and len({look.number for look in best}) == 1 and defaults:
        best = defaults  # what boots when nobody says otherwise
    if len(best) > 1:
        names = "".join(f"\n  {look.name} ({_system(look) or 'no os-release'})" for look in best)
        hint = "mount_options: [subvol=…]" if len({look.number for look in best}) == 1 else _NAME_IT
        raise DiskError("which file system is the root is not clear", why=f"each of these says so:{names}", hint=hint)
    return best[0]


def _rank(look: Look, filesystems: Sequence[FileSystem]) -> int:
    """0 is no root. An fstab that names another file system as the root was copied, or is a snapshot's; one that
    names its own speaks louder than os-release."""
    own = 2 * (look.os_release is not None) + (look.fstab is not None)
    rows = [line for line in fstab.parse(look.fstab or "") if line.path == "/"]
    if not rows:
        return own
    return own + 3 if _is_itself(rows[-1], look, filesystems) else 0


def _is_itself(line: fstab.Line, look: Look, filesystems: Sequence[FileSystem]) -> bool:
    wanted = fstab.source(line.source)
    # of a device the number alone: the disk's own name is another on each machine
    numbers = {wanted.number, *(each.number for each in resolve(wanted, filesystems))}
    subvolume = line.value("subvol")
    if subvolume is not None and look.subvolume is not None and subvolume.strip("/") != look.subvolume:
        return False
    return look.number in numbers and (subvolume is not None or look.default)


def _system(look: Look) -> str | None:
    values = fstab.os_release(look.os_release or "")
    return values.get("PRETTY_NAME") or values.get("NAME") or values.get("ID")


def _listed(filesystems: Iterable[FileSystem]) -> str:
    return ", ".join(said(each) for each in filesystems)
