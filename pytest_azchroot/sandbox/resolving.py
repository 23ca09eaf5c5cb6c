"""Name resolution for commands in the image: the build machine's ``/etc/resolv.conf``, lent (see :mod:`.loans`).

=====================================  ============================================================================
the image's ``/etc/resolv.conf`` is    what is lent
=====================================  ============================================================================
absent, a file, a looping link         a file in its place
a link                                 a file in place of what it leads to, in the image; the link is not touched
a link into a directory of the         nothing: what is there is the build machine's own
build machine (``chroot_mounts``)
on a file system mounted read-only     the file, bound over what is there; nothing where nothing is
=====================================  ============================================================================

Most links lead to systemd-resolved's files in /run, which is the sandbox's own. They are there too if the image does
not lead to them yet: a package that makes such a link, as systemd-resolved does when it is installed, must not cut the
steps behind it off.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from . import inroot

PATH = "/etc/resolv.conf"
STUBS = ("/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf")


def of_the_build_machine() -> bytes:
    """Its name servers; nothing where it has none."""
    try:
        with open(PATH, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


@dataclass(frozen=True)
class Place:
    """Where the file is to be put."""

    path: str
    """Free of links."""
    read_only: bool
    """Nothing can be put there, nor can a step replace it: it is bound over what is there."""


def place() -> Place:
    """To be called in the image."""
    real = os.path.realpath(PATH)
    # of a link that ends in a loop, or below something that is no directory, nothing can be opened
    path = _itself() if os.path.islink(real) or not _can_be_made(real) else real
    return Place(path, inroot.is_read_only(os.path.dirname(path)))


def _itself() -> str:
    return os.path.join(os.path.realpath(os.path.dirname(PATH)), os.path.basename(PATH))


def _can_be_made(path: str) -> bool:
    while not os.path.lexists(path):
        path = os.path.dirname(path)
        if os.path.lexists(path):
            return os.path.isdir(path)
    return not os.path.isdir(path)
