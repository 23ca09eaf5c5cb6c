"""From the working disk to the files that image.yaml asks for, all of them or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_azchroot.disk import qemu, space, vhd
from pytest_azchroot.disk.copy import Progress, copy, quiet
from pytest_azchroot.disk.partial import Partial, partial
from pytest_azchroot.errors import AzchrootError, DiskError, PublishError, recast
from pytest_azchroot.leaving import Leaving, attached_to

PLAIN = frozenset({"raw", "vhd"})
"""Kinds that the working disk itself can become, in place."""
KINDS = frozenset({"raw", "vhd", "vhdx", "qcow2"})
OVERWRITE = "--azchroot-overwrite"
MANIFEST = ".manifest.json"
"""What a file's name ends with that stands beside an output and speaks of it: :mod:`pytest_azchroot.report.records`."""


@dataclass(frozen=True)
class Output:
    """A file to publish."""

    path: Path
    """Absolute; its directory without symbolic links, itself not followed."""
    kind: str
    """One of :data:`KINDS`."""


def output(directory: Path, name: str) -> Output:
    """An output of image.yaml: a path, relative to ``directory``, whose suffix says the kind.

    :raises DiskError: the suffix is unknown.
    """
    path = directory / name
    kind = path.suffix.lower()[1:]
    if kind not in KINDS:
        raise DiskError(
            f"output {name} has the suffix {path.suffix or 'of no format'}",
            hint="one of " + ", ".join(f".{each}" for each in sorted(KINDS)),
        )
    return Output(path=path.parent.resolve() / path.name, kind=kind)


def home(outputs: Sequence[Output]) -> Output | None:
    """The output beside which the working disk is made: one that it can become in place, if there is any."""
    return next((each for each in outputs if each.kind in PLAIN), outputs[0] if outputs else None)


def taken(outputs: Sequence[Output]) -> list[str]:
    """The outputs whose names exist, or that are named twice, a sentence each."""
    problems = [
        f"output {each.path} is a directory"
        if each.path.is_dir() and not each.path.is_symlink()
        else f"output {each.path} exists; {OVERWRITE} replaces it"
        for each in outputs
        if os.path.lexists(each.path)
    ]
    paths = [each.path for each in outputs]
    return problems + [f"output {path} is named twice" for path in dict.fromkeys(paths) if paths.count(path) > 1]


def publish(
    working: Partial, outputs: Sequence[Output], *, size: int, overwrite: bool = False, progress: Progress = quiet
) -> None:
    """Make all outputs of the working disk of ``size`` bytes, then give them their names.

    The working disk itself becomes an output where it can; the others are copies and conversions. Nothing gets a
    name before everything is complete. If a name cannot be given, those given before are taken away again, except
    where they replaced a file: what they replaced is gone, so they stay, complete as they are, and the error names
    them.

    Afterwards the working disk is as it was, if publishing failed, and may be published again.

    :raises PublishError: nothing was published, or what it says.
    """
    if not overwrite and (problems := taken(outputs)):
        raise PublishError("nothing was published", why="; ".join(problems))
    itself = next((each for each in outputs if each.kind in PLAIN and each.path.parent == working.directory), None)
    try:
        with Leaving() as stack:
            made = [
                (each, working if each is itself else _made(stack, working, each, size=size, progress=progress))
                for each in outputs
            ]
            if itself is not None and itself.kind == "vhd":
                _append_footer(working, itself, size=size)
            _give_names(made, overwrite=overwrite)
    except BaseException as error:
        # An interrupt may come when all is done: a file that has its name is complete, and stays so.
        if itself is None or not working.has(itself.path.name):
            with attached_to(error):
                vhd.remove_footer(working.fd, size=size)
        if isinstance(error, AzchrootError) and not isinstance(error, PublishError):
            raise recast(error, PublishError).with_traceback(error.__traceback__) from error.__cause__
        raise


def _made(stack: Leaving, working: Partial, wanted: Output, *, size: int, progress: Progress) -> Partial:
    """A complete but unnamed file for an output that is not the working disk itself."""
    directory = wanted.path.parent
    doing = f"writing {wanted.path}"
    try:
        target = stack.enter_context(partial(directory, wanted.path.name))
        if wanted.kind in PLAIN:
            copy(working.fd, target.fd, length=size, progress=progress)
        else:
            qemu.convert(
                qemu.node("raw", working.fd, size=str(size)),
                source=working.fd,
                target=target.fd,
                target_format=wanted.kind,
                directory=directory,
                doing=doing,
                progress=progress,
            )
    except OSError as error:
        raise space.explained(error, doing=doing, directory=directory, needed=space.allocated(working.fd)) from error
    if wanted.kind == "vhd":
        _append_footer(target, wanted, size=size)
    return target


def _append_footer(target: Partial, wanted: Output, *, size: int) -> None:
    try:
        vhd.append_footer(target.fd, size=size)
    except OSError as error:
        doing = f"writing {wanted.path}"
        raise space.explained(error, doing=doing, directory=target.directory, needed=vhd.FOOTER_SIZE) from error


def _give_names(made: Sequence[tuple[Output, Partial]], *, overwrite: bool) -> None:
    begun: list[tuple[Output, Partial, bool]] = []
    try:
        for wanted, target in made:
            # Noted before it happens: an interrupt may come between the two, and withdraw looks for itself.
            replaces = overwrite and os.path.lexists(wanted.path)
            begun.append((wanted, target, replaces))
            if replaces:
                # Before, because nobody may live to do it after: a file without its manifest is better than one with
                # the manifest of another.
                Path(f"{wanted.path}{MANIFEST}").unlink(missing_ok=True)
            target.publish(wanted.path.name, overwrite=overwrite)
    except BaseException as error:
        stay = [str(wanted.path) for wanted, target, replaced in begun if replaced and target.has(wanted.path.name)]
        first = _unpublished(error, begun[-1][0], stay) if isinstance(error, OSError) else error
        for wanted, target, replaced in begun:
            if not replaced:
                with attached_to(first):
                    target.withdraw(wanted.path.name)
        if first is not error:
            raise first from error
        raise


def _unpublished(error: OSError, wanted: Output, stay: Sequence[str]) -> PublishError:
    what = f"only {', '.join(stay)} could be published" if stay else "nothing was published"
    if isinstance(error, FileExistsError):
        return PublishError(what, why=f"output {wanted.path} exists", hint=f"{OVERWRITE} replaces it")
    cause = space.explained(error, doing=f"publishing {wanted.path}", directory=wanted.path.parent)
    return PublishError(what, why=f"{cause.what}: {cause.why}", hint=cause.hint)
