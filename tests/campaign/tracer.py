"""Runs a build under ptrace(2), writes down its system calls, and kills one of its processes at a given one.

strace could do most of it, but counts calls of each process from its start, so that the n-th is another one as soon as
Python loads one module more; here they are counted within a stage of the build. And it kills who makes the call, while
here it may be another.

A process of its own: it stops and reaps every process of the build, orphans included (PR_SET_CHILD_SUBREAPER), so it
knows when the last one has gone. ``python -m tests.campaign.tracer MOMENT DIRECTORY COMMAND...`` repeats one moment,
``-`` for none, and prints what happened.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from . import calls, stages
from .moments import Moment, Numbering

# include/uapi/linux/ptrace.h
_CONT, _SYSCALL = 7, 24
_SEIZE, _LISTEN, _GET_SYSCALL_INFO = 0x4206, 0x4208, 0x420E
_OPTIONS = (
    0x1  # TRACESYSGOOD
    | 0x2 | 0x4 | 0x8  # TRACEFORK, TRACEVFORK, TRACECLONE: children are traced before they do anything
    | 0x10  # TRACEEXEC
    | 0x80  # TRACESECCOMP
    | 0x100000  # EXITKILL: without us the filter answers ENOSYS to every call that it stops at
)  # fmt: skip
_EVENT_EXEC, _EVENT_SECCOMP, _EVENT_STOP = 4, 7, 128
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_WALL = 0x40000000
_INFO_SIZE = 88
_ENTRY_AT = 24  # struct ptrace_syscall_info: nr, six arguments, and ret_data of a seccomp stop
# include/uapi/linux/prctl.h
_SET_SECCOMP, _SET_CHILD_SUBREAPER = 22, 36
_AT_FDCWD = 0xFFFFFF9C

_ALARMS = 20
"""Seconds for what has been killed to end."""

_KEEPER = "pytest_azchroot.sandbox.keeper"
# Which argument is the path that comes to be, and the directory that it is relative to
_MAKING = {
    "openat(create)": (1, 0), "mkdir": (0, None), "mkdirat": (1, 0), "mknod": (0, None), "mknodat": (1, 0),
    "symlink": (1, None), "symlinkat": (2, 1), "link": (1, None), "linkat": (3, 2), "rename": (1, None),
    "renameat": (3, 2), "renameat2": (3, 2),
}  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class _ImpatienceError(Exception):
    """What has been killed does not end. No OSError, which is what becomes of asking for a process that has gone."""


@dataclasses.dataclass
class Report:
    """What became of a build."""

    code: int | None = None
    """The caller's exit code, or the negative number of a signal."""
    holder: int | None = None
    """The last holder's, in the same way."""
    reached: bool = False
    """Whether the moment came."""
    died: bool = False
    """Whether the victim died of it."""
    left: list[str] = dataclasses.field(default_factory=list)
    """Processes that were still there when patience ended."""
    rows: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    """Stage, role and kind of each call of a build that is not killed."""
    made: list[str] = dataclasses.field(default_factory=list)
    """Names that came to be in the build machine's own mount namespace."""
    loops: list[str] = dataclasses.field(default_factory=list)
    """Loop devices that it bound."""


class Tracer:
    """One build.

    :param moment: when to kill, None for never.
    """

    def __init__(self, moment: Moment | None) -> None:
        self.report = Report()
        self._moment = moment
        self._numbering = Numbering()
        self._stage = stages.BEFORE
        self._roles: dict[int, str] = {}
        """By thread group."""
        self._groups: dict[int, int] = {}
        """Thread → thread group."""
        self._awaited: int | None = None
        """The thread at the end of whose call to kill."""
        self._victim: int | None = None
        self._alarms = 0
        """How often patience has ended."""
        self._namespace = os.readlink("/proc/self/ns/mnt")

    def run(self, command: list[str], *, directory: Path, patience: float) -> Report:
        """Run a command to its end, and until all that it has started has ended.

        :param patience: seconds for all of it; then all is killed.
        """
        _libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        caller = _start(command, directory)
        self._roles[caller] = "caller"
        signal.signal(signal.SIGALRM, self._end_all)
        signal.setitimer(signal.ITIMER_REAL, patience, 1)  # and again: one just before waitpid(2) would not end it
        with suppress(_ImpatienceError):
            self._follow(caller)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return self.report

    def _end_all(self, *_: object) -> None:
        """At each alarm."""
        if self._alarms == 0:
            self.report.left = [f"{role} {_command(pid)}" for pid, role in self._roles.items()]
        self._alarms += 1
        if self._alarms > _ALARMS:
            raise _ImpatienceError
        for pid in self._roles:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _follow(self, caller: int) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                self._ended(pid, status, caller)
                continue
            try:
                self._stopped(pid, status)
            except (ProcessLookupError, FileNotFoundError):  # it has been killed where it stood; or else goes on
                with suppress(ProcessLookupError):
                    self._resume(pid)

    def _ended(self, pid: int, status: int, caller: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        if pid == caller:
            self.report.code = code
        if self._roles.get(pid) == "holder":
            self.report.holder = code
        if pid == self._victim and code == -signal.SIGKILL:
            self.report.died = True
        self._roles.pop(pid, None)
        self._groups.pop(pid, None)

    def _stopped(self, pid: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        if pid not in self._groups:
            self._appeared(pid)
        if event == _EVENT_SECCOMP:
            self._called(pid)
            return
        if number == _SYSCALL_STOP:
            if pid == self._awaited:
                self._awaited = None
                self._kill()
        elif event == _EVENT_EXEC:
            self._executed(pid)
        elif event == _EVENT_STOP:
            if number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
                _ptrace(_LISTEN, pid)
                return
        elif event == 0:
            self._resume(pid, number)
            return
        self._resume(pid)

    def _resume(self, pid: int, number: int = 0) -> None:
        _ptrace(_SYSCALL if pid == self._awaited else _CONT, pid, data=number)

    # -- who is who

    def _appeared(self, pid: int) -> None:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        self._groups[pid] = group = int(status["Tgid"])
        if group not in self._roles:
            parent = self._roles.get(int(status["PPid"]))
            self._roles[group] = "holder" if parent == "keeper" else "tool"

    def _executed(self, pid: int) -> None:
        if self._roles.get(pid) == "tool" and _KEEPER in _command(pid):
            self._roles[pid] = "keeper"

    def _pid_of(self, role: str) -> int | None:
        return next((pid for pid, each in self._roles.items() if each == role), None)

    # -- what they do

    def _called(self, pid: int) -> None:
        index, arguments = _info(pid)
        name = calls.NAMES[index]
        role = self._roles[self._groups[pid]]
        if name == calls.MARK:
            if role == "caller" and (stage := _mark(pid, arguments)) is not None:
                self._stage = stage
        elif self._groups[pid] == pid:  # threads only show progress, when it is time
            kind = calls.label(name, arguments)
            self._note(pid, kind, arguments)
            call = self._numbering.call(self._stage, role, kind)
            if self._moment is None:
                self.report.rows.append((call.stage, call.role, call.kind))
            elif call == self._moment.call:
                self._strike(pid, self._moment)
                return
        self._resume(pid)

    def _strike(self, pid: int, moment: Moment) -> None:
        self.report.reached = True
        self._victim = pid if moment.victim == "tool" else self._pid_of(moment.victim)
        if moment.when == "before":
            self._kill()
            self._resume(pid)
        elif moment.when == "during":
            self._resume(pid)
            self._kill()
        else:
            self._awaited = pid
            self._resume(pid)

    def _kill(self) -> None:
        if self._victim is not None:
            with suppress(ProcessLookupError):
                os.kill(self._victim, signal.SIGKILL)

    def _note(self, pid: int, kind: str, arguments: Sequence[int]) -> None:
        if kind == "ioctl(LOOP_CONFIGURE)":
            device = os.stat(f"/proc/{pid}/fd/{arguments[0]}").st_rdev
            self.report.loops.append(os.path.basename(os.readlink(f"/sys/dev/block/7:{os.minor(device)}")))
        elif kind in _MAKING and os.readlink(f"/proc/{pid}/ns/mnt") == self._namespace:
            path, relative = _MAKING[kind]
            start = None if relative is None else arguments[relative] & 0xFFFFFFFF
            base = f"/proc/{pid}/cwd" if start in (None, _AT_FDCWD) else f"/proc/{pid}/fd/{start}"
            self.report.made.append(os.path.join(os.readlink(base), _text(pid, arguments[path])))


def _start(command: list[str], directory: Path) -> int:
    """Start a command that stops at the calls of the filter, and trace it."""
    waiting, go = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go)
            os.chdir(directory)
            os.read(waiting, 1)
            _filter(calls.program(os.uname().machine))
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    os.close(waiting)
    _ptrace(_SEIZE, pid, data=_OPTIONS)
    os.close(go)
    return pid


def _filter(program: bytes) -> None:
    text = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text)))
    if _libc.prctl(_SET_SECCOMP, 2, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


def _ptrace(request: int, pid: int, *, data: int = 0) -> None:
    if _libc.ptrace(request, pid, None, data) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _info(pid: int) -> tuple[int, tuple[int, ...]]:
    """Which call of the filter's a process has stopped at, and its arguments."""
    info = ctypes.create_string_buffer(_INFO_SIZE)
    if _libc.ptrace(_GET_SYSCALL_INFO, pid, _INFO_SIZE, info) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _, *arguments, data = struct.unpack_from("=7QI", info, _ENTRY_AT)
    return data, tuple(arguments)


def _mark(pid: int, arguments: Sequence[int]) -> str | None:
    path = _text(pid, arguments[0 if os.uname().machine == "x86_64" else 1])
    return path.removeprefix(stages.PREFIX) if path.startswith(stages.PREFIX) else None


def _text(pid: int, address: int) -> str:
    """A string in the memory of a process."""
    found = b""
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while b"\0" not in found:
            # not over the end of a page: the next one may not be there
            more = os.pread(descriptor, 4096 - (address + len(found)) % 4096, address + len(found))
            if not more:  # who has been killed has no memory any more
                raise ProcessLookupError
            found += more
    finally:
        os.close(descriptor)
    return os.fsdecode(found.partition(b"\0")[0])


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return "?"


def main(arguments: Sequence[str]) -> None:
    moment, directory, *command = arguments
    patience = float(os.environ.get("AZCHROOT_KILL_PATIENCE", "120"))
    tracer = Tracer(None if moment == "-" else Moment.parse(moment))
    report = tracer.run(command, directory=Path(directory), patience=patience)
    print(f"\n{json.dumps(dataclasses.asdict(report))}")  # the line of a killed program may not have ended


if __name__ == "__main__":
    main(sys.argv[1:])
