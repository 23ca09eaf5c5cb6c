"""qemu-img: what is neither raw nor a fixed VHD is read and written by it.

It never probes a format (a guest can write any header to a raw disk, and then its backing file would be read), and
it gets open files, not paths: what was checked is what it reads, files without a name work, and no name can be
taken for a protocol.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from pytest_azchroot.disk import child, space
from pytest_azchroot.disk.copy import Progress, quiet
from pytest_azchroot.errors import DiskError, UnavailableError

HINT = "apt-get install qemu-utils"

_PROGRESS = re.compile(rb"\((\d+\.\d+)/100%\)")
_NO_ROOM = "No space left on device"


def available() -> bool:
    """Whether qemu-img is there."""
    return shutil.which("qemu-img") is not None


def node(driver: str, fd: int, **options: str) -> str:
    """How to name the file open at ``fd`` to qemu-img with ``--image-opts``.

    :param driver: ``raw``, ``vpc``, ``vhdx``, ``qcow2``.
    """
    settings = {"driver": driver, **options, "file.driver": "file", "file.filename": f"/proc/self/fd/{fd}"}
    return ",".join(f"{name}={value}" for name, value in settings.items())


def info(image: str, *, fd: int, name: Path) -> dict[str, Any]:
    """What ``qemu-img info`` says of a :func:`node`.

    :param name: what the user calls the file.
    :raises DiskError: qemu-img cannot read it; says its words.
    """
    done = child.run([_tool(), "info", "--output=json", "--image-opts", image], pass_fds=[fd])
    if done.returncode:
        raise DiskError(f"{name} cannot be read", why=_words(done.stderr))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def convert(
    image: str,
    *,
    source: int,
    target: int,
    target_format: str,
    directory: Path,
    doing: str,
    progress: Progress = quiet,
) -> None:
    """Convert a :func:`node` into the empty file open at ``target``.

    :param source: the file descriptor that the node names.
    :param target_format: ``raw``, ``vhdx``, ``qcow2``.
    :param directory: where the target is, for what to say when there is no room left.
    :param doing: for errors: ``converting a.qcow2``.
    :raises DiskError: qemu-img failed; says its words.
    """

    def hear(piece: bytes) -> None:
        for percent in _PROGRESS.findall(piece):
            progress(round(float(percent) * 100), 10000)

    # -S 4k: leave out runs of zeros of that length, its default, said so that it stays.
    arguments = ["convert", "-p", "-S", "4k", "-O", target_format, "--image-opts", image, f"/proc/self/fd/{target}"]
    done = child.run([_tool(), *arguments], pass_fds=[source, target], hear=hear)
    if done.returncode:
        words = _words(done.stderr)
        if _NO_ROOM in words:
            raise space.full(doing=doing, directory=directory, needed=space.allocated(source))
        raise DiskError(f"{doing} failed", why=words)


def _tool() -> str:
    path = shutil.which("qemu-img")
    if path is None:
        raise UnavailableError("qemu-img is not installed", hint=HINT)
    return path


def _words(errors: bytes) -> str:
    return errors.decode(errors="replace").strip() or "qemu-img said nothing"
