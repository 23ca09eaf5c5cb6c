"""Which file system of a disk is its root, and what else its fstab mounts. Pure: facts in, a plan out.

The root is the partition or logical volume that the user names; else the one whose type says so (UAPI group,
Discoverable Partitions Specification); else the only file system that can be one; else the one whose own
``/etc/fstab`` and ``/etc/os-release`` say so. What is not clear is an error that lists what there is. Everything is
looked for on this disk alone: a name like ``/dev/sda1`` or a UUID may well be another's on the machine that builds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_azchroot.disk import fstab
from pytest_azchroot.disk.mountplan import Mount, MountPlan, layout, named, resolve, said
from pytest_azchroot.disk.probe import FileSystem, Place
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

# for builds, and for azchroot's commands
_NAME_IT = "name it: `mount_partition: 2` in image.yaml, `--partition 2` for azchroot (0 is the whole disk)"
_NAME_VOLUME = (
    "name it: `lvm_root_device: /dev/rootvg/rootlv` in image.yaml, `--lvm-root-device /dev/rootvg/rootlv` for azchroot"
)
_NAME_SUBVOLUME = "a build takes it by `mount_options: [subvol=…]`; or make it the default: btrfs subvolume set-default"
_MANUAL = "a build can mount it by `manual_mount_command`"


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
    """The partition; 0 for what is named by ``volume``."""
    subvolume: str | None = None
    """btrfs: its path from the top, ``""`` for the top itself."""
    default: bool = True
    """Whether it is what a mount without options gives."""
    fstab: str | None = None
    os_release: str | None = None
    problem: str | None = None
    """Why nothing could be read."""
    remedy: str | None = None
    """What to do about that, where it is known."""
    volume: str | None = None
    """Of a logical volume its path, ``rootvg/rootlv``."""

    @property
    def place(self) -> Place:
        """What of the disk it is."""
        return self.number if self.volume is None else self.volume

    @property
    def name(self) -> str:
        """For a reader."""
        return named(self.place) + (f", subvolume {self.subvolume or '/'}" if not self.default else "")


def candidates(
    filesystems: Sequence[FileSystem], *, partition: int | None = None, lvm_root_device: str | None = None
) -> Choice:
    """Which file systems may be the root.

    :param partition: the one that the user names.
    :param lvm_root_device: the logical volume that the user names, ``/dev/rootvg/rootlv`` or
        ``/dev/mapper/rootvg-rootlv``.
    :raises DiskError: none can be; says what there is instead.
    """
    if lvm_root_device is not None:
        return Choice((_named_volume(filesystems, lvm_root_device),), "its name, as it was asked for", certain=True)
    if partition is not None:
        return Choice((_named(filesystems, partition),), "its number, as it was asked for", certain=True)
    there = [each for each in filesystems if each.place != 0 or len(filesystems) == 1]
    typed = [each for each in there if each.parttype in ROOT_GUIDS and each.type not in {None, "LVM2_member"}]
    if typed:
        for each in typed:
            _refuse_opaque(each)
        return Choice(tuple(typed), "the type of its partition", certain=len(typed) == 1)
    found = [each for each in there if each.type in ROOT_TYPES]
    opaque = [each for each in there if _opaque(each)]
    if not found:
        if opaque:
            _refuse_opaque(opaque[0])
        raise DiskError("no root can be found", why="no partition holds a Linux file system", hint=_NAME_IT)
    # beside what cannot be read, or volumes of which none is a root, the only file system may well be /boot
    beside = opaque or (found[0].volume is None and any(each.type == "LVM2_member" for each in there))
    return Choice(tuple(found), "the only Linux file system", certain=len(found) == 1 and not beside)


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
    root = next(each for each in filesystems if each.place == look.place)
    chosen = {part.partition("=")[0] for option in options for part in option.split(",")}
    own = () if look.default or chosen & {"subvol", "subvolid"} else (f"subvol={look.subvolume or '/'}",)
    return layout(root, filesystems, by=by, options=own, text=look.fstab, system=_system(look))


def _named(filesystems: Sequence[FileSystem], number: int) -> FileSystem:
    found = next((each for each in filesystems if each.place == number), None)
    if found is None:
        there = ", ".join(str(each.number) for each in filesystems if each.place not in {0, each.volume}) or "none"
        raise DiskError(f"the disk has no partition {number}", why=f"its partitions are: {there}")
    if found.type == "LVM2_member" and found.problem is None:
        volumes = ", ".join(each.volume for each in filesystems if each.volume) or "none"
        why = f"it is a physical volume of LVM; the logical volumes of the disk are: {volumes}"
        raise DiskError(f"{said(found)} cannot be mounted as the root", why=why, hint=_NAME_VOLUME)
    _refuse_opaque(found)
    return found


def _named_volume(filesystems: Sequence[FileSystem], device: str) -> FileSystem:
    wanted = fstab.source(device)
    if wanted.kind != "volume":
        hint = "LVM calls them /dev/rootvg/rootlv or /dev/mapper/rootvg-rootlv"
        raise DiskError(f"{device}, asked for as the root, is not the name of a logical volume", hint=hint)
    found = resolve(wanted, filesystems)
    if not found:
        volumes = ", ".join(each.volume for each in filesystems if each.volume) or "none"
        unread = [f"\n  {said(each)} {each.problem}" for each in filesystems if each.problem and not each.volume]
        why = f"its logical volumes are: {volumes}"
        raise DiskError(f"the disk has no logical volume {wanted.value}", why="".join([why, *unread]))
    _refuse_opaque(found[0])
    return found[0]


def _opaque(found: FileSystem) -> str | None:
    """Why what is there cannot be looked into, as the end of "it …"; None if it can."""
    if found.type == "crypto_LUKS":
        return "is encrypted (LUKS), which nobody but its owner can open"
    return found.problem


def _refuse_opaque(found: FileSystem) -> None:
    if why := _opaque(found):
        raise DiskError(f"{said(found)} cannot be mounted as the root", why=f"it {why}", hint=_MANUAL)


def _certain(choice: Choice, looks: Sequence[Look], filesystems: Sequence[FileSystem]) -> Look:
    """The one candidate, whatever it holds; of its subvolumes the one that is a root, else the default."""
    (only,) = choice.candidates
    own = [look for look in looks if look.place == only.place]
    if unread := next((look for look in own if look.problem), None):
        what = f"{said(only)}, the root by {choice.by}, cannot be read"
        raise DiskError(what, why=unread.problem, hint=unread.remedy)
    whatever = Look(only.number, volume=only.volume)
    return _best(own, filesystems) or next((look for look in own if look.default), whatever)


def _elected(choice: Choice, looks: Sequence[Look], filesystems: Sequence[FileSystem]) -> Look:
    found = _best(looks, filesystems)
    if found is not None:
        return found
    why = "none of them has /etc/fstab or /etc/os-release of its own: " + _listed(choice.candidates)
    unread = [f"\n  {look.name} was not read: {look.problem}" for look in looks if look.problem]
    remedy = next((look.remedy for look in looks if look.remedy), None)
    opaque = [f"\n  {said(each)} {reason}" for each in filesystems if (reason := _opaque(each))]
    raise DiskError(
        "no root can be found",
        why="".join([why, *unread, *opaque]),
        hint="; or ".join(filter(None, (remedy, _hint(looks)))),
    )


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
    if len(best) > 1 and len({look.place for look in best}) == 1 and defaults:
        best = defaults  # what boots when nobody says otherwise
    if len(best) > 1:
        names = "".join(f"\n  {look.name} ({_system(look) or 'no os-release'})" for look in best)
        hint = _NAME_SUBVOLUME if len({look.place for look in best}) == 1 else _hint(best)
        raise DiskError("which file system is the root is not clear", why=f"each of these says so:{names}", hint=hint)
    return best[0]


def _hint(looks: Iterable[Look]) -> str:
    return _NAME_VOLUME if any(look.volume for look in looks) else _NAME_IT


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
    places = {wanted.number, *(each.place for each in resolve(wanted, filesystems))}
    subvolume = line.value("subvol")
    if subvolume is not None and look.subvolume is not None and subvolume.strip("/") != look.subvolume:
        return False
    return look.place in places and (subvolume is not None or look.default)


def _system(look: Look) -> str | None:
    values = fstab.os_release(look.os_release or "")
    return values.get("PRETTY_NAME") or values.get("NAME") or values.get("ID")


def _listed(filesystems: Iterable[FileSystem]) -> str:
    return ", ".join(said(each) for each in filesystems)
