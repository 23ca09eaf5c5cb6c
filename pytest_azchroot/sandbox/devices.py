"""The private /dev: the usual nodes, and those of the image's own disk and nothing else's."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pytest_azchroot.disk import blkpg, loop
from pytest_azchroot.disk.probe import FileSystem, probe
from pytest_azchroot.errors import DiskError

from . import layout, syscalls

_MEMORY_NODES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
"""Minor numbers of major 1 (Documentation/admin-guide/devices.txt)."""
_CONTROL = f"{layout.HOST_DEV}/loop-control"
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


def open_device(name: str, number: int, flags: int) -> int:
    """Open a block device: by the build machine's node, on whose inode udev's lock is, else by a node made for it."""
    node = f"{layout.HOST_DEV}/{name}"
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(node)
        if stat.S_ISBLK(status.st_mode) and status.st_rdev == number:
            return os.open(node, flags | os.O_CLOEXEC)
    return open_number(number, flags)


def open_number(number: int, flags: int) -> int:
    """Open a block device by number, whatever names exist."""
    node = f"{layout.NODES}/{number}"
    os.mknod(node, stat.S_IFBLK | 0o600, number)
    try:
        return os.open(node, flags | os.O_CLOEXEC)
    finally:
        os.unlink(node)


class DiskNodes:
    """The image's disk and its partitions in the private /dev."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """:param path: ``/proc/self/fd/N``, which leads to the disk whatever its name is by now."""
        self._path = path
        self._nodes: dict[str, int] = {}
        self.device = loop.open_disk(path, opener=open_device, control=_CONTROL, read_only=read_only)

    @property
    def _sysfs(self) -> str:
        return f"/sys/class/block/{self.device.name.replace('/', '!')}"

    def nodes(self) -> dict[int, str]:
        """Partition number → node; 0 is the disk."""
        found = {0: self.device.path}
        for name, (number, _) in self._partitions().items():
            found[number] = f"/dev/{name}"
        return dict(sorted(found.items()))

    def file_systems(self) -> list[FileSystem]:
        """What is on the disk and on each partition."""
        return [probe(node, number=number, size=self._size(node)) for number, node in self.nodes().items()]

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
        self._publish({self.device.name: self.device.number, **partitions})
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
            _unlink(f"{layout.DEV}/{name}")
            _unlink(f"{layout.DEV}/{self._alias(name)}")
        for name, number in wanted.items():
            if self._nodes.get(name) == number and os.path.lexists(f"{layout.DEV}/{name}"):
                continue
            _unlink(f"{layout.DEV}/{name}")
            os.makedirs(os.path.dirname(f"{layout.DEV}/{name}"), exist_ok=True)
            with _no_umask():
                os.mknod(f"{layout.DEV}/{name}", stat.S_IFBLK | 0o660, number)
            _unlink(f"{layout.DEV}/{self._alias(name)}")
            os.symlink(name, f"{layout.DEV}/{self._alias(name)}")
        self._nodes = wanted

    def _alias(self, name: str) -> str:
        # /dev/image and /dev/image1: the same on every run, whichever loop device was free
        number = name.removeprefix(self.device.name).removeprefix("p")
        return f"image{number}"

    def _link(self) -> None:
        """/dev/disk/by-*: grub-mkconfig writes root=UUID=… only if the link is there, else a name that will not
        exist on the machine that boots the image."""
        facts = [fact for node in self._nodes if (fact := self._facts(node)) is not None]
        for kind in ("uuid", "label", "partuuid", "partlabel"):
            directory = f"{layout.DEV}/disk/by-{kind}"
            os.makedirs(directory, exist_ok=True)
            for name in os.listdir(directory):
                os.unlink(f"{directory}/{name}")
            for fact in facts:
                value: str | None = getattr(fact, kind)
                if value and not os.path.lexists(link := f"{directory}/{link_name(value)}"):
                    os.symlink(os.path.relpath(fact.node, f"/dev/disk/by-{kind}"), link)

    def _facts(self, name: str) -> FileSystem | None:
        # an unreadable node has no links; who asks for its file system gets the error
        try:
            return probe(f"/dev/{name}", number=0, size=0)
        except DiskError:
            return None

    def in_use(self) -> list[str]:
        """Nodes that somebody has mounted, maps or otherwise claims: O_EXCL asks the kernel (open(2))."""
        claimed = []
        for node in self.nodes().values():
            try:
                os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
            except OSError:
                claimed.append(node)
        return claimed

    def flush(self) -> None:
        """Write everything to the disk and forget what is cached, so that the next reader reads the disk."""
        for number in [*self._nodes.values()]:
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

    def number_of(self, source: str) -> int | None:
        """The number of the partition that a path names, None if it is not of this disk."""
        try:
            device = os.stat(source).st_rdev
        except OSError:
            return None
        if device == self.device.number:
            return 0
        return next((number for number, each in self._partitions().values() if each == device), None)

    def reopen_read_only(self) -> None:
        """Let go of the disk, strictly, and take it again so that nobody can write to it."""
        name = self.device.name if self.device.backing else None
        self.release()
        # what leads to the disk here was open for writing until now
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.dup2(descriptor, int(self._path.name), inheritable=False)
        finally:
            os.close(descriptor)
        self.device = loop.open_disk(self._path, opener=open_device, control=_CONTROL, read_only=True, wanted=name)
        self.settle()

    def release(self) -> None:
        """Unbind the disk; strict."""
        self._publish({})
        loop.release(self.device, opener=open_device)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


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
