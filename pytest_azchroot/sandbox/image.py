"""The image while it is mounted: its mount points, what it is lent, and how all of it is taken back. Runs in the
holder."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from pytest_azchroot.errors import DirtyImageError, SandboxError

from . import inroot, layout, mountpoints, mounts, process, syscalls
from .faults import BusyError
from .mounts import Lent, Mount

_FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
}
_RESOLV_CONF = "/etc/resolv.conf"


class Image:
    """Where the image is mounted, and everything mounted since the sandbox was made."""

    def __init__(self) -> None:
        self._baseline = {mount.id for mount in mounts.current()}
        self._after: dict[int, list[Callable[[], None]]] = {}
        self._copied: dict[str, inroot.Copied] = {}
        self._resolv_conf_lent = False
        self._root: str | None = None
        self._pending: tuple[str, Callable[[], None]] = ("", lambda: None)

    @property
    def root(self) -> str:
        """:raises SandboxError: the image is not mounted."""
        if self._root is None:
            raise SandboxError("the image is not mounted")
        return self._root

    def in_image(self, task: Callable[[], Any]) -> Any:
        """Run a short task in a child that has entered the image."""
        root = self.root

        def entered() -> Any:
            inroot.enter(root)
            return task()

        return process.call(entered)

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
        for lent in plan:
            self._lend(lent, is_default=rows is None)
        if host_resolv_conf:
            self._lend_resolv_conf()

    def _lend(self, lent: Lent, *, is_default: bool) -> None:
        source = lent.source if is_default else _on_the_host(lent.source)
        if lent.kind == "bind" and not os.path.exists(source):
            if is_default:  # not every kernel has each of these in /proc
                return
            raise SandboxError(f"{lent.source} cannot be bound to {lent.target}", why="it is not on the build machine")
        directory = lent.kind != "bind" or os.path.isdir(source)
        target, made = self._target(lent.target, directory=directory)
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
            self._remove_made(made)
            row = f"[{lent.kind}, {lent.source}, {lent.target}]"
            raise SandboxError(f"{row} cannot be mounted", why=os.strerror(error.errno or 0)) from error
        self._remember(target, lambda: self._remove_made(made))

    def _lend_resolv_conf(self) -> None:
        """A private copy, bound over the link's target: the image's own file is never opened for writing."""
        copy = f"{layout.LENT}/resolv.conf"
        try:
            with open(_RESOLV_CONF, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            content = b""
        with open(copy, "wb") as file:
            file.write(content)
        target, made = self._target(_RESOLV_CONF, directory=False)
        syscalls.bind(copy, target)
        self._remember(target, lambda: self._remove_made(made))
        self._resolv_conf_lent = True

    def _target(self, path: str, *, directory: bool) -> tuple[str, list[str]]:
        """A path of the image as a mount target on this side, and what was made for it, as the image names it."""
        found = self.in_image(lambda: asdict(inroot.make_target(path, directory=directory)))
        return self.root.rstrip("/") + found["path"], found["made"]

    def _remove_made(self, made: list[str]) -> None:
        if made:
            self.in_image(lambda: inroot.remove_made(made))

    def copy_files(self, paths: Sequence[str]) -> None:
        """Lend files of the build machine at the same paths."""
        for path in paths:
            if path == _RESOLV_CONF and self._resolv_conf_lent:
                continue
            if path not in self._copied:
                self._copied[path] = self._copy(path)

    def _copy(self, path: str) -> inroot.Copied:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SandboxError(f"{path} cannot be copied into the image", why=error.strerror) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SandboxError(f"{path} cannot be copied into the image", why="it is not a regular file")
            mode = stat.S_IMODE(status.st_mode)
            copied = self.in_image(lambda: asdict(inroot.copy_in(descriptor, path, mode=mode)))
            return inroot.Copied(copied["path"], copied["aside"], tuple(copied["made"]))
        finally:
            os.close(descriptor)

    # ---- taking it all back

    def give_back(self) -> None:
        """Take the copied files out again."""
        while self._copied:
            path = next(reversed(self._copied))
            self.in_image(functools.partial(inroot.give_back, self._copied[path]))
            del self._copied[path]

    def sync(self) -> None:
        """Write out every file system that is on a device, and hear of write errors."""
        for mount in self._ours():
            if mount.source.startswith("/dev/"):
                try:
                    descriptor = os.open(mount.point, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                except OSError as error:
                    raise DirtyImageError(f"{mount.point} cannot be written out", why=error.strerror) from error
                try:
                    syscalls.syncfs(descriptor)
                except OSError as error:
                    raise DirtyImageError(f"{mount.point} was not written out", why=error.strerror) from error
                finally:
                    os.close(descriptor)

    def unmount(self) -> None:
        """Strictly, the newest mount first, with everything that a command mounted in this namespace.

        :raises DirtyImageError: something holds a mount.
        """
        while ours := self._ours():
            self._unmount(ours[-1])
        self._root = None
        self._resolv_conf_lent = False

    def _unmount(self, mount: Mount) -> None:
        devices = _devices(mount)
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


def _devices(mount: Mount) -> list[int]:
    """``st_dev`` of its files: for btrfs that of a subvolume differs from that of the superblock."""
    major, minor = mount.device.split(":")
    found = {os.makedev(int(major), int(minor))}
    with contextlib.suppress(OSError):  # a mount that cannot be looked at is named by its superblock alone
        found.add(os.stat(mount.point).st_dev)
    return sorted(found)
