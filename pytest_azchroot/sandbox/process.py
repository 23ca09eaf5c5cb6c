"""Children of the holder: how they start, what they report, which processes belong to them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.printable import printable

from . import faults
from .result import Process, how_it_ended

Task = Callable[[], Any]

_PATIENCE = 2.0
"""Seconds between TERM and KILL."""
_HOPELESS = 10.0
"""Seconds after KILL: a process that is still there waits in the kernel, for a device that does not answer."""
_POLL = 0.005
_CALL_PATIENCE = 300.0
"""Seconds for a task that the holder waits for. Most take milliseconds, the longest copies a file of the build machine;
but a process in the image can stop it, or have a lease on a file that it opens."""
_WAKE = 0.05


@dataclass(frozen=True)
class Child:
    """A running child and the file in which it says what went wrong, or what came out."""

    pid: int
    report: int
    before: frozenset[int] = field(repr=False)
    """PIDs that existed when it started."""

    def result(self) -> Any:
        """What the task returned; None for a program. Call it after the child has ended.

        :raises AzchrootError: what the task raised.
        """
        with open(self.report, "rb") as file:
            file.seek(0)
            text = file.read()
        message = json.loads(text) if text else {}
        if "error" in message:
            raise faults.decode(message["error"])
        return message.get("value")


def start(task: Task, *, stdin: int | None = None, stdout: int | None = None, stderr: int | None = None) -> Child:
    """Fork and run a task, which returns something that JSON can say, or becomes another program by exec.

    The child has a session of its own, default signals, ``/dev/null`` where no descriptor is given, and no other
    descriptor of the holder. A task that works in the image and runs no program would keep them: a link in the image
    to ``/proc/self/fd/9/..`` would then lead to the build machine by whatever directory the holder has open.
    """
    before = frozenset(pids())
    # no pipe: nobody reads before the child has ended, and how much it has to say may be the image's choice
    report = os.memfd_create("report", os.MFD_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        code = 127
        try:
            _settle_in(stdin, stdout, stderr)
            _close_others(report)
            _say(report, {"value": task()})
            code = 0
        except BaseException as error:  # nothing may return into the holder's loop
            _say(report, {"error": faults.encode(error)})
        finally:
            os._exit(code)
    return Child(pid, report, before)


def _say(report: int, message: Mapping[str, Any]) -> None:
    with open(report, "wb", closefd=False) as file:
        file.write(json.dumps(message).encode())


def call(task: Task, *, stdin: int | None = None) -> Any:
    """Run a short task in a child, wait, and return what it returned; raises what it raised.

    :raises SandboxError: also if somebody has killed it, or it does not end.
    """
    child = start(task, stdin=stdin)
    code = _wait(child.pid)
    value = child.result()
    if code != 0:
        raise SandboxError("a task in the image was not carried out", why=f"it {how_it_ended(code)}")
    return value


def _wait(pid: int) -> int:
    """Wait for a task, and keep it going: a process in the image may stop it.

    :return: its exit code.
    :raises SandboxError: it does not end.
    """
    ended, poll, begun = os.pidfd_open(pid), select.poll(), time.monotonic()
    poll.register(ended, select.POLLIN)
    try:
        while not poll.poll(_WAKE * 1000):
            waited = time.monotonic() - begun
            _signal([pid], signal.SIGCONT if waited < _CALL_PATIENCE else signal.SIGKILL)
            if waited > _CALL_PATIENCE + _HOPELESS:
                raise SandboxError(f"a task in the image does not end (PID {pid})", why="it waits in the kernel")
    finally:
        os.close(ended)
    _, status = os.waitpid(pid, 0)
    if time.monotonic() - begun > _CALL_PATIENCE:
        why = f"it took more than {_CALL_PATIENCE:.0f} seconds: a process in the image stops it, or holds a file"
        raise SandboxError("a task in the image was ended", why=why)
    return os.waitstatus_to_exitcode(status)


def _settle_in(stdin: int | None, stdout: int | None, stderr: int | None) -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):  # the C library keeps some for itself
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for target, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(null if descriptor is None else descriptor, target)


def _close_others(kept: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            with contextlib.suppress(OSError):  # the list's own
                os.close(int(name))


# ---- the processes of this PID namespace; /proc is its own, so the list is exact


def pids() -> list[int]:
    """Every process but the holder."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal() and entry != "1"]


def go_on(pid: int) -> None:
    """Continue what has been stopped while it runs code of ours: a process in the image has done that, and nobody waits
    with it. A program that was stopped may have been by a person who looks at it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if _name(pid) == _name(1):
            os.kill(pid, signal.SIGCONT)


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()


def survivors(running: Iterable[int] = ()) -> list[Process]:
    """Processes that no running command accounts for. Zombies do not count: they are only waiting for us."""
    known = set(running)
    return shown(pid for pid in pids() if pid not in known)


def shown(pids: Iterable[int]) -> list[Process]:
    """Those of these that have not ended, with their commands."""
    alive = _alive()
    return [Process(pid, _shown(pid)) for pid in pids if pid in alive]


def _alive() -> dict[int, int]:
    """Every process that is no zombie, and its parent."""
    states = {pid: _state(pid) for pid in pids()}
    return {pid: state[1] for pid, state in states.items() if state is not None and state[0] not in "ZX"}


def _state(pid: int) -> tuple[str, int] | None:
    """State letter and parent, None for a process that has gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            after = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return after[0], int(after[1])


def _shown(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            line = file.read().replace("\0", " ").strip()
        if line:
            return printable(line)
        return f"[{printable(_name(pid))}]"
    except (FileNotFoundError, ProcessLookupError):
        return "?"


def tree(child: Child, *, others: Iterable[int] = ()) -> list[int]:
    """The child, what descends from it, and what was orphaned since it started: a process that detached itself has
    the holder as its parent.

    :param others: more children of the holder.
    """
    parents = _alive()
    known = {*child.before, *others}
    orphans = {pid for pid, parent in parents.items() if parent == 1 and pid not in known}
    return _with_descendants({child.pid} & parents.keys() | orphans, parents)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    parents = _alive()
    return _with_descendants({pid} & parents.keys(), parents)


def below(pid: int) -> list[int]:
    """The descendants of a process."""
    return [each for each in family(pid) if each != pid]


def _with_descendants(found: set[int], parents: Mapping[int, int]) -> list[int]:
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found = found | more
    return sorted(found)


def end(
    remaining: Callable[[], list[int]], reap: Callable[[], None], *, first: signal.Signals = signal.SIGTERM
) -> None:
    """TERM, two seconds, KILL, until none remains.

    :param remaining: the processes that are to end and have not.
    :param reap: collects what has ended.
    :param first: a signal before TERM.
    :raises SandboxError: KILL did not help.
    """
    _signal(remaining(), *dict.fromkeys((first, signal.SIGTERM)), signal.SIGCONT)
    asked = time.monotonic()
    while left := remaining():
        waited = time.monotonic() - asked
        if waited > _PATIENCE:
            _signal(left, signal.SIGKILL)
        if waited > _HOPELESS:
            names = ", ".join(f"{pid} ({_shown(pid)})" for pid in left)
            raise SandboxError(f"processes do not end: {names}", why="they wait in the kernel, for a device perhaps")
        time.sleep(_POLL)
        reap()


def _signal(targets: Iterable[int], *signals: signal.Signals) -> None:
    for pid in targets:
        with contextlib.suppress(ProcessLookupError):
            for each in signals:
                os.kill(pid, each)
