"""The image while it is mounted: its mount points, what it is lent, and how all of it is taken back. Runs in the
holder."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pytest_azchroot.disk.probe import Place
from pytest_azchroot.errors import DirtyImageError, SandboxError
from pytest_azchroot.leaving import attached_to

from . import copies, inroot, layers, layout, loans, mountpoints, mounts, overlay, process, resolving, stubs, syscalls
from .faults import BusyError, devices_of
from .layers import Layer
from .mounts import Lent, Mount
from .written import Writes

_FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
}


class Image:
    """Where the image is mounted, and everything mounted since the sandbox was made.

    Its life: mounted, changed, unmounted; then, once the disk is read-only, mounted as lower layers. Either way it
    can be covered by overlays, and ``root`` is the merged tree as long as it is.
    """

    def __init__(self, *, place: Callable[[str], Place | None], node: Callable[[Place], str]) -> None:
        """:param place: what of the disk a mount's source is, None if it is none of it.
        :param node: the node of a place by now.
        """
        before = mounts.current()
        self._baseline = {mount.id for mount in before}
        self._build_machine = {mount.device for mount in before}
        self._place = place
        self._node = node
        self._layers: tuple[Layer, ...] = ()
        self._sealed: list[tuple[Layer, str]] = []
        self._uncovered: set[int] | None = None
        self._merged: str | None = None
        self._writes: Writes | None = None
        self._made: list[list[str]] = []
        self._after: dict[int, list[Callable[[], None]]] = {}
        self._resolv_conf_lent = False
        self._copies = copies.Copies(self.in_image)
        self._loans = loans.Loans(self.in_image)
        self._root: str | None = None
        self._pending: tuple[str, Callable[[], None]] = ("", lambda: None)

    @property
    def root(self) -> str:
        """:raises SandboxError: the image is not mounted."""
        root = self._merged or self._root
        if root is None:
            raise SandboxError("the image is not mounted")
        return root

    @property
    def is_covered(self) -> bool:
        """Whether what is written goes to overlays."""
        return self._merged is not None

    def in_image(self, task: Callable[[], Any], *, stdin: int | None = None) -> Any:
        """Run a short task in a child that has entered the image."""
        root = self.root

        def entered() -> Any:
            inroot.enter(root)
            return task()

        return process.call(entered, stdin=stdin)

    # ---- mounting

    def prepare(self, path: str) -> str:
        """Make a mount point; below the image's root the path is one of the image.

        :return: the path without links, to be mounted on.
        """
        if self._root is not None and path != self._root and mounts.within(path, self._root):
            inner = path[len(self._root.rstrip("/")) :]
            real, made = self._target(inner, directory=True)
            self._pending = (real, lambda: self._remove_made(made))
            return real
        real, remove = mountpoints.make(path)
        self._pending = (real, remove)
        return real

    def mounted(self, path: str) -> None:
        """Something has been mounted on a prepared path.

        :raises SandboxError: nothing is there.
        """
        point, undo = self._pending
        self._remember(point, undo)
        if self._root is None:
            self._root = path

    def not_mounted(self) -> None:
        """Mounting on the prepared path has failed."""
        _, undo = self._pending
        undo()

    def mounted_by_hand(self, path: str) -> str:
        """A command of the user has mounted something at or below a path.

        :return: the path without links.
        :raises SandboxError: nothing is there.
        """
        real = os.path.realpath(path)
        if not any(mount.within(real) for mount in self._ours()):
            raise SandboxError(f"nothing is mounted at {path}", why="the mount command ended without an error")
        self._root = real
        return real

    def _remember(self, point: str, undo: Callable[[], None]) -> Mount:
        for mount in reversed(self._ours()):
            if mount.point == point:
                self._after.setdefault(mount.id, []).append(undo)
                return mount
        raise SandboxError(f"nothing is mounted at {point}", why="the mount command ended without an error")

    def _ours(self) -> list[Mount]:
        seen = mounts.current()
        # the kernel gives the number of a mount that has gone to the next one
        self._baseline &= {mount.id for mount in seen}
        return [mount for mount in seen if mount.id not in self._baseline]

    def require_unmounted(self) -> None:
        """:raises SandboxError: something is still mounted."""
        if ours := self._ours():
            points = ", ".join(mount.point for mount in ours[:3])
            raise SandboxError("the image is still mounted", why=points, hint="unmount it first")

    # ---- lending

    def lend(self, rows: Sequence[Sequence[str]] | None, *, host_resolv_conf: bool) -> None:
        """Mount what the image needs while commands run in it."""
        plan = mounts.private("/dev") if rows is None else mounts.literal(rows)
        # by one look into the image instead of one for each mount: a look is a process
        known = self.in_image(lambda: inroot.make_targets([lent.target for lent in plan])) if rows is None else {}
        for lent in plan:
            self._lend(lent, is_default=rows is None, known=known.get(lent.target))
        if host_resolv_conf:
            self._lend_resolv_conf(private_run=rows is None)

    def _lend(self, lent: Lent, *, is_default: bool, known: Mapping[str, Any] | None = None) -> None:
        source = lent.source if is_default else _on_the_host(lent.source)
        if lent.kind == "bind" and not os.path.exists(source):
            if is_default:  # not every kernel has each of these in /proc
                return
            raise SandboxError(f"{lent.source} cannot be bound to {lent.target}", why="it is not on the build machine")
        directory = lent.kind != "bind" or os.path.isdir(source)
        target, made = self._target(lent.target, directory=directory, known=known)
        try:
            if lent.kind == "bind":
                syscalls.bind(source, target, recursive=True)
                if "ro" in lent.options:
                    # mount(2) ignores MS_RDONLY when it makes a bind
                    strict = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
                    syscalls.mount(None, target, flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | strict)
            else:
                flags = sum(_FLAGS[option] for option in lent.options if option in _FLAGS)
                data = ",".join(option for option in lent.options if option not in _FLAGS)
                syscalls.mount(source, target, lent.kind, flags=flags, data=data or None)
        except OSError as error:
            row = f"[{lent.kind}, {lent.source}, {lent.target}]"
            refused = SandboxError(f"{row} cannot be mounted", why=os.strerror(error.errno or 0))
            with attached_to(refused):
                self._remove_made(made)
            raise refused from error
        self._remember(target, lambda: self._remove_made(made))

    def _lend_resolv_conf(self, *, private_run: bool) -> None:
        content = resolving.of_the_build_machine()
        place = resolving.Place(**self.in_image(lambda: asdict(resolving.place())))
        if place.read_only:
            self._bind_resolv_conf(place.path, content)
        elif not self._is_of_the_build_machine(place.path):
            # what is in an overlay goes with it
            self._loans.put(place.path, content, held=self._merged is None)
        for path in resolving.STUBS:
            if private_run and path != place.path:
                self._loans.put(path, content, held=False)
        self._resolv_conf_lent = True

    def _bind_resolv_conf(self, path: str, content: bytes) -> None:
        copy, target = f"{layout.LENT}/resolv.conf", self.root.rstrip("/") + path
        if os.path.isfile(target) and not os.path.islink(target):
            with open(copy, "wb") as file:
                file.write(content)
            syscalls.bind(copy, target)

    def _is_of_the_build_machine(self, path: str) -> bool:
        """Whether a path of the image, free of links, is in a directory that was bound from there."""
        here = self.root.rstrip("/") + path
        holding = max((mount for mount in self._ours() if mount.holds(here)), key=lambda mount: len(mount.point))
        return holding.point != self.root and holding.device in self._build_machine

    def lend_stubs(self, *, deny_services: bool, defer_initramfs: bool) -> None:
        """Put programs before the image's own: see :mod:`.stubs`."""
        self._lend_programs(stubs.programs(deny_services=deny_services, defer_initramfs=defer_initramfs))
        for each in stubs.placeholders(deny_services=deny_services):
            self._loans.put_new(each.path, each.content.encode(), mode=each.mode, where=each.where)

    def _lend_programs(self, programs: Mapping[str, str]) -> None:
        place = stubs.DIRECTORY
        if self._is_of_the_build_machine(place) or self.in_image(lambda: inroot.is_read_only(place)):
            return
        shutil.rmtree(layout.STUBS, ignore_errors=True)
        os.mkdir(layout.STUBS)
        for name, content in programs.items():
            with open(f"{layout.STUBS}/{name}", "w", encoding="ascii") as file:
                file.write(content)
                os.fchmod(file.fileno(), 0o755)
        with open(f"{layout.STUBS}/{os.path.basename(stubs.DEFERRED)}", "w", encoding="ascii"):
            pass
        self._lend(Lent("bind", layout.STUBS, place), is_default=True)

    def _target(self, path: str, *, directory: bool, known: Mapping[str, Any] | None = None) -> tuple[str, list[str]]:
        """A path of the image as a mount target on this side, and what was made for it, as the image names it."""
        found = known or self.in_image(lambda: asdict(inroot.make_target(path, directory=directory)))
        if self._merged is None and found["made"]:
            self._made.append(found["made"])
        return self.root.rstrip("/") + found["path"], found["made"]

    def _remove_made(self, made: list[str]) -> None:
        if made:
            self.in_image(lambda: inroot.remove_made(made))

    def copy_files(self, paths: Sequence[str]) -> None:
        """Lend files of the build machine at the same paths."""
        for path in paths:
            if path != resolving.PATH or not self._resolv_conf_lent:
                self._copies.add(path)

    # ---- covering

    def record(self) -> None:
        """Take down what is mounted, to mount it again after the seal.

        :raises SandboxError: a part of the image cannot be mounted again.
        """
        self._layers = self._live_layers()

    def _live_layers(self) -> tuple[Layer, ...]:
        # what has the device of a file system of the build machine was bound from there
        ours = [mount for mount in self._ours() if mount.device not in self._build_machine]
        return layers.of(ours, top=self.root, place=self._place)

    def mount_sealed(self) -> None:
        """Mount the recorded file systems read-only, out of sight of the image: an overlay will be on each.

        :raises SandboxError: one cannot be mounted any more.
        """
        tops: dict[Place, str] = {}
        for layer in self._layers:
            if layer.place not in tops:
                tops[layer.place] = top = f"{layout.LOWER}/fs{len(tops)}"
                node = self._node(layer.place)
                os.mkdir(top)
                try:
                    syscalls.mount(
                        node, top, layer.kind, flags=syscalls.MS_RDONLY, data=",".join(layer.options) or None
                    )
                except OSError as error:
                    what = f"{node} ({layer.kind}) cannot be mounted again read-only"
                    raise SandboxError(what, why=os.strerror(error.errno or 0)) from error
            self._sealed.append((layer, tops[layer.place] + layer.root.rstrip("/")))

    def cover(self, lent: Sequence[Sequence[Sequence[str]] | None], *, host_resolv_conf: bool) -> str:
        """Put an overlay over each file system of the image, and lend to the merged tree.

        :param lent: what :meth:`lend` takes, each.
        :return: where the merged tree is.
        """
        live = not self._sealed
        stack = self._sealed or [
            (layer, self.root.rstrip("/") + layer.path.rstrip("/")) for layer in self._live_layers()
        ]
        self._uncovered = {mount.id for mount in self._ours()}
        try:
            covered = []
            for index, (layer, directory) in enumerate(stack):
                target = layout.MERGED if layer.path == "/" else self._target(layer.path, directory=True)[0]
                node = self._node(layer.place)
                covered.append(overlay.cover(index, layer, node=node, directory=directory, target=target))
                self._merged = layout.MERGED
            if live:
                covers = {layer.path for layer, _ in stack}
                made = [[path for path in paths if path not in covers] for paths in self._made]
                self.in_image(lambda: inroot.as_it_ships([self._copies.take_out, self._loans.take_out], made))
            for rows in lent:
                self.lend(rows, host_resolv_conf=False)
            if host_resolv_conf:
                self._lend_resolv_conf(private_run=None in lent)
            self._writes = Writes(covered)
        except BaseException as error:
            with attached_to(error):
                self.uncover()
            raise
        return layout.MERGED

    def uncover(self) -> None:
        """Drop the overlays, and what was written to them.

        :raises DirtyImageError: something holds one.
        """
        if self._uncovered is None:
            return
        while newer := [mount for mount in self._ours() if mount.id not in self._uncovered]:
            self._after.pop(newer[-1].id, None)  # what was made for it goes with its overlay
            self._unmount(newer[-1])
        self._merged = self._writes = self._uncovered = None

    @property
    def writes(self) -> Writes:
        """What was written to the overlays.

        :raises SandboxError: there are none.
        """
        if self._writes is None:
            raise SandboxError("there are no overlays, so what was written is in the image")
        return self._writes

    # ---- taking it all back

    def give_back(self) -> None:
        """Take the copied files out again, and what was lent by putting it into the image's tree."""
        self._copies.give_back()
        self._loans.give_back()

    def trim(self) -> list[tuple[str, int | None]]:
        """Let the file systems of the disk discard what they do not use: what was deleted is not published, and the
        artifact is smaller. After :meth:`sync`: what a journal has not committed is not free yet.

        :return: node, and how many bytes; None where it cannot.
        """
        points = {mount.source: mount.point for mount in self._ours() if self._place(mount.source) is not None}
        return [(node, self._at(point, syscalls.trim)) for node, point in points.items()]

    def sync(self) -> None:
        """Write out every file system that is on a device, and hear of write errors."""
        for mount in self._ours():
            if mount.source.startswith("/dev/"):
                self._at(mount.point, syscalls.syncfs)

    def _at(self, point: str, call: Callable[[int], Any]) -> Any:
        try:
            descriptor = os.open(point, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise DirtyImageError(f"{point} cannot be written out", why=error.strerror) from error
        try:
            return call(descriptor)
        except OSError as error:
            raise DirtyImageError(f"{point} was not written out", why=error.strerror) from error
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Strictly, the newest mount first, with everything that a command mounted in this namespace.

        :raises DirtyImageError: something holds a mount.
        """
        while ours := self._ours():
            self._unmount(ours[-1])
        self._root = self._merged = self._writes = self._uncovered = None
        self._resolv_conf_lent = False
        self._made.clear()
        self._sealed.clear()

    def _unmount(self, mount: Mount) -> None:
        devices = devices_of(mount)
        try:
            syscalls.umount(mount.point)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise DirtyImageError(f"{mount.point} cannot be unmounted", why=error.strerror) from error
            beneath = [other.point for other in self._ours() if other.id != mount.id and other.within(mount.point)]
            why = f"mounted beneath: {', '.join(beneath)}" if beneath else None
            raise BusyError(f"{mount.point} is still in use", why=why, point=mount.point, devices=devices) from error
        for undo in self._after.pop(mount.id, ()):
            undo()


def _on_the_host(source: str) -> str:
    # the private /dev stands over the one that a literal row means
    return layout.HOST_DEV + source[len("/dev") :] if mounts.within(source, "/dev") else source
