"""Entering the image: its file system becomes the root, the build machine's is not there any more."""

from __future__ import annotations

import os

from pytest_azchroot.errors import UnavailableError

from . import syscalls

_PRIVILEGES = (
    "run as root of the machine, not of a user namespace; in a container: --privileged, or --cap-add SYS_ADMIN and "
    "MKNOD with seccomp and AppArmor profiles that allow unshare and mount"
)


def make_private() -> None:
    """From here on no mount of ours is seen outside and none from outside arrives."""
    syscalls.mount(None, "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)


def enter(root: str) -> None:
    """Move this process into the image, in a mount namespace of its own.

    pivot_root instead of chroot: a process with CAP_SYS_CHROOT walks out of a chroot, but not out of a namespace
    from which the old root is detached (pivot_root(2), "pivot_root(".", ".")").
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    make_private()
    # pivot_root wants a mount point, and a mount by hand need not have made the path one
    syscalls.bind(root, root, recursive=True)
    os.chdir(root)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".", lazily=True)
    os.chdir("/")


def denied(which: str, error: OSError) -> UnavailableError:
    """The error for a refused unshare(2)."""
    return UnavailableError(f"{which} namespaces cannot be made", why=error.strerror, hint=_PRIVILEGES)


def forbidden(error: OSError) -> UnavailableError:
    """The error for a sandbox whose mounts, nodes or loop device were refused."""
    return UnavailableError("the sandbox cannot be set up", why=str(error), hint=_PRIVILEGES)
