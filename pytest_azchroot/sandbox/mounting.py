"""What of the disk is mounted, and what the image is lent while it is."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pytest_azchroot.disk import fsck
from pytest_azchroot.disk.probe import FileSystem, Place
from pytest_azchroot.errors import SandboxError
from pytest_azchroot.leaving import attached_to

from . import environment, layout, stubs
from .commands import Commands
from .result import CommandError

_LOOK_PATIENCE = 60.0
_DMESG = re.compile(r"^\s*dmesg\(1\) may have more information.*$\n?", re.MULTILINE)


def _as_it_is(command: str) -> str:
    return command


class Mounting(Commands):
    """Finds file systems on the disk, mounts them, and lends them what commands need."""

    _defers = False

    def partition(self, number: int) -> str:
        """The node of a partition; 0 is the disk itself.

        :raises SandboxError: there is no such partition.
        """
        return self.node(number)

    def node(self, place: Place) -> str:
        """The node of a partition or, after :meth:`use_volumes`, of a logical volume.

        :raises SandboxError: there is no such thing.
        """
        nodes: dict[str, str] = self.ask("nodes")
        if str(place) not in nodes:
            there = ", ".join(each for each in nodes if each != "0") or "none"
            raise SandboxError(f"{self.device} has no partition {place}", why=f"its partitions are: {there}")
        return nodes[str(place)]

    def use_volumes(self) -> None:
        """Find the logical volumes of LVM on the disk and make each a block device, until the disk is released; the
        seal makes them again, read-only. What cannot be one says why in :meth:`filesystems`.

        :raises DiskError: LVM of the build machine uses them already, or the kernel refuses one.
        """
        self._know_loops(self.ask("use_volumes")["loops"])

    def filesystems(self) -> tuple[FileSystem, ...]:
        """What blkid finds on the disk (number 0), on each partition and, after :meth:`use_volumes`, on each logical
        volume."""
        return tuple(FileSystem(**found) for found in self.ask("file_systems"))

    def look(self, node: str, kind: str, *, options: str = "") -> list[dict[str, Any]]:
        """Read the few files that tell a root from a file system of the disk, and from each subvolume of it. It need
        not be mounted; nothing is written.

        :param kind: its type, by blkid.
        :param options: for mounting it, like ``subvol=@``.
        :return: a :class:`~pytest_azchroot.disk.discovery.Look` each, without its number.
        :raises SandboxError: it cannot be mounted or read.
        """
        arguments = {"node": node, "kind": kind, "options": options}
        code, chunks = self._connection.run("look", arguments, timeout=_LOOK_PATIENCE)
        if code is None:
            raise SandboxError(f"{node} ({kind}) cannot be read", why=f"it took more than {_LOOK_PATIENCE:.0f} seconds")
        return [json.loads(line) for line in b"".join(data for _, data in chunks).splitlines()]

    @property
    def mount_path(self) -> str:
        """Where the image is mounted, as :meth:`outside` sees it.

        :raises SandboxError: it is not mounted.
        """
        path = self._covered or self._mount_path
        if path is None:
            raise SandboxError("the image is not mounted")
        return path

    # ---- mounting

    def mount(
        self,
        node: str,
        *,
        path: str = layout.ROOT,
        options: Sequence[str] = (),
        wrapper: Callable[[str], str] = _as_it_is,
    ) -> None:
        """Mount a file system of the disk. The first one mounted is the image's root; a path below it is one of the
        image, links included.

        :param options: each becomes one ``-o`` of mount(8). XFS always gets ``nouuid``: the kernel refuses two file
            systems of one UUID, and a copy of the build machine's own disk is a usual source. A disk that is read-only
            is mounted so.
        :param wrapper: what ``command_wrapper`` makes of the command.
        :raises SandboxError: mount(8) refused; its words.
        :raises UnavailableError: the file system could not be checked at the end.
        """
        found = next((each for each in self.filesystems() if each.node == node), None)
        kind = None if found is None else found.type
        self._checks.require_checker(kind)
        given = {part for option in options for part in option.split(",")}
        words = [*options, *(["nouuid"] if kind == "xfs" and "nouuid" not in given else [])]
        if self._connection.read_only:
            words.append("ro")  # last, so that it counts; mount(8) would find out, and warn of it each time
        target = self.ask("prepare", path=path)
        argv = ["mount", *(word for option in words for word in ("-o", option)), node, target]
        try:
            self.outside(wrapper(shlex.join(argv)))
            self.ask("mounted", path=target)
            self._mount_path = self._mount_path or target
        except CommandError as error:
            why = _DMESG.sub("", error.completed.output).strip() or None
            if kind is None:
                hint: str | None = f"blkid finds no file system on {node}: format it, or choose another partition"
            elif hint := fsck.damage(kind, why or ""):
                why = f"the file system is damaged\n{why}"
            how = f" with {', '.join(words)}" if words else ""
            what = f"{node} ({kind or 'unknown'}) cannot be mounted on {path}{how}"
            refused = SandboxError(what, why=why, hint=hint)
            with attached_to(refused):
                self.ask("not_mounted")
            raise refused from error
        except BaseException as error:
            with attached_to(error):
                self.ask("not_mounted")
            raise

    def mount_manually(self, command: str, *, path: str) -> None:
        """Run ``<command> <path>``, which mounts the image there; whatever it mounts is unmounted at the end.

        :raises CommandError: the command failed.
        :raises SandboxError: nothing is mounted afterwards.
        """
        self.outside(f"{command} {shlex.quote(path)}")
        self._mount_path = self.ask("mounted_by_hand", path=path)

    def lend(
        self,
        mounts: Sequence[tuple[str, str, str]] | None,
        *,
        resolv_conf: Literal["host", "image"] = "host",
    ) -> None:
        """Mount what commands in the image need, until it is unmounted.

        :param mounts: None for a private ``/dev``, its own ``/proc`` and ``/run``, and a read-only ``/sys``; else
            rows ``(type, source, target)``, taken literally; ``bind`` takes what is mounted below along.
        :param resolv_conf: ``host`` binds a private copy of the build machine's name servers over the image's.
        :raises SandboxError: a mount was refused.
        """
        rows = None if mounts is None else [list(row) for row in mounts]
        self.ask("lend", rows=rows, host_resolv_conf=resolv_conf == "host")
        if self.is_sealed or not self.is_covered:  # else it goes with the overlay
            self._lent.append(mounts)

    def lend_stubs(self, *, deny_services: bool, defer_initramfs: bool) -> None:
        """Until the image is closed, or while it is not covered: let no service be started, and put the making of an
        initramfs off. See :mod:`.stubs`.

        :raises SandboxError: they cannot be mounted.
        """
        self.ask("lend_stubs", deny_services=deny_services, defer_initramfs=defer_initramfs)
        self._stubs, self._defers = True, defer_initramfs

    def make_up(self, *, timeout: float | None = None) -> None:
        """Run what was put off, each command once.

        :raises CommandError: one failed.
        """
        if self._defers:
            self._defers = False
            text = self.inside(["cat", stubs.DEFERRED], check=False, output=_unheard).stdout
            for argv in stubs.deferred(text):
                self.inside(argv, env={"PATH": environment.PATH_INSIDE}, timeout=timeout)

    def copy_files(self, paths: Sequence[str]) -> None:
        """Lend files of the build machine at the same paths. At the unmount they are taken out, and the image's own
        files are back: they are renamed, so bytes, type, mode and owner stay.

        :raises SandboxError: a path is missing, or no regular file.
        """
        self.ask("copy_files", paths=list(paths))


def _unheard(stream: str, data: bytes) -> None:
    """What is asked for ourselves is not part of the log."""
