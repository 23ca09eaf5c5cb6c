"""Entering the image: its file system becomes the root, the build machine's is not there any more."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Set

from pytest_azchroot.errors import UnavailableError

from . import layout, mounts, syscalls

_PRIVILEGES = (
    "run as root of the machine, not of a user namespace; in a container: --privileged, or --cap-add SYS_ADMIN and "
    "MKNOD with seccomp and AppArmor profiles that allow unshare and mount"
)


def make_private() -> None:
    """From here on no mount of ours is seen outside and none from outside arrives."""
    syscalls.mount(None, "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)


def enter(root: str, *, nodes: bool = False, hidden: Collection[str] = ()) -> None:
    """Move this process into the image, in a mount namespace of its own.

    pivot_root instead of chroot: a process with CAP_SYS_CHROOT walks out of a chroot, but not out of a namespace
    from which the old root is detached (pivot_root(2), "pivot_root(".", ".")").

    :param nodes: whether device nodes open that are in the image itself. An image may bring one of any disk of the
        build machine.
    :param hidden: types of file systems that are not there, even if they have been lent.
    """
    known = {os.stat(directory).st_dev for directory in (layout.DEV, layout.HOST_DEV)}
    syscalls.unshare(syscalls.CLONE_NEWNS)
    make_private()
    _unmount(root, hidden)
    # pivot_root wants a mount point, and a mount by hand need not have made the path one
    syscalls.bind(root, root, recursive=True)
    os.chdir(root)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".", lazily=True)
    os.chdir("/")
    if not nodes:
        _only_lent_nodes(known)


def _unmount(root: str, types: Collection[str]) -> None:
    """Detach what is mounted in the image, in this namespace."""
    for mount in reversed(mounts.current() if types else []):
        if mount.type in types and mount.within(root):
            syscalls.umount(mount.point, lazily=True)


def _only_lent_nodes(known: Set[int]) -> None:
    """Open no device but those of a /dev that was lent.

    :param known: the ``st_dev`` of what may be lent as /dev.
    """
    with _opened("/") as top:
        syscalls.change_mounts(top, set=syscalls.MOUNT_ATTR_NODEV)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), _opened("/dev") as dev:
        # the image decides where this leads, and a link may be swapped meanwhile: look at what has been opened
        if os.fstat(dev).st_dev in known:
            syscalls.change_mounts(dev, clear=syscalls.MOUNT_ATTR_NODEV)


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[int]:
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def denied(which: str, error: OSError) -> UnavailableError:
    """The error for a refused unshare(2)."""
    return UnavailableError(f"{which} namespaces cannot be made", why=error.strerror, hint=_PRIVILEGES)


def forbidden(error: OSError) -> UnavailableError:
    """The error for a sandbox whose mounts, nodes or loop device were refused."""
    return UnavailableError("the sandbox cannot be set up", why=str(error), hint=_PRIVILEGES)
