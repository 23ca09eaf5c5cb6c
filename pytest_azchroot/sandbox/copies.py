"""Files of the build machine that the image is lent at the same paths (``copy_files``). Runs in the holder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pytest_azchroot.errors import SandboxError

from . import inroot


class Copies:
    """What has been copied, newest last. The image's own files wait beside it."""

    def __init__(self, in_image: Callable[..., Any]) -> None:
        """:param in_image: runs a task in a child that has entered the image, with a descriptor as ``stdin``."""
        self._in_image = in_image
        self._copied: dict[str, inroot.Copied] = {}

    def add(self, path: str) -> None:
        """Copy a file, once.

        :raises SandboxError: it is missing, or no regular file.
        """
        if path in self._copied:
            return
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SandboxError(f"{path} cannot be copied into the image", why=error.strerror) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SandboxError(f"{path} cannot be copied into the image", why="it is not a regular file")
            mode = stat.S_IMODE(status.st_mode)
            found = self._in_image(lambda: asdict(inroot.copy_in(0, path, mode=mode)), stdin=descriptor)
        finally:
            os.close(descriptor)
        self._copied[path] = inroot.Copied(found["path"], found["aside"], tuple(found["made"]))

    def give_back(self) -> None:
        """Take all out again."""
        while self._copied:
            path, copied = next(reversed(self._copied.items()))
            self._in_image(lambda: inroot.give_back(copied))  # noqa: B023 - called at once
            del self._copied[path]

    def take_out(self) -> None:
        """Take all out of an overlay over the image, which keeps it. To be called in the image."""
        for copied in reversed(self._copied.values()):
            inroot.give_back(copied)
