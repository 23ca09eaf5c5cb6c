"""The kernel's table of mounts, and what the sandbox lends to an image. Pure: text in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

    id: int
    device: str
    """``major:minor`` of the superblock; for btrfs an anonymous number."""
    root: str
    """What of the file system is mounted: ``/``, a subvolume, or a directory that was bound."""
    point: str
    options: tuple[str, ...]
    """Of this mount, not of the file system: ``rw``, ``nosuid``, ``relatime``, …"""
    type: str
    source: str

    def within(self, path: str) -> bool:
        """Whether it is mounted at or below a path."""
        return within(self.point, path)

    def holds(self, path: str) -> bool:
        """Whether a path is at or below where it is mounted."""
        return within(path, self.point)


def within(path: str, top: str) -> bool:
    """Whether a path is another one or below it, by components."""
    return path == top or path.startswith(top.rstrip("/") + "/")


def parse(mountinfo: str) -> list[Mount]:
    """Every mount, oldest first."""
    return [_line(line) for line in mountinfo.splitlines()]


def current() -> list[Mount]:
    """The mounts that this process sees."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse(file.read())


def _line(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    identity, _, device, root, point, options, *_ = before.split(" ")
    kind, source, *_ = after.split(" ")
    return Mount(
        int(identity), device, _decoded(root), _decoded(point), tuple(options.split(",")), kind, _decoded(source)
    )


def _decoded(field: str) -> str:
    # the kernel writes space, tab, newline and backslash as three octal digits
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


@dataclass(frozen=True)
class Lent:
    """One thing mounted into the image for as long as it is mounted itself."""

    kind: str
    """A file system type; ``bind`` for a bind mount of a path of the build machine, with what is mounted below."""
    source: str
    target: str
    """A path in the image."""
    options: tuple[str, ...] = ()
    """``ro``, ``nosuid``, ``nodev``, ``noexec``; anything else goes to the file system."""


_STRICT = ("nosuid", "nodev", "noexec")

READ_ONLY_PROC = (
    "/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/asound",
    "/proc/scsi",
)  # fmt: skip
"""Root may write these without any capability, and they change the build machine's kernel. The list is that of
OCI runtimes (runc, ``readonlyPaths``, and what of its ``maskedPaths`` can be written)."""


def private(device_directory: str) -> list[Lent]:
    """What an image gets by default."""
    return [
        Lent("bind", device_directory, "/dev"),
        Lent("proc", "proc", "/proc", _STRICT),
        *(Lent("bind", path, path, ("ro",)) for path in READ_ONLY_PROC),
        Lent("sysfs", "sysfs", "/sys", ("ro", *_STRICT)),
        Lent("tmpfs", "tmpfs", "/run", ("nosuid", "nodev", "mode=755")),
    ]


def literal(rows: Iterable[Sequence[str]]) -> list[Lent]:
    """The rows of ``chroot_mounts``, as the user wrote them: file system type, source, target.

    :raises ValueError: a row that has not three parts, or whose target is not absolute.
    """
    return [_row(tuple(row)) for row in rows]


def _row(row: tuple[str, ...]) -> Lent:
    if len(row) != 3 or not row[2].startswith("/"):
        raise ValueError(f"a row of chroot_mounts is [type, source, /target], not {list(row)}")
    kind, source, target = row
    return Lent("bind" if kind in {"bind", "rbind"} else kind, source, target)
