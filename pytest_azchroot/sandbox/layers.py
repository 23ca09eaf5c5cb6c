"""Which file systems make up an image, so that they can be mounted again as they were. Pure: mounts in, values out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pytest_azchroot.disk.probe import Place
from pytest_azchroot.errors import SandboxError

from .mounts import Mount, within

_KEPT_FLAGS = ("nosuid", "nodev", "noexec")
_DELETED = "//deleted"  # what mountinfo adds to a directory that has been removed (fs/d_path.c)


@dataclass(frozen=True)
class Layer:
    """One file system, where it belongs in the image."""

    path: str
    """In the image: ``/``, ``/boot``."""
    place: Place
    """What of the disk it is on."""
    kind: str
    root: str
    """The directory of the file system that is seen there: ``/``, a subvolume, what was bound."""
    flags: tuple[str, ...]
    """``nosuid``, ``nodev``, ``noexec``."""

    @property
    def options(self) -> tuple[str, ...]:
        """What its file system needs to be mounted read-only, as a whole."""
        # XFS: the build machine may have one of the same UUID; btrfs: `root` is counted from the top of everything
        return {"xfs": ("nouuid",), "btrfs": ("subvolid=5",)}.get(self.kind, ())


def of(mounts: Iterable[Mount], *, top: str, place: Callable[[str], Place | None]) -> tuple[Layer, ...]:
    """The file systems of the disk that are mounted at or below a directory, in the order in which they were.

    What comes from elsewhere, a tmpfs or a directory of the build machine, is not the image's and is left out.

    :param top: where the image is mounted.
    :param place: what of the disk a mount's source is, None if it is none of it.
    :raises SandboxError: the image's root or a part of it is not on the disk, and so cannot be mounted again.
    """
    found: dict[str, Layer] = {}
    for mount, held in _of_the_disk(mounts, top, place):
        path = mount.point[len(top.rstrip("/")) :] or "/"
        if mount.root.endswith(_DELETED):
            raise _refusal(mount, "the directory that was bound there has been removed")
        found.pop(path, None)  # covered by this one
        found[path] = Layer(path, held, mount.type, mount.root, tuple(set(_KEPT_FLAGS) & set(mount.options)))
    if "/" not in found:
        why = "no partition of its disk is mounted there"
        hint = "mount the root by the node of its partition: {{ partition(1) }}"
        raise SandboxError(f"the image at {top} cannot be sealed", why=why, hint=hint)
    return tuple(sorted(found.values(), key=lambda layer: layer.path != "/"))


def _of_the_disk(
    mounts: Iterable[Mount], top: str, place: Callable[[str], Place | None]
) -> Iterator[tuple[Mount, Place]]:
    for mount in mounts:
        if within(mount.point, top):
            found = place(mount.source)
            if found is not None:
                yield mount, found
            elif mount.source.startswith(("/dev/mapper/", "/dev/dm-", "/dev/loop", "/dev/md")):
                raise _refusal(mount, f"{mount.source} is nothing of the image's disk that was found there")


def _refusal(mount: Mount, why: str) -> SandboxError:
    return SandboxError(f"{mount.point} cannot be mounted again for the checks", why=why)
