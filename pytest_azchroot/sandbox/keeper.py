"""The keeper: a process of its own between the caller and the holder, which holds nothing.

The caller executes it, so that nothing is forked or unshared in a process with threads. It watches a pidfd of the
caller, which the caller opened itself: there is no moment at which the caller's death is missed. The holder dies with
the keeper (PDEATHSIG), and the keeper ends the holder when the caller is gone.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from typing import NoReturn

from pytest_azchroot.sandbox import cgroup, faults, holder, namespaces, syscalls, wire

_NOT_STARTED = 4


def main() -> NoReturn:
    """``keeper SOCKET CALLER GROUP``: two descriptors, and the path of the control group to be removed, or nothing."""
    end, caller, group = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the caller may have blocked some
    plain = socket.socket(fileno=end)
    plain.set_inheritable(False)
    os.set_inheritable(caller, False)
    channel = wire.Channel(plain)
    myself = os.pidfd_open(os.getpid())
    syscalls.prctl(syscalls.PR_SET_NAME, b"azchroot-keeper")
    try:
        syscalls.unshare(syscalls.CLONE_NEWPID)  # for our child, not for us
    except OSError as error:
        channel.send({"id": 0, "error": faults.encode(namespaces.denied("PID", error))})
        sys.exit(_NOT_STARTED)
    pid = os.fork()
    if pid == 0:
        os.close(caller)
        holder.main(channel, myself)
    channel.close()  # else the caller would not read the end of the holder
    _watch(caller, pid, group)


def _watch(caller: int, pid: int, group: str) -> NoReturn:
    child = os.pidfd_open(pid)
    while True:
        ready, _, _ = select.select([caller, child], [], [])
        if child not in ready:
            os.kill(pid, signal.SIGKILL)
            select.select([child], [], [])
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if group:
            cgroup.remove(group)
        os._exit(code if code >= 0 else 128 - code)
