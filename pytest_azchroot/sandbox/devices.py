"""The private /dev: the usual nodes, and those of the image's own disk and nothing else's."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pytest_azchroot.disk import blkpg, loop, lvm_mapper, writing
from pytest_azchroot.disk.probe import FileSystem, Place, probe
from pytest_azchroot.errors import DirtyImageError, DiskError

from . import layout, nodes, syscalls
from .nodes import open_device, open_number
from .volumes import Base, Volumes

_MEMORY_NODES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
"""Minor numbers of major 1 (Documentation/admin-guide/devices.txt)."""
_CONTROL = f"{layout.HOST_DEV}/loop-control"
_MAPPER = "mapper/"
_TAKEN = frozenset({*_MEMORY_NODES, "mapper", "disk", "fd", "tty", "ptmx", "pts", "shm", "stdin", "stdout", "stderr"})
"""A volume group of such a name has no directory in /dev. LVM would not make it (vgcreate(8))."""
_KINDS_OF_LINKS = ("uuid", "label", "partuuid", "partlabel")
_BLKFLSBUF = 0x1261  # include/uapi/linux/fs.h
_LINK_CHARACTERS = frozenset("#+-.:=@_/")


def make_private_dev() -> None:
    """Build the private /dev and put it over the build machine's, which stays reachable beside it."""
    os.mkdir(layout.HOST_DEV)
    syscalls.bind("/dev", layout.HOST_DEV, recursive=True)
    dev = layout.DEV
    os.mkdir(dev)
    syscalls.mount("tmpfs", dev, "tmpfs", flags=syscalls.MS_NOSUID, data="mode=755,size=4m")
    with _no_umask():
        for name, minor in _MEMORY_NODES.items():
            os.mknod(f"{dev}/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
        os.mknod(f"{dev}/tty", stat.S_IFCHR | 0o666, os.makedev(5, 0))
    for name in ("pts", "shm"):
        os.mkdir(f"{dev}/{name}")
    options = "newinstance,ptmxmode=0666,mode=620,gid=5"
    syscalls.mount("devpts", f"{dev}/pts", "devpts", flags=syscalls.MS_NOSUID | syscalls.MS_NOEXEC, data=options)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("tmpfs", f"{dev}/shm", "tmpfs", flags=flags, data="mode=1777")
    os.symlink("pts/ptmx", f"{dev}/ptmx")
    os.symlink("/proc/self/fd", f"{dev}/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{dev}/{name}")
    syscalls.bind(dev, "/dev", recursive=True)


@contextlib.contextmanager
def _no_umask() -> Iterator[None]:
    # mknod obeys the umask: /dev/null would be 0644
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


class DiskNodes:
    """The image's disk, its partitions and its logical volumes in the private /dev."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """:param path: ``/proc/self/fd/N``, which leads to the disk whatever its name is by now."""
        self._path = path
        self._mark: tuple[int, ...] | None = None
        self._read_only = read_only
        self._nodes: dict[str, int] = {}
        self._links: dict[str, str] = {}
        self._volumes: Volumes | None = None
        self.device = loop.open_disk(path, opener=open_device, control=_CONTROL, read_only=read_only)

    @property
    def _sysfs(self) -> str:
        return f"/sys/class/block/{self.device.name.replace('/', '!')}"

    def nodes(self) -> dict[Place, str]:
        """Partition number or logical volume → node; 0 is the disk."""
        partitions = {number: f"/dev/{name}" for name, (number, _) in self._partitions().items()}
        found: dict[Place, str] = {0: self.device.path, **dict(sorted(partitions.items()))}
        if self._volumes is not None:
            found |= {path: f"/dev/{name}" for path, name in self._volumes.names().items()}
        return found

    def file_systems(self) -> list[FileSystem]:
        """What is on the disk, on each partition and, once they are used, on each logical volume."""
        volumes = {} if self._volumes is None else {each.path: each for each in self._volumes.all}
        problems = {} if self._volumes is None else self._volumes.problems
        found = []
        for place, node in self.nodes().items():
            if isinstance(place, int):
                probed = probe(node, number=place, size=self._size(node))
                found.append(replace(probed, problem=problems.get(place)))
            else:
                volume = volumes[place]
                probed = probe(node, number=volume.first, size=volume.size)
                found.append(replace(probed, volume=place))
        refused = [volume for volume in volumes.values() if volume.problem is not None]
        return [*found, *(FileSystem(each.first, "", 0, volume=each.path, problem=each.problem) for each in refused)]

    def use_volumes(self) -> None:
        """Make the logical volumes of the disk block devices, until it is released. Does nothing if they are.

        :raises DiskError: LVM of the build machine has them already, or the kernel refuses one.
        """
        if self._volumes is None:
            members = [each for each in self.file_systems() if each.type == "LVM2_member"]
            self._volumes = Volumes(
                self._path,
                {each.number: self._base(each) for each in members},
                read_only=self._read_only,
                opener=open_device,
                control=_CONTROL,
            )
            self.settle()

    def _base(self, member: FileSystem) -> Base:
        if member.number == 0:
            return Base(self.device.name, self.device.number, 0, member.size)
        name = os.path.basename(member.node)
        start = blkpg.known_to_kernel(Path(self._sysfs))[member.number].start * blkpg.SECTOR
        return Base(name, self._partitions()[name][1], start, member.size)

    def loops(self) -> list[str]:
        """Loop devices of logical volumes; like the disk's, the kernel frees them a moment after their last user."""
        devices = () if self._volumes is None else self._volumes.devices.values()
        return [device.name for device in devices if device.name.startswith("loop")]

    def _size(self, node: str) -> int:
        name = os.path.basename(node)
        return int(Path(f"/sys/class/block/{name}/size").read_text(encoding="ascii")) * blkpg.SECTOR

    def settle(self) -> None:
        """Make the partitions and their nodes what the partition table says; after each tool that may have written
        one. What is unchanged and in use stays as it is."""
        # the node of the disk must be there before blkid looks for it
        self._publish({**self._nodes, self.device.name: self.device.number})
        self._update_partitions()
        partitions = {name: device for name, (_, device) in self._partitions().items()}
        volumes = {} if self._volumes is None else self._volumes.nodes()
        self._publish({self.device.name: self.device.number, **partitions, **volumes})
        self._link()

    def _update_partitions(self) -> None:
        blkpg.update(
            self.device.path,
            self.device.descriptor,
            known=blkpg.known_to_kernel(Path(self._sysfs)),
            has_table=probe(self.device.path, number=0, size=0).pttype is not None,
        )

    def _partitions(self) -> dict[str, tuple[int, int]]:
        """Name → partition number and device number, from sysfs."""
        found = {}
        for entry in Path(self._sysfs).iterdir():
            number = entry / "partition"
            if number.exists():
                major, minor = (entry / "dev").read_text(encoding="ascii").split(":")
                found[entry.name] = (int(number.read_text(encoding="ascii")), os.makedev(int(major), int(minor)))
        return found

    def _publish(self, wanted: dict[str, int]) -> None:
        for name in self._nodes.keys() - wanted.keys():
            nodes.remove(self._alias(name))
            nodes.remove(name)
        for name, number in wanted.items():
            nodes.put_node(name, number)
            nodes.put_link(self._alias(name), name)
        self._nodes = wanted

    def _alias(self, name: str) -> str:
        """/dev/image and /dev/image1: the same on every run, whichever loop device was free. /dev/rootvg/rootlv, as
        LVM has it."""
        volume = lvm_mapper.split(name.removeprefix(_MAPPER)) if name.startswith(_MAPPER) else None
        if volume is not None and volume[0] not in {*_TAKEN, *self._nodes} and not volume[0].startswith("image"):
            return "/".join(volume)
        number = name.removeprefix(self.device.name).removeprefix("p").removeprefix(_MAPPER)
        return f"image{number}"

    def _link(self) -> None:
        """/dev/disk/by-*: grub-mkconfig writes root=UUID=… only if the link is there, else a name that will not
        exist on the machine that boots the image."""
        facts = [fact for node in self._nodes if (fact := self._facts(node)) is not None]
        self._links = {}
        for kind in _KINDS_OF_LINKS:
            for fact in facts:
                value: str | None = getattr(fact, kind)
                if value:
                    self._links.setdefault(f"disk/by-{kind}/{link_name(value)}", fact.node.removeprefix("/dev/"))
        self._put_links()

    def _put_links(self) -> None:
        for kind in _KINDS_OF_LINKS:
            nodes.clear(f"disk/by-{kind}")
        for link, target in self._links.items():
            nodes.put_link(link, target)

    def restore(self) -> None:
        """Make the names what they are to be, before a tool of the build machine uses one. A program in the image may
        have put a link in the place of a node, which leads to the build machine's disks where the tool runs."""
        self._publish(self._nodes)
        self._put_links()

    def _facts(self, name: str) -> FileSystem | None:
        # an unreadable node has no links; who asks for its file system gets the error
        try:
            return probe(f"/dev/{name}", number=0, size=0)
        except DiskError:
            return None

    def in_use(self) -> list[str]:
        """Nodes that somebody has mounted, maps or otherwise claims: O_EXCL asks the kernel (open(2))."""
        claimed = [] if self._volumes is None else self._volumes.foreign_holders()
        ours = frozenset() if self._volumes is None else self._volumes.claimed
        for place, node in self.nodes().items():
            if place in ours:
                continue
            try:
                os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
            except OSError:
                claimed.append(node)
        return claimed

    def flush(self) -> None:
        """Write everything to the disk and forget what is cached, so that the next reader reads the disk."""
        # what is made of others comes behind them
        for number in reversed(self._nodes.values()):
            descriptor = open_number(number, os.O_RDWR)
            try:
                os.fsync(descriptor)
                fcntl.ioctl(descriptor, _BLKFLSBUF, 0)
            finally:
                os.close(descriptor)
        if self.device.backing is not None:
            descriptor = os.open(self.device.backing, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def place_of(self, source: str) -> Place | None:
        """The partition or logical volume that a path names, None if it is none of this disk."""
        try:
            device = os.stat(source).st_rdev
        except OSError:
            return None
        if device == self.device.number:
            return 0
        volumes = {} if self._volumes is None else self._volumes.devices
        if volume := next((path for path, each in volumes.items() if each.number == device), None):
            return volume
        return next((number for number, each in self._partitions().values() if each == device), None)

    def reopen_read_only(self) -> None:
        """Let go of the disk, strictly, and take it again so that nobody can write to it."""
        name = self.device.name if self.device.backing else None
        with_volumes = self._volumes is not None
        self.release()
        self._read_only = True
        # what leads to the disk here was open for writing until now
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.dup2(descriptor, int(self._path.name), inheritable=False)
        finally:
            os.close(descriptor)
        self.device = loop.open_disk(self._path, opener=open_device, control=_CONTROL, read_only=True, wanted=name)
        self._mark = writing.mark(self._path)
        self.settle()
        if with_volumes:
            self.use_volumes()

    def require_unwritten(self) -> None:
        """Nothing of ours can write to the disk once it was opened read-only; but code of the build machine, which a
        check may be, can go behind it.

        :raises DirtyImageError: somebody has.
        """
        if self._mark is not None and writing.mark(self._path) != self._mark:
            what = f"the disk {self.device.path} was written to after its seal"
            hint = "look for what writes to the disk's file, or to the device that it is, while checks run"
            raise DirtyImageError(what, why="so it is not what was sealed and checked", hint=hint)

    def release(self) -> None:
        """Unbind the disk and what is made of it; strict."""
        self._publish({})
        if self._volumes is not None:
            self._volumes.release()
            self._volumes = None
        loop.release(self.device, opener=open_device)


def link_name(value: str) -> str:
    r"""A label as udev writes it into a link's name: other bytes than letters, digits and a few signs as ``\x20``.

    (``udev_util_encode_string``; "/" is kept by udev's list but never in a name.)
    """
    kept = _LINK_CHARACTERS - {"/"}
    return "".join(
        letter
        if letter in kept or letter.isalnum()
        else "".join(f"\\x{byte:02x}" for byte in letter.encode(errors="surrogateescape"))
        for letter in value
    )
