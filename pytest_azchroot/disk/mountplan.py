"""From an image's fstab to what is mounted where, of one disk alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_azchroot.disk import fstab
from pytest_azchroot.disk.fstab import Line, Source
from pytest_azchroot.disk.probe import FileSystem, Place
from pytest_azchroot.errors import DiskError

FIRST_DISKS = frozenset({"sda", "vda", "hda", "xvda", "nvme0n1", "mmcblk0"})
"""What the disk that a machine boots from is usually called."""

_FOR_BOOTING = frozenset(
    {"auto", "defaults", "group", "noauto", "nofail", "nouser", "owner", "rw", "user", "users", "_netdev", "comment"}
)
"""Options that say when and by whom it is mounted, not how (mount(8), systemd.mount(5)); with all of ``x-…``."""
_ELSEWHERE = frozenset(
    {"logdev", "rtdev", "journal_dev", "journal_path", "jdev", "device", "loop", "offset", "sizelimit", "bind", "rbind",
     "move", "remount", "helper", "uhelper"}
)  # fmt: skip
"""Options by which mount(8), XFS, ext4, JFS or btrfs use another device than the one that is mounted, or which make
another thing of the mount. What fstab says is the image's choice, and the build machine's devices are near."""
_NO_MOUNTS = frozenset({"crypto_LUKS", "LVM2_member", "swap", "linux_raid_member"})


@dataclass(frozen=True)
class Mount:
    """One file system of the disk at one place of the image."""

    number: int
    """The partition; 0 is the whole disk. Of a logical volume: the partition on which it begins."""
    path: str
    """In the image."""
    type: str | None
    options: tuple[str, ...] = ()
    source: str | None = None
    """How fstab names it."""
    volume: str | None = None
    """Of a logical volume its path, ``rootvg/rootlv``."""

    @property
    def place(self) -> Place:
        """What of the disk it is."""
        return self.number if self.volume is None else self.volume


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
        if line.path == "/" and (wanted := fstab.source(line.source)).kind == "device" and wanted.number == root.place
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
            others.append(_mount(found, line.path, _options(line, found), line.source))
    own = ("nouuid",) if root.type == "xfs" else ()
    plan = MountPlan(
        root=_mount(root, "/", (*options, *own)),
        by=by,
        others=tuple(sorted(others, key=lambda mount: mount.path.count("/"))),
        skipped=tuple(skipped),
        system=system,
    )
    used = {mount.place for mount in plan.mounts}
    unused = [each for each in filesystems if each.place not in used and each.type and each.type not in _NO_MOUNTS]
    return MountPlan(**{**vars(plan), "unused": tuple(said(each) for each in unused)})


def _mount(found: FileSystem, path: str, options: tuple[str, ...], source: str | None = None) -> Mount:
    return Mount(found.number, path, found.type, options, source, found.volume)


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
    elsewhere = _elsewhere(line)
    if len(found) == 1 and found[0].type not in _NO_MOUNTS and found[0].problem is None and elsewhere is None:
        return None
    if len(found) > 1:
        names = " and ".join(said(each) for each in found)
        raise DiskError(f"{where}, which is not clear", why=f"{names} are called so", hint="use PARTUUID= there")
    nature = elsewhere or _nature(found[0]) if found else None
    if line.has("nofail"):
        return f"nofail, and it {nature}" if found else "nofail, and not on this disk"
    if found:
        raise DiskError(f"{where}, which cannot be mounted", why=f"it {nature}")
    hint = "a file system of another disk needs the option nofail there; or mount all by `manual_mount_command`"
    raise DiskError(f"{where}, which is not on this disk", why=_why_missing(line, filesystems), hint=hint)


def _elsewhere(line: Line) -> str | None:
    """Which option says that it needs more than its own device, as the end of "it …"; None if none does."""
    for option in line.options:
        name, _, value = option.partition("=")
        if name.strip("\"'\\ ").lower() in _ELSEWHERE or value.strip("\"'\\ ").startswith("/dev/"):
            return f"has the option {option}, which leads to another device or mount"
    return None


def _nature(found: FileSystem) -> str:
    return found.problem or f"is {found.type}"


def _why_missing(line: Line, filesystems: Sequence[FileSystem]) -> str | None:
    why = []
    if fstab.source(line.source).kind == "volume" and any(each.type == "LVM2_member" for each in filesystems):
        volumes = ", ".join(each.volume for each in filesystems if each.volume)
        why.append(f"its logical volumes of LVM are: {volumes or 'none'}")
        why += [f"{said(each)} {each.problem}" for each in filesystems if each.problem and not each.volume]
    if line.source.startswith("/dev/mapper/") and any(each.type == "crypto_LUKS" for each in filesystems):
        why.append("perhaps encrypted (LUKS), which nobody but its owner can open")
    return "; ".join(why) or None


def _on_this_disk(line: Line, filesystems: Sequence[FileSystem], disks: frozenset[str]) -> list[FileSystem]:
    wanted = fstab.source(line.source)
    return [] if wanted.kind == "device" and wanted.value not in disks else resolve(wanted, filesystems)


def resolve(wanted: Source, filesystems: Sequence[FileSystem]) -> list[FileSystem]:
    """The file systems of the disk that have this name. UUIDs are compared whatever their case: FAT's are written in
    capitals, others in small letters."""
    if wanted.kind == "device":
        return [each for each in filesystems if each.place == wanted.number and each.type]
    if wanted.kind == "volume":
        return [each for each in filesystems if each.volume == wanted.value]
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
    if found.volume is not None:
        return named(found.place) + (f" ({found.type})" if found.type else "")
    words = ", ".join(filter(None, (found.type or "no file system", found.label or found.partlabel)))
    return f"{named(found.place)} ({words})"


def named(place: Place) -> str:
    """A place for a reader."""
    if isinstance(place, str):
        return f"the logical volume {place}"
    return f"partition {place}" if place else "the whole disk"
