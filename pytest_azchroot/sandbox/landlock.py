"""Abstract sockets belong to a network namespace, and the sandbox is in that of the build machine: without a limit a
command in the image could speak to a daemon there that trusts root (CVE-2020-15257 was such a one).

Only Landlock can tell them apart. It does since Linux 6.12; an older kernel leaves them open.
"""

from __future__ import annotations

from . import syscalls

SINCE = 6
"""The version of Landlock that scopes (landlock(7))."""
_ABSTRACT_UNIX_SOCKET = 1  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET of include/uapi/linux/landlock.h


def keep_to_own_abstract_sockets() -> None:
    """From here on this process and its children connect only to abstract sockets that one of them has bound."""
    if syscalls.landlock_version() >= SINCE:
        syscalls.landlock_scope(_ABSTRACT_UNIX_SOCKET)
