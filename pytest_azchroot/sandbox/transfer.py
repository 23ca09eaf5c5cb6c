"""The build machine's side of files in and out: errors in words, and where a copy goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, BinaryIO, cast

from pytest_azchroot.errors import SandboxError

from . import archive


def opened(source: Path) -> BinaryIO:
    """A regular file of the build machine, for reading.

    :raises SandboxError: it cannot be opened, or is something else.
    """
    try:
        return archive.open_regular(os.fspath(source))
    except OSError as error:
        raise SandboxError(f"{source} cannot be put into the image", why=_words(error)) from error


def packed(source: Path, stream: IO[bytes]) -> None:
    """A directory as a stream, wound back to its start.

    :raises SandboxError: something in it cannot be read.
    """
    try:
        archive.pack(os.fspath(source), cast(BinaryIO, stream))
        stream.flush()
        stream.seek(0)
    except OSError as error:
        raise SandboxError(f"{source} cannot be put into the image", why=_words(error)) from error


def unpacked(stream: IO[bytes], *, name: str, target: Path) -> None:
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
