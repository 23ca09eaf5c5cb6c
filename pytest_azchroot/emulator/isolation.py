"""Nothing off this machine can be reached: above all no real metadata service.

A credential that is not told where to ask sends its token request to 169.254.169.254, and some build machines have
such a service, and an identity with rights. So tests run in a network namespace with a loopback interface and no
other. Without the privilege for one, a guard in the interpreter refuses to connect; it does not hold for programs that
a test starts.
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_azchroot.errors import UnavailableError
from pytest_azchroot.sandbox import syscalls

from .imds import ADDRESS

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_SIOCSIFFLAGS, _SIOCSIFADDR = 0x8914, 0x8916  # include/uapi/linux/sockios.h
_IFF_UP = 1

MISLEADING = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT"),
    *("MSI_ENDPOINT", "MSI_SECRET", "MSAL_FORCE_REGION"),
)
"""Variables that lead a client elsewhere than to the emulator."""


class ReachedOutError(Exception):
    """Something tried to connect to what is off this machine."""


_namespaces: list[int] = []
"""The descriptor of the one namespace, once made: what was started in it serves those who enter it later."""

_guards: list[frozenset[int]] = []
"""Of those who have the guard on: the namespaces, by inode, in which everything is allowed."""

_installed: list[bool] = []
"""Not empty once the guard is installed: there is no way to remove it."""


def misleading() -> list[str]:
    """The variables of this environment that say something about clouds and proxies."""
    return [name for name in os.environ if name in MISLEADING or name.startswith(("AZURE_", "ARM_"))]


@contextmanager
def no_way_out() -> Iterator[None]:
    """For this thread, and what it starts: loopback is all there is, with the metadata service's address on it.

    Without root it is the guard, see :func:`guarded`.

    :raises UnavailableError: root may not make namespaces here.
    """
    if os.geteuid() != 0:
        with guarded():
            yield
        return
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _namespaces:
            _enter(_namespaces[0])
        else:
            _new_namespace()
            _namespaces.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        try:
            yield
        finally:
            _enter(before)
    finally:
        os.close(before)


@contextmanager
def guarded(*, outside: bool = False) -> Iterator[None]:
    """In this interpreter, and all its threads: connecting to anything but loopback raises.

    :param outside: only of threads that are not in the namespace of :func:`no_way_out`.
    """
    if not _installed:
        sys.addaudithook(_refuse)
        _installed.append(True)
    guard = frozenset(os.fstat(each).st_ino for each in _namespaces) if outside else frozenset()
    _guards.append(guard)
    try:
        yield
    finally:
        _guards.remove(guard)


def _new_namespace() -> None:
    try:
        syscalls.unshare(CLONE_NEWNET)
    except PermissionError as error:
        what, hint = "no network namespace can be made", "CAP_SYS_ADMIN is needed, as in a privileged container"
        raise UnavailableError(what, why=error.strerror, hint=hint) from error
    _loopback_up()


def _enter(namespace: int) -> None:
    """setns(2), which Python has since 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _loopback_up() -> None:
    """Loopback, with the metadata service's address on it: requests to its default address stay here, too."""
    address = struct.pack("=HH4s8x", socket.AF_INET, 0, ipaddress.ip_address(ADDRESS).packed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
        fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s16s", b"lo:0", address))


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if not _guards or event not in ("socket.connect", "socket.sendto"):
        return
    address = arguments[1]
    if not isinstance(address, tuple) or _is_loopback(str(address[0])):
        return
    here = os.stat("/proc/thread-self/ns/net").st_ino
    if any(here not in guard for guard in _guards):
        raise ReachedOutError(f"{event} {address}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
