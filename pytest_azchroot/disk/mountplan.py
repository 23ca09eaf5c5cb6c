"""From an image's fstab to what is mounted where, of one disk alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_azchroot.disk import fstab
from pytest_azchroot.disk.fstab import Line, Source
from pytest_azchroot.disk.probe import FileSystem
from pytest_azchroot.errors import DiskError

FIRST_DISKS = frozenset({"sda", "vda", "hda", "xvda", "nvme0n1", "mmcblk0"})
"""What the disk that a machine boots from is usually called."""

_FOR_BOOTING = frozenset(
    {"auto", "defaults", "group", "noauto", "nofail", "nouser", "owner", "rw", "user", "users", "_netdev", "comment"}
)
"""Options that say when and by whom it is mounted, not how (mount(8), systemd.mount(5)); with all of ``x-…``."""
_NO_MOUNTS = frozenset({"crypto_LUKS", "LVM2_member", "swap", "linux_raid_member"})


@dataclass(frozen=True)
class Mount:
    """One file system of the disk at one place of the image."""

    number: int
    """The partition; 0 is the whole disk."""
    path: str
    """In the image."""
    type: str | None
    options: tuple[str, ...] = ()
    source: str | None = None
    """How fstab names it."""


@dataclass(frozen=True)
class Skipped:
    """A line of fstab that is not mounted."""

    source: str
    path: str
    why: str


@dataclass(frozen=True)
class MountPlan:
    """What to mount, in order: the root first, each other after what it is below."""

    root: Mount
    by: str
    """What spoke for the root."""
    others: tuple[Mount, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    unused: tuple[str, ...] = ()
    """File systems of the disk that nothing mounts, for a reader."""
    system: str | None = None
    """What the image's os-release calls itself."""

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """All of them."""
        return (self.root, *self.others)


def layout(
    root: FileSystem,
    filesystems: Sequence[FileSystem],
    *,
    by: str,
    options: tuple[str, ...],
    text: str | None,
    system: str | None,
) -> MountPlan:
    """The plan for a root with this fstab; without one the root alone.

    :param options: for the root.
    :raises DiskError: a line needs what is not on this disk, or what two file systems of it are called.
    """
    lines = fstab.parse(text or "")
    disks = FIRST_DISKS | {
        wanted.value
        for line in lines
        if line.path == "/" and (wanted := fstab.source(line.source)).kind == "device" and wanted.number == root.number
    }
    others: list[Mount] = []
    skipped: list[Skipped] = []
    for line in lines:
        if line.path == "/":
            continue
        why = _why_not(line) or _missing(line, filesystems, disks)
        if why is not None:
            skipped.append(Skipped(line.source, line.path, why))
        else:
            (found,) = _on_this_disk(line, filesystems, disks)
            others.append(Mount(found.number, line.path, found.type, _options(line, found), line.source))
    own = ("nouuid",) if root.type == "xfs" else ()
    plan = MountPlan(
        root=Mount(root.number, "/", root.type, (*options, *own)),
        by=by,
        others=tuple(sorted(others, key=lambda mount: mount.path.count("/"))),
        skipped=tuple(skipped),
        system=system,
    )
    used = {mount.number for mount in plan.mounts}
    unused = [each for each in filesystems if each.number not in used and each.type and each.type not in _NO_MOUNTS]
    return MountPlan(**{**vars(plan), "unused": tuple(said(each) for each in unused)})


def _why_not(line: Line) -> str | None:
    """Why a line is no mount of this disk; None if it is."""
    if line.is_swap:
        return "swap"
    if line.is_bind:
        return "a bind mount"
    if line.has_no_disk:
        return f"{line.type} is on no disk"
    if line.is_network:
        return "a network file system"
    # mounted on first use: a package that writes to /boot or the ESP is such a use
    if line.has("noauto") and not line.has("x-systemd.automount"):
        return "noauto"
    return None


def _missing(line: Line, filesystems: Sequence[FileSystem], disks: frozenset[str]) -> str | None:
    """Why a line may be left out though it is meant for a disk; None if it is to be mounted.

    :raises DiskError: it may not be left out.
    """
    found = _on_this_disk(line, filesystems, disks)
    where = f"line {line.line} of the image's /etc/fstab mounts {line.source} on {line.path}"
    if len(found) == 1 and found[0].type not in _NO_MOUNTS:
        return None
    if len(found) > 1:
        names = " and ".join(said(each) for each in found)
        raise DiskError(f"{where}, which is not clear", why=f"{names} are called so", hint="use PARTUUID= there")
    if line.has("nofail"):
        return f"nofail, and it is {found[0].type}" if found else "nofail, and not on this disk"
    if found:
        raise DiskError(f"{where}, which cannot be mounted", why=f"it is {found[0].type}")
    hint = "a file system of another disk needs the option nofail there; or mount all by `manual_mount_command`"
    raise DiskError(f"{where}, which is not on this disk", why=_why_missing(line, filesystems), hint=hint)


def _why_missing(line: Line, filesystems: Sequence[FileSystem]) -> str | None:
    if line.source.startswith("/dev/") and any(each.type == "LVM2_member" for each in filesystems):
        return "perhaps a volume of LVM, whose volumes are not mounted yet"
    if line.source.startswith("/dev/mapper/") and any(each.type == "crypto_LUKS" for each in filesystems):
        return "perhaps encrypted (LUKS), which nobody but its owner can open"
    return None


def _on_this_disk(line: Line, filesystems: Sequence[FileSystem], disks: frozenset[str]) -> list[FileSystem]:
    wanted = fstab.source(line.source)
    return [] if wanted.kind == "device" and wanted.value not in disks else resolve(wanted, filesystems)


def resolve(wanted: Source, filesystems: Sequence[FileSystem]) -> list[FileSystem]:
    """The file systems of the disk that have this name. UUIDs are compared whatever their case: FAT's are written in
    capitals, others in small letters."""
    if wanted.kind == "device":
        return [each for each in filesystems if each.number == wanted.number and each.type]
    if wanted.kind in {"uuid", "partuuid"}:
        return [each for each in filesystems if (getattr(each, wanted.kind) or "").lower() == wanted.value.lower()]
    if wanted.kind in {"label", "partlabel"}:
        return [each for each in filesystems if getattr(each, wanted.kind) == wanted.value]
    return []


def _options(line: Line, found: FileSystem) -> tuple[str, ...]:
    kept = tuple(
        option
        for option in line.options
        if option.partition("=")[0] not in _FOR_BOOTING and not option.lower().startswith("x-")
    )
    return (*kept, "nouuid") if found.type == "xfs" and "nouuid" not in kept else kept


def said(found: FileSystem) -> str:
    """A file system for a reader: ``partition 2 (ext4, root)``."""
    words = ", ".join(filter(None, (found.type or "no file system", found.label or found.partlabel)))
    return f"partition {found.number} ({words})" if found.number else f"the whole disk ({words})"
