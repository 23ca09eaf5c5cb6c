"""The cloud that needs no account: disks are files on this machine.

The working disk is a file without a name beside the output (:mod:`pytest_azchroot.disk.partial`), so publishing a
``.raw`` or ``.vhd`` takes no copy, and nothing is left of a build that died.

A disk that ``os_disk_size_gb`` enlarges keeps its partition table as it is. If that is a GPT, its backup header is
then not at the end, which kernels accept with a warning; growpart at first boot moves it, or
``pre_mount_commands: ["sgdisk --move-second-header {{ device }}"]`` does now. Guessing which partition to grow is not
ours.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path

from pytest_azchroot.clouds import Artifact, Attachment, Disk, Kept, Order
from pytest_azchroot.disk import outputs, qemu, space, users, vhd
from pytest_azchroot.disk.copy import Progress, can_clone, copy, quiet
from pytest_azchroot.disk.digest import digest
from pytest_azchroot.disk.image import DiskImage, identify, identify_open, opened, qemu_node
from pytest_azchroot.disk.outputs import Output
from pytest_azchroot.disk.partial import Partial, partial
from pytest_azchroot.errors import AzchrootError, DiskError, PublishError
from pytest_azchroot.spec import BUILTIN_CLOUDS

log = logging.getLogger(__name__)


class LocalCloud:
    """Disks as files on this machine.

    :param progress: hears how far a copy or conversion is: parts done, parts in all.
    """

    name = "local"
    options = BUILTIN_CLOUDS["local"]

    def __init__(self, progress: Progress = quiet) -> None:
        self._progress = progress
        self._working: dict[str, Partial] = {}

    def preflight(self, order: Order) -> Iterable[str]:
        """What would fail later and can be known now, a sentence each. Makes nothing."""
        wanted, problems = _outputs(order)
        source: DiskImage | None = None
        try:
            if not _is_coming(order):
                source = _source(order)
                problems += _size_problems(_size(order, source), wanted)
        except AzchrootError as error:
            problems.append(error.sentence)
        for each in wanted:
            problems += _output_problems(each, source, overwrite=order.overwrite)
        if any(each.kind not in outputs.PLAIN for each in wanted) and not qemu.available():
            problems.append(f"qemu-img is needed for the output and not installed: {qemu.HINT}")
        try:
            return problems or _space_problems(order, source, wanted)
        except AzchrootError as error:
            return [error.sentence]

    @contextmanager
    def create(self, order: Order) -> Iterator[Disk]:
        """Make the working disk; on exit it is gone, unless it has become an artifact. Where it is only read, and the
        source begins with a raw disk, it is the source itself.

        :raises DiskError: the source cannot be read or copied.
        """
        found = _source(order) if order.read_only else None
        if found is not None and _opens_source(order, found):
            with self._opened(order, found) as disk:
                yield disk
            return
        wanted, problems = _outputs(order)
        if problems:
            raise DiskError("the working disk cannot be made", why="; ".join(problems))
        directory, name = _place(order, wanted)
        path = _source_path(order)
        doing = f"making a disk in {directory}" if path is None else f"copying {path}"
        with ExitStack() as stack:
            with _explaining(doing, directory):
                working = stack.enter_context(partial(directory, name))
            source_digest = None
            if path is None:
                size = _size(order, None)
                log.info("new empty disk of %s in %s", space.human(size), directory)
            else:
                size, source_digest = self._copy(order, path, working)
            with _explaining(doing, directory):
                os.ftruncate(working.fd, size)
            source = "scratch" if path is None else str(path)
            disk = Disk(id=str(working.path), size=size, source=source, source_digest=source_digest)
            self._working[disk.id] = working
            stack.callback(self._working.pop, disk.id)
            yield disk

    @contextmanager
    def attach(self, order: Order, disk: Disk) -> Iterator[Attachment]:
        """A file needs no attaching: the sandbox binds a loop device to it, and lets go of that itself."""
        yield Attachment(Path(disk.id))

    def publish(self, order: Order, disk: Disk) -> Sequence[Artifact]:
        """Turn the working disk into the outputs, all or none.

        :raises PublishError: nothing, or not everything, was published; says which.
        """
        wanted, problems = _outputs(order)
        if problems:
            raise PublishError("nothing was published", why="; ".join(problems))
        working = self._working[disk.id]
        length = os.fstat(working.fd).st_size
        if length < disk.size:
            raise PublishError("nothing was published", why=f"of {disk.size} bytes of the disk {length} are left")
        if wanted:
            log.info("publishing %s", ", ".join(str(each.path) for each in wanted))
            outputs.publish(working, wanted, size=disk.size, overwrite=order.overwrite, progress=self._progress)
        return [Artifact(kind=each.kind, id=str(each.path), size=disk.size, digest=disk.digest) for each in wanted]

    def keep(self, order: Order, disk: Disk) -> Kept:
        """Give the working disk a name beside the output: ``IMAGE-TIME.kept.raw``.

        :raises DiskError: it cannot get one.
        """
        wanted, _ = _outputs(order)
        working = self._working[disk.id]
        for each in wanted:
            if working.directory == each.path.parent and working.has(each.path.name):
                return Kept(str(each.path), enter=_shell(order, each.path), remove=None)
        name = f"{order.name}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}"
        with _explaining(f"keeping the disk of {order.name}", working.directory):
            path = working.directory / _publish_as(working, name, ".kept.raw")
        return Kept(str(path), enter=_shell(order, path), remove=f"rm {shlex.quote(str(path))}")

    @contextmanager
    def _opened(self, order: Order, source: DiskImage) -> Iterator[Disk]:
        """The source itself, as a disk. It stays open: another file may get its name meanwhile."""
        with opened(source.path) as fd:
            if identify_open(fd, source.path).identity != source.identity:
                raise DiskError(f"{source.path} was replaced", hint="run again when nothing writes to it")
            users.claim(fd, source.path, write=False)
            taken = digest(fd, size=source.size, progress=self._progress) if order.digest_source else None
            log.info("reading %s (%s), no copy is made", source.path, source.format)
            path = f"/proc/{os.getpid()}/fd/{fd}"
            yield Disk(path, source.size, str(source.path), read_only=True, source_digest=taken)

    def _copy(self, order: Order, path: Path, working: Partial) -> tuple[int, str | None]:
        """Copy the source into the working disk; returns the size that the disk shall have, and the source's digest
        if the order wants it."""
        with opened(path) as fd:
            image = identify_open(fd, path)
            size = _size(order, image)
            before = os.fstat(fd)
            with _explaining(f"copying {path}", working.directory, needed=image.allocated):
                if image.plain:
                    shared = copy(fd, working.fd, length=image.size, progress=self._progress)
                    how = "shares the extents of" if shared else "is a sparse copy of"
                else:
                    qemu.convert(
                        qemu_node(image, fd),
                        source=fd,
                        target=working.fd,
                        target_format="raw",
                        directory=working.directory,
                        doing=f"converting {path}",
                        progress=self._progress,
                    )
                    how = "was converted from"
            after = os.fstat(fd)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DiskError(f"{path} was changed while it was copied", hint="build again when nothing writes to it")
        log.info("disk of %s in %s %s %s (%s)", space.human(size), working.directory, how, path, image.format)
        # Of the copy, which is raw whatever the source is, and which the page cache often still holds.
        taken = digest(working.fd, size=image.size, progress=self._progress) if order.digest_source else None
        return size, taken


# -- what an order says


def _source_path(order: Order) -> Path | None:
    spec = order.configuration.spec
    if spec.from_scratch:
        return None
    if spec.source is None:
        raise DiskError("image.yaml names no source", hint="set `source`, or `from_scratch: true`")
    # Resolved and not shortened: where the image's directory is a symbolic link, `..` is not what stands before it.
    path = order.directory.absolute() / spec.source
    return path.parent.resolve() / path.name


def _opens_source(order: Order, source: DiskImage) -> bool:
    """Whether the source itself is the disk: it is only read, and as large as it shall be."""
    return order.read_only and source.plain and _size(order, source) - source.size < vhd.AZURE_ALIGNMENT


def _shell(order: Order, path: Path) -> str:
    """The command that looks into a file."""
    spec = order.configuration.spec
    root = {"--partition": spec.mount_partition, "--lvm-root-device": spec.lvm_root_device}
    options = [word for name, value in root.items() if value is not None for word in (name, str(value))]
    return shlex.join(["azchroot", "shell", *options, str(path)])


def _is_coming(order: Order) -> bool:
    """Whether an image before this one is about to publish the source."""
    return str(_source_path(order)) in order.coming


def _source(order: Order) -> DiskImage | None:
    path = _source_path(order)
    return None if path is None else identify(path)


def _outputs(order: Order) -> tuple[list[Output], list[str]]:
    """What to publish, and what is wrong with it."""
    spec = order.configuration.spec
    wanted: list[Output] = []
    problems: list[str] = []
    if order.publish and not spec.skip_create_image:
        for name in spec.output:
            try:
                wanted.append(outputs.output(order.directory.absolute(), name))
            except DiskError as error:
                problems.append(error.sentence)
    return wanted, problems


def _size(order: Order, source: DiskImage | None) -> int:
    """Bytes of the working disk: a whole number of MiB, as VHDs for Azure need, before anybody partitions it."""
    asked = (order.configuration.spec.os_disk_size_gb or 0) * vhd.GIB
    if source is None and not asked:
        raise DiskError("a disk from scratch has no size", hint="set `os_disk_size_gb`")
    if source is not None and asked and asked < source.size:
        raise DiskError(
            "os_disk_size_gb only enlarges",
            why=f"it says {space.human(asked)}, and the disk in {source.path} has {space.human(source.size)}",
            hint="leave it out, or shrink the source with its own tools",
        )
    size = max(asked, 0 if source is None else source.size)
    return -(-size // vhd.AZURE_ALIGNMENT) * vhd.AZURE_ALIGNMENT


def _place(order: Order, wanted: Sequence[Output]) -> tuple[Path, str]:
    """The directory of the working disk, and the name that it may get there.

    What is not to be published goes where large temporary files go: /tmp may be memory.
    """
    if home := outputs.home(wanted):
        return home.path.parent, home.path.name
    return space.scratch(), order.name


def _publish_as(working: Partial, stem: str, suffix: str) -> str:
    """Give a working disk the first name that is free: another build may have kept its own in the same second."""
    number, name = 1, f"{stem}{suffix}"
    while True:
        try:
            working.publish(name)
        except FileExistsError:
            number += 1
            name = f"{stem}-{number}{suffix}"
        else:
            return name


# -- what can be known before


def _size_problems(size: int, wanted: Iterable[Output]) -> list[str]:
    problems = vhd.check_azure_size(size)
    return [f"output {each.path}: {problem}" for each in wanted if each.kind == "vhd" for problem in problems]


def _output_problems(wanted: Output, source: DiskImage | None, *, overwrite: bool) -> list[str]:
    path, directory = wanted.path, wanted.path.parent
    if not directory.is_dir():
        return [f"the directory of output {path} does not exist: mkdir -p {directory}"]
    if not os.access(directory, os.W_OK | os.X_OK):
        return [f"the directory of output {path} is not writable"]
    if source is not None and _identity(path) == source.identity:
        return [f"output {path} is the source itself: name another file"]
    if path.is_dir() or not overwrite:
        return outputs.taken([wanted])
    return []


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what a path leads to, links followed."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _space_problems(order: Order, source: DiskImage | None, wanted: Sequence[Output]) -> list[str]:
    """File systems that cannot hold what is known to be coming: the source's data, once for each file made of it."""
    if source is None or _opens_source(order, source):
        return []
    place, _ = _place(order, wanted)
    itself = outputs.home(wanted)
    copies = [(place, source.plain)]
    for each in wanted:
        if each is not itself or each.kind not in outputs.PLAIN:
            copies.append((each.path.parent, each.kind in outputs.PLAIN))
    return [
        f"the file system at {space.mount_point(directory)} has {space.human(free)} free, "
        f"but {space.human(needed)} are needed there for what {source.path} holds"
        for directory, plain in _by_file_system(copies)
        if (needed := _needed(source, directory, plain)) > (free := space.free(directory))
    ]


def _by_file_system(copies: Iterable[tuple[Path, bool]]) -> list[tuple[Path, list[bool]]]:
    """One directory of each file system, and what it shall hold: plain copies or not."""
    found: dict[int, tuple[Path, list[bool]]] = {}
    for directory, plain in copies:
        found.setdefault(os.stat(directory).st_dev, (directory, []))[1].append(plain)
    return list(found.values())


def _needed(source: DiskImage, directory: Path, copies: Sequence[bool]) -> int:
    """Bytes that copies and conversions of the source take there; shared extents take nothing."""
    needed = len(copies) * source.allocated
    if needed > space.free(directory) and any(copies):
        with opened(source.path) as fd:
            if can_clone(fd, directory):
                return (len(copies) - sum(copies)) * source.allocated
    return needed


# -- words


@contextmanager
def _explaining(doing: str, directory: Path, *, needed: int | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise space.explained(error, doing=doing, directory=directory, needed=needed) from error
