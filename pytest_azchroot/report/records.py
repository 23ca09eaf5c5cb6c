"""Where manifests are written: beside every file that was published, and where the user asked for them.

A file ``web.vhd`` has its manifest in ``web.vhd.manifest.json``, so that several images may publish into one
directory. The user's directory has one of each image, ``DIR/<image>/manifest.json``, also of those that were not
published. A manifest is written whole or not at all.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from pytest_azchroot import __version__
from pytest_azchroot.clouds import Artifact
from pytest_azchroot.disk.outputs import MANIFEST
from pytest_azchroot.disk.partial import partial
from pytest_azchroot.report.result import ImageResult

NAME = "manifest.json"


def beside(artifacts: Iterable[Artifact]) -> Iterator[Path]:
    """The manifests of those artifacts that are files."""
    for artifact in artifacts:
        if os.path.isabs(artifact.id) and os.path.isfile(artifact.id):
            yield Path(artifact.id + MANIFEST)


def place(output: Path, image: str) -> Path:
    """The manifest of an image in the user's directory."""
    return output / image / NAME


@contextmanager
def superseding(files: Iterable[Path]) -> Iterator[None]:
    """What happens inside may replace these files. The manifests of those that it did are removed: they speak of
    others. So a file never has the manifest of another, even if not all could be replaced, or nobody lives to write
    the new one.
    """
    before = {file: _identity(file) for file in files}
    try:
        yield
    finally:
        for file, identity in before.items():
            if _identity(file) != identity:
                with suppress(OSError):  # the new manifest cannot be written then either, and that is reported
                    os.unlink(f"{file}{MANIFEST}")


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        state = file.lstat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def record(result: ImageResult, *, output: Path | None, mask: Callable[[str], str]) -> ImageResult:
    """Write the manifest of an image to all its places.

    It undoes nothing: what cannot be written is one of the problems of the result.

    :param output: the user's directory for manifests, if there is one; it is made.
    :param mask: takes secrets out of a text.
    :returns: the result, with the manifests that were written.
    """
    written: list[Path] = []
    problems: list[str] = []
    places = [*beside(result.artifacts), *([] if output is None else [place(output, result.name)])]
    if not places:
        return result
    from pytest_azchroot.report.manifest import manifest  # noqa: PLC0415 - slow to load, and not always wanted

    try:
        content = manifest(result, versions=_versions(), mask=mask)
    except ValueError as error:  # a cloud of a stranger may have made artifacts of any kind
        return replace(result, problems=(*result.problems, f"no manifest was written: {error}"))
    for path in places:
        try:
            _write(content, path)
            written.append(path)
        except OSError as error:
            problems.append(f"the manifest {path} was not written: {error.strerror or error}")
    return replace(result, manifests=tuple(written), problems=(*result.problems, *problems))


def _write(content: dict[str, Any], path: Path) -> None:
    if path.name == NAME:
        path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with partial(path.parent, path.name) as file:
        with open(file.fd, "w", encoding="utf-8", closefd=False) as stream:
            stream.write(text)
        file.publish(path.name, overwrite=True)


def _versions() -> dict[str, str]:
    return {
        "pytest_azchroot": __version__,
        "pytest": metadata.version("pytest"),
        "python": platform.python_version(),
    }
