"""Files that stand in the image's own tree while it is changed, and are not there when it ships.

A bind mount would be safer to take back, but over a mount neither rename nor unlink works (EBUSY): a step could not
replace ``/etc/resolv.conf`` by its own, and a package that does so would fail to install. So such a file is *put*
there. What was there is renamed beside it, in its directory: bytes, type, mode, owner and attributes cannot be lost
that way.

At the end the content decides. A regular file that holds what was lent is taken out, and what was there before is back.
Anything else (other bytes, a link, nothing) is what a step made of it on purpose, and stays. The inode does not
decide: a step that moves the file away and back, or an editor that changes nothing, has made no decision, and the name
servers of the build machine must not ship because of it.

A build that is killed meanwhile leaves both files in its disk, which is never used again.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from . import archive, inroot

InImage = Callable[[Callable[[], Any]], Any]
"""Runs a task in a child that has entered the image."""


@dataclass(frozen=True)
class Loan:
    """A file that was put into the image."""

    path: str
    """Free of links."""
    inode: int
    digest: str
    """Of its content, SHA-256."""
    aside: str | None
    """Where what was there waits."""
    made: tuple[str, ...]
    """Directories that were made for it, outermost first."""


class Loans:
    """What is lent, newest last."""

    def __init__(self, in_image: InImage) -> None:
        self._in_image = in_image
        self._held: list[Loan] = []

    def put(self, path: str, content: bytes, *, mode: int = 0o644, held: bool = True) -> None:
        """Lend a file in place of what is there.

        :param path: free of links.
        :param held: whether it is to be given back; if not, it goes with what it is in.
        """
        self._keep(self._in_image(lambda: asdict(put(path, content, mode=mode))), held=held)

    def put_new(self, path: str, content: bytes, *, mode: int, where: str) -> None:
        """Lend a file where a directory ``where`` is there, and the image has no file of its own."""
        self._keep(self._in_image(lambda: _as_dict(put_new(path, content, mode=mode, where=where))), held=True)

    def _keep(self, found: Mapping[str, Any] | None, *, held: bool) -> None:
        if found is not None and held:
            self._held.append(Loan(**{**found, "made": tuple(found["made"])}))

    def give_back(self) -> None:
        """Take out what is lent, the newest first."""
        while self._held:
            loan = self._held[-1]
            self._in_image(lambda: give_back(loan))  # noqa: B023 - called at once
            self._held.pop()

    def take_out(self) -> None:
        """Take it out of an overlay over the image, which keeps it. To be called in the image."""
        for loan in reversed(self._held):
            give_back(loan)


# ---- in the image


def put(path: str, content: bytes, *, mode: int) -> Loan:
    """Put a file in place of what is there.

    :param path: free of links but perhaps itself.
    :raises IsADirectoryError: a directory is there.
    """
    directory, name = os.path.split(path)
    made = inroot.make_directories(directory)
    aside = None
    if os.path.lexists(path):
        if os.path.isdir(path) and not os.path.islink(path):
            raise IsADirectoryError(21, "Is a directory", path)
        aside = os.path.join(directory, f".{name}.azchroot-original")
        if os.path.lexists(aside):
            raise FileExistsError(17, "File exists", aside)
        os.rename(path, aside)
    fresh = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(fresh, "wb") as file:
        file.write(content)
        os.fchmod(fresh, mode)
        inode = os.fstat(fresh).st_ino
    return Loan(path, inode, hashlib.sha256(content).hexdigest(), aside, tuple(made))


def put_new(path: str, content: bytes, *, mode: int, where: str) -> Loan | None:
    """Put a file where a directory is there, where nothing has its name and where something can be put."""
    directory = os.path.realpath(os.path.dirname(path))
    real = os.path.join(directory, os.path.basename(path))
    if os.path.lexists(real) or not os.path.isdir(directory) or not os.path.isdir(where):
        return None
    if inroot.is_read_only(directory):
        return None
    return put(real, content, mode=mode)


def give_back(loan: Loan) -> None:
    """Restore what was there, unless a step has put something else in its place."""
    if _holds(loan.path, loan.digest):
        os.unlink(loan.path)
        if loan.aside is not None:
            os.rename(loan.aside, loan.path)
    elif loan.aside is not None:
        _inherit(loan)
        os.unlink(loan.aside)
    inroot.remove_made(list(loan.made))


def _holds(path: str, digest: str) -> bool:
    with suppress(OSError), archive.open_regular(path, follow=False) as file:
        hasher = hashlib.sha256()
        while block := file.read(1 << 20):
            hasher.update(block)
        return hasher.hexdigest() == digest
    return False


def _inherit(loan: Loan) -> None:
    """A file that was written to, and not replaced, has the mode and owner that it would have had."""
    assert loan.aside is not None
    before = os.lstat(loan.aside)
    with suppress(FileNotFoundError):
        now = os.lstat(loan.path)
        if stat.S_ISREG(now.st_mode) and stat.S_ISREG(before.st_mode) and now.st_ino == loan.inode:
            os.chown(loan.path, before.st_uid, before.st_gid)
            os.chmod(loan.path, stat.S_IMODE(before.st_mode))


def _as_dict(loan: Loan | None) -> dict[str, Any] | None:
    return None if loan is None else asdict(loan)
