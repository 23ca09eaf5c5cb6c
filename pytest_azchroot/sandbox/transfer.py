"""Files in and out of the image, the build machine's side."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from pytest_azchroot.errors import SandboxError

from . import archive
from .connection import Connection
from .result import how_it_ended


class Transfers:
    """Putting files into the image that a sandbox has mounted, and getting them out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, source: Path, target: str, *, mode: int | None = None, owner: str | None = None) -> None:
        """Copy a file or a directory of the build machine into the image.

        A file becomes ``target``, or keeps its name in a directory that is there or is meant by a final ``/``; a
        directory's content is merged into ``target``. Missing parents are made (0755, root). Links of the image are
        followed, in the image. A file is replaced at once, never half written. Hard links become files; times,
        attributes and ACLs do not travel.

        :param mode: of the file; default: the source's. A directory's files keep theirs.
        :param owner: ``name``, ``name:group`` or numbers, as the image knows them; default: root.
        :raises SandboxError: something cannot be read or written, or is neither file, directory nor link.
        """
        if source.is_dir():
            if mode is not None:
                raise SandboxError(f"{source} is a directory", why="a mode is for a single file")
            with tempfile.TemporaryFile() as stream:
                _packed(source, stream)
                self._transfer("put_directory", {"target": target, "owner": owner}, stdin=stream.fileno())
            return
        with _opened(source) as file:
            own = os.fstat(file.fileno()).st_mode & 0o7777
            arguments = {"name": source.name, "mode": own if mode is None else mode, "owner": owner, "keep": False}
            self._transfer("put_file", {"target": target, **arguments}, stdin=file.fileno())

    def get(self, source: str, target: Path) -> None:
        """Copy a file or a directory of the image to the build machine, by the rules of :meth:`put`.

        Permission bits are kept but for set-uid, set-gid and sticky; the files are ours.

        :raises SandboxError: something cannot be read or written, or is neither file, directory nor link.
        """
        with tempfile.TemporaryFile() as stream:
            self._transfer("get", {"source": source}, stdout=stream.fileno())
            stream.seek(0)
            _unpacked(stream, name=os.path.basename(source.rstrip("/")), target=target)

    def write(self, target: str, data: bytes, *, mode: int | None = None, owner: str | None = None) -> None:
        """Write a file of the image, at once, never half. Missing parents are made.

        :param mode: default: that of the file that is there, else 0644.
        :param owner: default: that of the file that is there, else root.
        :raises SandboxError: it cannot be written, or is no regular file.
        """
        with tempfile.TemporaryFile() as stream:
            stream.write(data)
            stream.seek(0)
            arguments = {"name": "", "mode": mode, "owner": owner, "keep": True}
            self._transfer("put_file", {"target": target, **arguments}, stdin=stream.fileno())

    def read(self, source: str, *, limit: int | None = None) -> bytes:
        """The bytes of a file of the image, of a larger one the first ``limit``: the image decides how large it is.

        :raises SandboxError: it cannot be read, or is no regular file.
        """
        with tempfile.TemporaryFile() as stream:
            self._transfer("read", {"source": source, "limit": limit}, stdout=stream.fileno())
            stream.seek(0)
            return stream.read()

    def present(self, paths: Sequence[str]) -> list[str]:
        """Those of the paths at which the image has something, links followed. One look for all, as each is a process.

        :raises SandboxError: nobody can look.
        """
        with tempfile.TemporaryFile() as stream:
            self._transfer("present", {"paths": list(paths)}, stdout=stream.fileno())
            stream.seek(0)
            found: list[str] = json.load(stream)
            return found

    def _transfer(
        self, task: str, arguments: Mapping[str, Any], *, stdin: int | None = None, stdout: int | None = None
    ) -> None:
        code, _ = self._connection.run("files", {"task": task, **arguments}, stdin=stdin, stdout=stdout)
        if code:
            path = arguments.get("target", arguments.get("source", "what was asked for"))
            why = f"what carries it {how_it_ended(code)}; a process in the image can do that"
            raise SandboxError(f"{path} was not carried into or out of the image", why=why)

    def remove(self, target: str) -> None:
        """Remove a file of the image; it need not be there.

        :raises SandboxError: it is a directory, or cannot be removed.
        """
        self._transfer("remove", {"target": target})


def _opened(source: Path) -> BinaryIO:
    """A regular file of the build machine, for reading.

    :raises SandboxError: it cannot be opened, or is something else.
    """
    try:
        return archive.open_regular(os.fspath(source))
    except OSError as error:
        raise SandboxError(f"{source} cannot be put into the image", why=_words(error)) from error


def _packed(source: Path, stream: IO[bytes]) -> None:
    """A directory as a stream, wound back to its start.

    :raises SandboxError: something in it cannot be read.
    """
    try:
        archive.pack(os.fspath(source), cast(BinaryIO, stream))
        stream.flush()
        stream.seek(0)
    except OSError as error:
        raise SandboxError(f"{source} cannot be put into the image", why=_words(error)) from error


def _unpacked(stream: IO[bytes], *, name: str, target: Path) -> None:
    """Write what came out of the image: a file becomes the target, or keeps its name in a directory that is there; a
    directory is merged into the target.

    :raises SandboxError: it cannot be written.
    """
    single = b'"kind": "file"' in stream.readline()
    stream.seek(0)
    top = target / name if single and target.is_dir() else target
    try:
        top.parent.mkdir(parents=True, exist_ok=True)
        archive.unpack(cast(BinaryIO, stream), os.fspath(top))
    except (OSError, ValueError) as error:
        raise SandboxError(f"{top} cannot be written", why=_words(error)) from error


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)
