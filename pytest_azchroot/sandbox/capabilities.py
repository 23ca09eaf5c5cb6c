"""Which capabilities a command in the image does without, and why.

They leave the bounding set, so that no set-uid program in the image brings them back (capabilities(7)).
What packages need stays: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, SETFCAP, SYS_CHROOT,
NET_BIND_SERVICE, LINUX_IMMUTABLE, IPC_LOCK, SYS_NICE, SYS_RESOURCE, AUDIT_WRITE and the like.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator

from . import syscalls

# numbers: include/uapi/linux/capability.h
REFUSED: dict[str, tuple[int, str]] = {
    "DAC_READ_SEARCH": (2, "open_by_handle_at(2) reaches files outside the root directory"),
    "NET_ADMIN": (12, "addresses, routes and filters are the build machine's"),
    "NET_RAW": (13, "packets of all programs could be read and forged, past every filter of connections"),
    "SYS_MODULE": (16, "modules would be loaded into the build machine's kernel"),
    "SYS_RAWIO": (17, "memory and I/O ports are the build machine's"),
    "SYS_PTRACE": (19, "/proc/1/root is the build machine's file system"),
    "SYS_PACCT": (20, "process accounting is the build machine's"),
    "SYS_ADMIN": (21, "mounts, swap and namespaces would outlive or escape the sandbox"),
    "SYS_BOOT": (22, "it would restart the build machine, or load another kernel"),
    "SYS_TIME": (25, "the clock is the build machine's"),
    "SYS_TTY_CONFIG": (26, "terminals are the build machine's"),
    "MKNOD": (27, "a node gives any disk of the build machine"),
    "AUDIT_CONTROL": (30, "audit rules are the build machine's"),
    "MAC_OVERRIDE": (32, "the security policy is the build machine's"),
    "MAC_ADMIN": (33, "the security policy is the build machine's"),
    "SYSLOG": (34, "kernel messages and addresses are the build machine's"),
    "WAKE_ALARM": (35, "it would wake the build machine"),
    "BLOCK_SUSPEND": (36, "it would keep the build machine awake"),
    "AUDIT_READ": (37, "the audit log is the build machine's"),
    "PERFMON": (38, "performance events show other processes of the build machine"),
    "BPF": (39, "programs would run in the build machine's kernel"),
    "CHECKPOINT_RESTORE": (40, "it chooses PIDs and reads /proc/PID/map_files of others"),
}

NEEDED: dict[str, tuple[int, str]] = {
    "CHOWN": (0, "to give files their owners"),
    "DAC_OVERRIDE": (1, "to read and write the image's files"),
    "SYS_CHROOT": (18, "to enter the image"),
    "SYS_ADMIN": (21, "to make namespaces, mount file systems and set up loop devices"),
    "MKNOD": (27, "to make the nodes of the image's own /dev"),
}
"""What the sandbox itself needs."""


_FILES = (0, 1, 3, 4)  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID


def _mask(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)


def keep_for_files() -> None:
    """Keep only what it takes to write files, for good.

    A task of ours in the image follows the image's links, and one may name /proc/1/root. The kernel lets a process
    look through that only if it can trace PID 1: if it has every capability that PID 1 has (ptrace(2), "Ptrace access
    mode checking").
    """
    syscalls.capset(effective=_mask(_FILES), permitted=_mask(_FILES))


@contextlib.contextmanager
def only_for_files() -> Iterator[None]:
    """Do without the others for a moment."""
    effective, permitted = syscalls.capget()
    syscalls.capset(effective=effective & _mask(_FILES), permitted=permitted)
    try:
        yield
    finally:
        syscalls.capset(effective=effective, permitted=permitted)


def missing(effective: int) -> list[str]:
    """The capabilities that the sandbox needs and this set (``CapEff`` of /proc/self/status) has not."""
    return [f"CAP_{name} ({why})" for name, (number, why) in NEEDED.items() if not effective >> number & 1]


def drop(last: int, *, given_back: Collection[str] = ()) -> None:
    """Take the refused capabilities out of the bounding set of this process: nothing it executes has them.

    :param last: the highest number this kernel knows (/proc/sys/kernel/cap_last_cap).
    :param given_back: names of those that stay.
    """
    for number in _refused(given_back):
        if number <= last:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)


def renounce(*, given_back: Collection[str] = ()) -> None:
    """Give the refused capabilities up now, before a program is executed: its path and its directory are the image's,
    and with them a link to /proc/1/root would be followed."""
    _, permitted = syscalls.capget()
    kept = permitted & ~_mask(_refused(given_back))
    syscalls.capset(effective=kept, permitted=kept)


def _refused(given_back: Collection[str]) -> list[int]:
    return [number for name, (number, _) in REFUSED.items() if name not in given_back]


def last_known() -> int:
    """The highest capability of this kernel."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())
