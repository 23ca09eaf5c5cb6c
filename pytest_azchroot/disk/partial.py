"""A file that is not finished: it has no name, so that nothing is left of it when the build dies.

``open(2)`` with O_TMPFILE makes a file without a name in the directory where it shall appear. Others open it by
``/proc/PID/fd/N``. Whatever ends the build, kill -9 included, the kernel frees the file with its last user (a loop
device counts as one). When it is finished and synced, ``linkat(2)`` gives it its final name, which fails if that
exists: there is no moment at which the name belongs to an unfinished file, and no check that another program could
get ahead of.

To replace an existing file it is linked under a temporary name and then renamed over it, which is atomic. Where the
file system has no O_TMPFILE (NFS, FAT, some FUSE and older overlay), the file is ``.NAME.RANDOM.partial`` and held
by ``flock(2)``: a lock ends with its holder, so such a file without one was left by a dead build, and the next build
of the same output removes it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_azchroot.leaving import afterwards

_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
"""open(2): EOPNOTSUPP from the file system; EISDIR from what does not know the flag (old kernels, some FUSE)."""
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""link(2): EPERM where the file system has no hard links."""
_RENAME_NOREPLACE = 1
_MODE = 0o666
"""Less the umask, as any program's output."""


class Partial:
    """An unfinished file in ``directory``; make one by :func:`partial`."""

    def __init__(self, directory: Path, name: str, *, fd: int, directory_fd: int, temporary: str | None) -> None:
        self.directory = directory
        self.name = name
        self.fd = fd
        """Open for reading and writing."""
        self._directory_fd = directory_fd
        self._temporary = temporary
        self._process = os.getpid()

    @property
    def path(self) -> Path:
        """Where other processes of this user can open the file. Valid while it is held here."""
        return Path(f"/proc/{self._process}/fd/{self.fd}")

    def publish(self, name: str, *, overwrite: bool = False) -> None:
        """Sync the file and give it ``name`` in its directory; sync that.

        :raises FileExistsError: the name is taken and ``overwrite`` is not set.
        :raises OSError: as the system says.
        """
        os.fsync(self.fd)
        if overwrite:
            self._replace(name)
        else:
            self._link(name)
        os.fsync(self._directory_fd)

    def withdraw(self, name: str) -> None:
        """Take the name away again, if it is this file's. The file may be published once more."""
        if self.has(name):
            # Not unlinked: a file that has had a name cannot get one again after it lost its last (vfs_link).
            self._temporary = _temporary_name(self.name)
            os.rename(name, self._temporary, src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)
            os.fsync(self._directory_fd)

    def has(self, name: str) -> bool:
        """Whether ``name`` in the directory is this file."""
        try:
            return _identity(os.stat(name, dir_fd=self._directory_fd, follow_symlinks=False)) == self.identity
        except FileNotFoundError:
            return False

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return _identity(os.fstat(self.fd))

    def _link(self, name: str) -> None:
        if self._temporary is None:
            self._link_open_file(name)
            return
        try:
            os.link(self._temporary, name, src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            rename_noreplace(self._temporary, name, directory_fd=self._directory_fd)
        else:
            os.unlink(self._temporary, dir_fd=self._directory_fd)
        self._temporary = None

    def _link_open_file(self, name: str) -> None:
        # AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH; following /proc/self/fd does not (open(2), O_TMPFILE).
        # With no dir_fd Python would call link(2), which does not follow.
        os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=self._directory_fd, follow_symlinks=True)

    def _replace(self, name: str) -> None:
        if self._temporary is None:
            self._temporary = _temporary_name(name)
            self._link_open_file(self._temporary)
        # If this fails the file keeps its temporary name, until it is closed.
        os.rename(self._temporary, name, src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)
        self._temporary = None

    def _close(self) -> None:
        try:
            if self._temporary is not None:
                with suppress(FileNotFoundError):
                    os.unlink(self._temporary, dir_fd=self._directory_fd)
        finally:
            os.close(self.fd)


@contextmanager
def partial(directory: Path, name: str, *, unnamed: bool = True) -> Iterator[Partial]:
    """An empty file that shall become ``name`` in ``directory``. It vanishes on exit unless it was published.

    What dead builds left of the same name is removed first.

    :param unnamed: False to not even try O_TMPFILE.
    :raises OSError: as the system says.
    """
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_stale(directory, name)
        temporary = None
        fd = _open_unnamed(directory_fd) if unnamed else None
        if fd is None:
            temporary = _temporary_name(name)
            fd = _open_named(temporary, directory_fd)
        made = Partial(directory, name, fd=fd, directory_fd=directory_fd, temporary=temporary)
        with afterwards(made._close):
            yield made
    finally:
        os.close(directory_fd)


def remove_stale(directory: Path, name: str) -> list[Path]:
    """Remove what dead builds left of ``name`` in ``directory``; says what it was."""
    pattern = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.partial")
    return [path for path in sorted(directory.iterdir()) if pattern.fullmatch(path.name) and _remove_if_stale(path)]


def rename_noreplace(old: str, new: str, *, directory_fd: int) -> None:
    """Rename within a directory unless ``new`` exists: renameat2(2), for file systems without hard links (FAT).

    :raises OSError: EEXIST; EINVAL where the file system cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(directory_fd, os.fsencode(old), directory_fd, os.fsencode(new), _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), new)


def _open_unnamed(directory_fd: int) -> int | None:
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _MODE, dir_fd=directory_fd)
    except OSError as error:
        if error.errno in _NO_TMPFILE:
            return None
        raise
    # Held also while unnamed: replacing a file gives it a temporary name for a moment.
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _open_named(name: str, directory_fd: int) -> int:
    while True:
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, _MODE, dir_fd=directory_fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        # Before the lock it looked stale to another build, which may have removed it.
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


def _remove_if_stale(path: Path) -> bool:
    try:
        # For writing: NFS makes a flock of a record lock, which needs it.
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)


def _temporary_name(name: str) -> str:
    return f".{name}.{secrets.token_hex(8)}.partial"


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino
