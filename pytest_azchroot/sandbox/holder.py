"""The holder: PID 1 of the sandbox. It owns the disk, the mounts and every command; when it ends, the kernel takes
all of them away.

It serves one request at a time. What may take long is a child, whose end is answered when it comes; so an
interrupted caller can always say ``kill``.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import (
    attended,
    capabilities,
    faults,
    files,
    inroot,
    landlock,
    layout,
    looking,
    metadata,
    namespaces,
    process,
    syscalls,
    wire,
)
from .command import Command, run_inside, run_outside
from .devices import DiskNodes, make_private_dev
from .image import Image
from .process import Child
from .visitors import Visitors
from .wire import Message

_CLOSED = 0
_KEEPER_GONE = 3
_NOT_STARTED = 4


Answer = Callable[[Message], None]


@dataclass(frozen=True)
class Running:
    """A child whose end somebody waits for."""

    request: int | None
    """The caller's; None for a visitor's."""
    answer: Answer
    child: Child
    settles: bool
    """Whether it may have changed the partition table."""


class Holder:
    """What the sandbox holds, and the answers to requests about it."""

    def __init__(
        self,
        channel: wire.Channel,
        *,
        path: str,
        hostname: str,
        read_only: bool,
        visitors: Message | None,
        reaches_metadata: str | None,
    ) -> None:
        self._channel = channel
        self._reaches_metadata = reaches_metadata
        self._poll = select.poll()
        self._running: dict[int, Running] = {}
        self._last_capability = capabilities.last_known()
        namespaces.make_private()
        # this /proc is still the one of the caller, who knows us by another number
        self._pid = int(os.readlink("/proc/self"))
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("proc", "/proc", "proc", flags=flags)
        socket.sethostname(hostname)
        os.makedirs(layout.BASE, exist_ok=True)
        # not nodev: the private /dev and the nodes to open disks by are below it
        syscalls.mount("tmpfs", layout.BASE, "tmpfs", flags=syscalls.MS_NOSUID, data="mode=755")
        for directory in (layout.NODES, layout.LENT, layout.ROOT, layout.LOWER, layout.UPPER, layout.MERGED):
            os.mkdir(directory)
        self._stubs = False
        self._visitors: Visitors | None = None
        if visitors is not None:
            enter = functools.partial(self._attend, None)
            self._visitors = Visitors(visitors, poll=self._poll, facts=self._facts, enter=enter)
        make_private_dev()
        self._disk = DiskNodes(Path(path), read_only=read_only)
        self._disk.settle()
        self._image = Image(place=self._disk.place_of, node=lambda place: self._disk.nodes()[place])

    def description(self) -> Message:
        """What the caller is told at the start."""
        backing = self._disk.device.backing
        # a file without a name is shown as one that was deleted; loop.bound_to leaves that out too
        name = None if backing is None else os.fspath(backing.resolve()).removesuffix(" (deleted)")
        return {
            "pid": self._pid,
            "device": self._disk.device.path,
            "backing": name,
            "loops": self._disk.loops(),
            "reaches_metadata": self._reaches_metadata,
        }

    # ---- requests: each name is one of the protocol

    def do_nodes(self) -> dict[str, str]:
        return {str(number): node for number, node in self._disk.nodes().items()}

    def do_file_systems(self) -> list[Message]:
        self._disk.restore()
        return [asdict(found) for found in self._disk.file_systems()]

    def do_use_volumes(self) -> Message:
        self._disk.use_volumes()
        return self.description()

    def do_prepare(self, path: str) -> str:
        return self._image.prepare(path)

    def do_mounted(self, path: str) -> None:
        self._image.mounted(path)

    def do_not_mounted(self) -> None:
        self._image.not_mounted()

    def do_mounted_by_hand(self, path: str) -> str:
        return self._image.mounted_by_hand(path)

    def do_lend(self, rows: Sequence[Sequence[str]] | None, host_resolv_conf: bool) -> None:
        self._image.lend(rows, host_resolv_conf=host_resolv_conf)
        self.do_admit()

    def do_lend_stubs(self, deny_services: bool, defer_initramfs: bool) -> None:
        self._image.lend_stubs(deny_services=deny_services, defer_initramfs=defer_initramfs)
        self._stubs = True

    def do_copy_files(self, paths: Sequence[str]) -> None:
        self._image.copy_files(paths)

    def do_survivors(self) -> list[Message]:
        self._reap()
        visiting = self._visitors.processes() if self._visitors else ()
        return [asdict(found) for found in process.survivors([*self._running, *visiting])]

    def do_end(self, pids: Sequence[int]) -> None:
        wanted = set(pids)
        process.end(lambda: [each.pid for each in process.survivors(self._running) if each.pid in wanted], self._reap)

    def do_kill(self, target: int) -> None:
        for running in list(self._running.values()):
            if running.request == target:
                process.end(functools.partial(process.tree, running.child, others=self._running), self._reap)

    def do_admit(self) -> None:
        if self._visitors:
            self._visitors.admit()

    def do_visits(self) -> int:
        return self._visitors.changing if self._visitors else 0

    def do_dismiss(self, why: str, covered: bool) -> list[Message]:
        found = self._visitors.dismiss(why, covered=covered, reap=self._reap) if self._visitors else []
        return [asdict(each) for each in found]

    def do_give_back(self) -> None:
        self._image.give_back()

    def do_unmount(self) -> list[tuple[str, int | None]]:
        self._disk.restore()
        self._image.sync()
        trimmed = self._image.trim()
        self._image.sync()
        self._image.unmount()
        return trimmed

    def do_record(self) -> None:
        self._disk.restore()
        self._image.record()

    def do_reopen(self) -> Message:
        self._disk.reopen_read_only()
        self._image.mount_sealed()
        return self.description()

    def do_cover(self, lent: Sequence[Sequence[Sequence[str]] | None], host_resolv_conf: bool) -> str:
        self._disk.restore()
        merged = self._image.cover(lent, host_resolv_conf=host_resolv_conf)
        self.do_admit()
        return merged

    def do_uncover(self) -> None:
        self._image.uncover()

    def do_in_use(self) -> list[str]:
        return self._disk.in_use()

    def do_flush(self) -> None:
        self._disk.flush()

    def do_close(self) -> None:
        self._image.require_unmounted()
        self._disk.require_unwritten()
        self._disk.release()

    # ---- children

    def start_outside(self, request: int, descriptors: Sequence[int], *, settles: bool, **command: Any) -> None:
        outside, grouped = Command(**command), self._reaches_metadata is None
        self._disk.restore()
        self._start(request, descriptors, lambda: run_outside(outside, grouped=grouped), settles=settles)

    def start_inside(self, request: int, descriptors: Sequence[int], **command: Any) -> None:
        inside, root, last = Command(**command), self._image.root, self._last_capability
        self._start(request, descriptors, lambda: run_inside(inside, root=root, last_capability=last))

    def start_attended(self, request: int, descriptors: Sequence[int], **arguments: Any) -> None:
        self._attend(request, functools.partial(self._answer, request), descriptors, **arguments)

    def _attend(
        self,
        request: int | None,
        answer: Answer,
        descriptors: Sequence[int],
        *,
        size: attended.Size | None,
        **command: Any,
    ) -> Child:
        inside, root, last = Command(**command), self._image.root, self._last_capability
        task = functools.partial(attended.run, inside, root=root, last_capability=last, size=size)
        return self._launch(request, answer, descriptors, task)

    def _facts(self) -> Message:
        """What a visitor has to know of the image before he enters."""
        return {"covered": self._image.is_covered, "stubs": self._stubs and not self._image.is_covered}

    def start_files(self, request: int, descriptors: Sequence[int], *, task: str, **arguments: Any) -> None:
        """A transfer: a function of :mod:`files`, run in the image, with the data on its standard input or output."""
        root, function = self._image.root, files.TASKS[task]

        def transfer() -> Any:
            inroot.enter(root)
            return function(**arguments)

        self._start(request, descriptors, transfer)

    def start_look(self, request: int, descriptors: Sequence[int], *, node: str, kind: str, options: str) -> None:
        """What may be a root is mounted by a child, in a mount namespace of its own: no mount here comes or goes."""
        self._start(request, descriptors, lambda: looking.look(node, kind, options))

    def start_writes(self, request: int, descriptors: Sequence[int]) -> None:
        self._start(request, descriptors, self._image.writes.report)

    def _start(self, request: int, descriptors: Sequence[int], task: process.Task, *, settles: bool = False) -> None:
        self._launch(request, functools.partial(self._answer, request), descriptors, task, settles=settles)

    def _launch(
        self,
        request: int | None,
        answer: Answer,
        descriptors: Sequence[int],
        task: process.Task,
        *,
        settles: bool = False,
    ) -> Child:
        stdout, stderr, *rest = descriptors
        child = process.start(task, stdin=rest[0] if rest else None, stdout=stdout, stderr=stderr)
        self._running[child.pid] = Running(request, answer, child, settles)
        return child

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                process.go_on(pid)
            elif pid in self._running:
                self._ended(self._running.pop(pid), os.waitstatus_to_exitcode(status))

    def _ended(self, running: Running, code: int) -> None:
        if self._visitors:
            self._visitors.ended(running.child.pid)
        try:
            value = running.child.result()
            if running.settles:
                self._disk.settle()
        except Exception as error:
            running.answer({"error": faults.encode(error)})
        else:
            running.answer({"ok": {"code": code, "value": value}})

    # ---- the loop

    def serve(self, keeper: int) -> NoReturn:
        """Answer until the caller closes, lets go, or dies, or the keeper does."""
        woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for descriptor in (self._channel.fileno(), woken, keeper):
            self._poll.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in self._poll.poll()}
            if keeper in ready:
                os._exit(_KEEPER_GONE)
            if woken in ready:
                os.read(woken, 4096)
                self._reap()
            if self._channel.fileno() in ready:
                self._serve_one()
            if self._visitors:
                for descriptor in ready:
                    self._visitors.serve(descriptor)

    def _serve_one(self) -> None:
        try:
            message, descriptors = self._channel.receive()
        except wire.ClosedError:
            os._exit(_CLOSED)  # the caller let go: the kernel cleans up
        request, operation, arguments = message["id"], message["op"], message["arguments"]
        try:
            if descriptors:
                getattr(self, f"start_{operation}")(request, descriptors, **arguments)
                return
            self._answer(request, {"ok": getattr(self, f"do_{operation}")(**arguments)})
        except Exception as error:
            self._answer(request, {"error": faults.encode(error)})
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if operation == "close":
            os._exit(_CLOSED)

    def _answer(self, request: int, answer: Message) -> None:
        try:
            self._channel.send({"id": request, **answer})
        except wire.ClosedError:
            os._exit(_CLOSED)


def main(channel: wire.Channel, keeper: int) -> NoReturn:
    """Become the holder: called in the keeper's child, PID 1 of a new PID namespace.

    :param keeper: a pidfd of the keeper, opened by itself.
    """
    # getppid() is 0 for ever in a new PID namespace and says nothing of a keeper that died before prctl; its pidfd does
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([keeper], [], [], 0)[0]:
        os._exit(_KEEPER_GONE)
    syscalls.prctl(syscalls.PR_SET_NAME, b"azchroot-holder")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o022)  # the caller's may hide /dev from the users of the image
    # A task of ours in the image is a copy of this process, with few capabilities: without this a program in the
    # image could trace it, and so open its descriptors, one of which may be a file of the build machine
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    try:
        options, (disk,) = channel.receive()
        group, allowed = options.pop("group"), options.pop("metadata_service")
        reaches_metadata = metadata.ALLOWED if allowed else metadata.deny(group)
        # only now: the keeper must not hold the mount namespace
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS)
        except OSError as error:
            raise namespaces.denied("mount, IPC and UTS", error) from error
        try:
            holder = Holder(channel, path=f"/proc/self/fd/{disk}", reaches_metadata=reaches_metadata, **options)
        except PermissionError as error:
            raise namespaces.forbidden(error) from error
    except Exception as error:
        channel.send({"id": 0, "error": faults.encode(error)})
        os._exit(_NOT_STARTED)
    landlock.keep_to_own_abstract_sockets()
    channel.send({"id": 0, "ok": holder.description()})
    holder.serve(keeper)
