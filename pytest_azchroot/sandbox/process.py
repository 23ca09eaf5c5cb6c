"""Children of the holder: how they start, what they report, which processes belong to them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_azchroot.errors import SandboxError

from . import faults
from .result import Process

Task = Callable[[], Any]

_PATIENCE = 2.0
"""Seconds between TERM and KILL."""
_HOPELESS = 10.0
"""Seconds after KILL: a process that is still there waits in the kernel, for a device that does not answer."""
_POLL = 0.005


@dataclass(frozen=True)
class Child:
    """A running child and the pipe in which it says what went wrong, or what came out."""

    pid: int
    report: int
    before: frozenset[int] = field(repr=False)
    """PIDs that existed when it started."""

    def result(self) -> Any:
        """What the task returned; None for a program. Call it after the child has ended.

        :raises AzchrootError: what the task raised.
        """
        with open(self.report, "rb") as file:
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
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        code = 127
        try:
            _settle_in(stdin, stdout, stderr)
            _close_others(writing)
            os.write(writing, json.dumps({"value": task()}).encode())
            code = 0
        except BaseException as error:  # nothing may return into the holder's loop
            os.write(writing, json.dumps({"error": faults.encode(error)}).encode())
        finally:
            os._exit(code)
    os.close(writing)
    return Child(pid, reading, before)


def call(task: Task, *, stdin: int | None = None) -> Any:
    """Run a short task in a child, wait, and return what it returned; raises what it raised."""
    child = start(task, stdin=stdin)
    os.waitpid(child.pid, 0)
    return child.result()


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
            return line
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"[{file.read().strip()}]"
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
