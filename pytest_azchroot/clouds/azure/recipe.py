"""What an image is made by, in one number: whether a run would make what another one has made."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pytest_azchroot.clouds import Order
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.spec.model import SECRETS

_FOLLOWED_ONLY_HERE = {*SECRETS, "polling_duration_timeout", "shared_image_gallery_timeout", "skip_cleanup"}
"""Options that change nothing about the image. Whoever meets a timeout raises it, and runs again."""
_NOT_OURS = {"image.yaml", "__pycache__", ".pytest_cache", ".git"}
"""Of the file the options count, rendered; the others are made by running the tests, or by looking at them."""


def fingerprint(order: Order) -> str:
    """SHA-256 of the options of an image and of all files in its directory, hexadecimal.

    :raises AzchrootError: a file cannot be read.
    """
    try:
        return _fingerprint(order)
    except OSError as error:
        raise AzchrootError(f"{order.directory} cannot be read", why=str(error)) from error


def _fingerprint(order: Order) -> str:
    options = order.configuration.spec.model_dump_json(exclude=_FOLLOWED_ONLY_HERE)
    hasher = hashlib.sha256(options.encode())
    for path in sorted(_files(order.directory)):
        name = os.fsencode(path.relative_to(order.directory))
        content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        for part in (name, hashlib.sha256(content).digest()):
            hasher.update(len(part).to_bytes(8, "big"))
            hasher.update(part)
    return hasher.hexdigest()


def _files(directory: Path) -> Iterator[Path]:
    for entry in os.scandir(directory):
        if entry.name in _NOT_OURS or entry.name.endswith((".pyc", ".manifest.json")):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
            yield Path(entry.path)
