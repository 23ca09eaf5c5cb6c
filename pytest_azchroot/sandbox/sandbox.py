"""The sandbox: where an image is mounted, changed, read, and closed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pytest_azchroot.disk import loop
from pytest_azchroot.disk.probe import FileSystem
from pytest_azchroot.errors import SandboxError

from . import environment, layout, stubs
from .checks import Checks
from .confinement import Confinement
from .connection import Connection, Hear
from .result import CommandError, Completed, as_shown
from .sealing import Sealing

_CLOSE_PATIENCE = 15.0
_FREE_PATIENCE = 15.0
_LOOK_PATIENCE = 60.0
_DMESG = re.compile(r"^\s*dmesg\(1\) may have more information.*$\n?", re.MULTILINE)

_CONFINED = Confinement()

Command = str | Sequence[str]


def _as_it_is(command: str) -> str:
    return command


class Sandbox(Sealing):
    """An image's disk in namespaces of its own. Whoever dies - this process, the keeper, the holder - everything
    here is gone with it: processes, mounts, loop device, partitions.

    Its methods are called from one thread at a time; others wait.
    """

    def __init__(
        self, connection: Connection, *, output: Hear | None, variables: Mapping[str, str], confinement: Confinement
    ) -> None:
        super().__init__(connection)
        self._confinement = confinement
        self._stubs = self._defers = False
        self._output = output
        self._environment = dict(variables)
        self._closed = False
        self._checks = Checks(self)

    @classmethod
    @contextmanager
    def start(
        cls,
        path: Path,
        *,
        hostname: str,
        output: Callable[[str, bytes], None] | None = None,
        environment: Mapping[str, str] | None = None,
        confinement: Confinement = _CONFINED,
        read_only: bool = False,
    ) -> Iterator[Sandbox]:
        """Make a sandbox around a disk image file or a block device. Leaving it without :meth:`close` aborts it.

        :param hostname: what commands see as the name of the machine.
        :param output: receives ``"stdout"`` or ``"stderr"`` and bytes, while a command runs.
        :param environment: variables for every command, inside and outside.
        :param confinement: how commands inside are held.
        :param read_only: nothing can be written to the disk, not even by a mount that replays a journal.
        :raises UnavailableError: namespaces, loop devices or tools are missing here.
        :raises DiskError: the disk cannot be opened, or another program uses it.
        """
        connection = Connection(path=os.path.abspath(path), hostname=hostname, read_only=read_only)
        sandbox = cls(connection, output=output, variables=environment or {}, confinement=confinement)
        try:
            yield sandbox
        except BaseException as error:
            try:
                sandbox.abort()
            except SandboxError as second:  # the first error is the one to show; this one goes with it
                if sys.version_info >= (3, 11):
                    error.add_note(str(second))
            raise
        else:
            sandbox.abort()

    @property
    def holder(self) -> int:
        """The PID of the holder on this machine: ``nsenter -t`` enters its namespaces."""
        return self._connection.holder

    @property
    def keeper(self) -> int:
        """The PID of the keeper on this machine."""
        return self._connection.keeper

    # ---- the disk

    def partition(self, number: int) -> str:
        """The node of a partition; 0 is the disk itself.

        :raises SandboxError: there is no such partition.
        """
        nodes: dict[str, str] = self.ask("nodes")
        if str(number) not in nodes:
            there = ", ".join(each for each in nodes if each != "0") or "none"
            raise SandboxError(f"{self.device} has no partition {number}", why=f"its partitions are: {there}")
        return nodes[str(number)]

    def filesystems(self) -> tuple[FileSystem, ...]:
        """What blkid finds on the disk (number 0) and on each partition."""
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

    # ---- commands

    def outside(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout: float | None = None,
        input: bytes | str | None = None,
        check: bool = True,
        ok_codes: Sequence[int] = (0,),
        output: Hear | None = None,
    ) -> Completed:
        """Run a tool of the build machine in the sandbox's mount namespace, beside the image and not in it.

        A string is for ``sh -ec``. When it has ended the partition nodes are made what the partition table says.

        :param timeout: seconds, after which all its processes are ended.
        :raises CommandError: an exit code that is not in ``ok_codes``, unless ``check`` is false; a timeout always.
        :raises SandboxError: it could not be started.
        """
        variables = environment.outside(os.environ, self._environment, env or {})
        return self._run(
            "outside",
            command,
            {"environment": variables, "directory": _text(cwd), "settles": True},
            timeout=timeout,
            content=_bytes(input),
            ok_codes=ok_codes if check else None,
            hear=output or self._output,
        )

    def inside(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        user: str | None = None,
        timeout: float | None = None,
        input: bytes | str | None = None,
        check: bool = True,
        ok_codes: Sequence[int] = (0,),
        output: Hear | None = None,
    ) -> Completed:
        """Run a command in the image: as its root directory, without the build machine's file system, and without
        the capabilities named in :mod:`.capabilities`.

        A string is for ``sh -ec``. Standard input is ``input``, else empty.

        :param user: ``name``, ``uid``, ``name:group`` or ``uid:gid`` of the image.
        :param timeout: seconds, after which all its processes are ended.
        :raises CommandError: an exit code that is not in ``ok_codes``, unless ``check`` is false; a timeout always.
        :raises SandboxError: it could not be started: no such command, directory or user.
        """
        self._refuse()
        variables = environment.inside(self._variables, self._environment, env or {})
        return self._run(
            "inside",
            command,
            {"environment": variables, "directory": _text(cwd), "user": user, **asdict(self._confinement)},
            timeout=timeout,
            content=_bytes(input),
            ok_codes=ok_codes if check else None,
            hear=output or self._output,
        )

    @property
    def _variables(self) -> Mapping[str, str]:
        """What a command in the image gets in addition, as long as it may change the image and when it may not."""
        if self.is_covered:
            return environment.COVERED
        return {"PATH": f"{stubs.DIRECTORY}:{environment.PATH_INSIDE}"} if self._stubs else {}

    def _run(
        self,
        operation: str,
        command: Command,
        arguments: Mapping[str, Any],
        *,
        timeout: float | None,
        content: bytes | None,
        ok_codes: Sequence[int] | None,
        hear: Hear | None,
    ) -> Completed:
        argv = ["/bin/sh", "-ec", command] if isinstance(command, str) else [os.fspath(part) for part in command]
        for part in (*argv, *(word for item in arguments["environment"].items() for word in item)):
            if "\0" in part:
                raise SandboxError(f"a command or variable cannot hold a NUL character: {part[:80]!r}")
        if hear is not None and hear is self._output:  # a log wants to know whose output comes; a caller knows
            hear("stdout", f"$ {as_shown(command)}\n".encode(errors="replace"))
        started = time.monotonic()
        code, chunks = self._connection.run(
            operation, {"argv": argv, **arguments}, content=content, timeout=timeout, hear=hear
        )
        duration = time.monotonic() - started
        completed = Completed(as_shown(command), -9 if code is None else code, duration, tuple(chunks))
        if code is None:
            raise CommandError(completed, timeout=timeout)
        if ok_codes is not None and code not in ok_codes:
            raise CommandError(completed)
        return completed

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
            systems of one UUID, and a copy of the build machine's own disk is a usual source.
        :param wrapper: what ``command_wrapper`` makes of the command.
        :raises SandboxError: mount(8) refused; its words.
        :raises UnavailableError: the file system could not be checked at the end.
        """
        found = next((each for each in self.filesystems() if each.node == node), None)
        kind = None if found is None else found.type
        self._checks.require_checker(kind)
        given = {part for option in options for part in option.split(",")}
        words = [*options, *(["nouuid"] if kind == "xfs" and "nouuid" not in given else [])]
        target = self.ask("prepare", path=path)
        argv = ["mount", *(word for option in words for word in ("-o", option)), node, target]
        try:
            self.outside(wrapper(shlex.join(argv)))
            self.ask("mounted", path=target)
            self._mount_path = self._mount_path or target
        except CommandError as error:
            self.ask("not_mounted")
            why = _DMESG.sub("", error.completed.output).strip() or None
            hint = None if kind else f"blkid finds no file system on {node}: format it, or choose another partition"
            how = f" with {', '.join(words)}" if words else ""
            what = f"{node} ({kind or 'unknown'}) cannot be mounted on {path}{how}"
            raise SandboxError(what, why=why, hint=hint) from error
        except BaseException:
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
        if not self.is_covered:
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

    # ---- the end

    def close(self) -> None:
        """Let go of the disk, strictly: it is unbound when this returns.

        :raises SandboxError: the image is still mounted, or the device is still in use.
        """
        self.ask("close")
        try:
            code = self._connection.wait(patience=_CLOSE_PATIENCE)
        except subprocess.TimeoutExpired:
            raise SandboxError("the sandbox did not end") from None
        if code != 0:
            raise SandboxError("the sandbox did not end well", why=f"its keeper ended with {code}")
        self._closed = True
        self._connection.let_go()
        self._wait_until_free()

    def abort(self) -> None:
        """End everything at once and wait until the kernel has cleaned up; the disk is not fit for use then. Does
        nothing after :meth:`close`.

        :raises SandboxError: the disk is still in use after a while.
        """
        if self._closed:
            return
        self._closed = True
        self._connection.let_go()
        self._wait_until_free()

    def _wait_until_free(self) -> None:
        backing = self._backing
        name = self.device.removeprefix("/dev/")
        if backing is not None and not loop.wait_until_free(name, backing, patience=_FREE_PATIENCE):
            raise SandboxError(f"{self.device} is still bound to {backing}", why="something outside the sandbox has it")


def _text(path: str | Path | None) -> str | None:
    return None if path is None else os.fspath(path)


def _bytes(content: bytes | str | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content


def _unheard(stream: str, data: bytes) -> None:
    """What is asked for ourselves is not part of the log."""
