"""The lines on the terminal: what will be built, and what became of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pytest_azchroot.clouds import Account, Artifact
from pytest_azchroot.disk.space import human
from pytest_azchroot.gate import count, some
from pytest_azchroot.report.result import ImageResult
from pytest_azchroot.report.timeline import seconds


def header(images: Sequence[str], clouds: Iterable[tuple[str, str]], switched_off: Sequence[str]) -> str:
    """The line under pytest's own count of tests.

    :param images: their names.
    :param clouds: name of the cloud and where that was said, of each image.
    :param switched_off: who switched publishing off, of each image that will not be published.
    """
    who = some(list(dict.fromkeys(switched_off)))
    where = ", ".join(dict.fromkeys(f"{cloud} ({origin})" for cloud, origin in clouds))
    if not switched_off:
        publishing = "publishing on, if all tests pass"
    elif len(switched_off) == len(images):
        publishing = f"publishing off ({who})"
    else:
        publishing = f"publishing on but for {count(len(switched_off), 'image')} ({who})"
    return f"azchroot: {count(len(images), 'image')} ({some(images, 8)}), cloud {where}, {publishing}"


def verifying(images: Sequence[str], source: str) -> str:
    """That line where an image is only looked at.

    :param source: the image.
    """
    return f"azchroot: the checks of {some(images, 8)} on {source}, which is only read; publishing off"


def summary(results: Iterable[ImageResult], start: Path) -> list[tuple[str, bool, str]]:
    """One line an image: its name, whether all is well with it, and the rest of the line."""
    return [(result.name, result.published or bool(result.verified), _line(result, start)) for result in results]


def kept(result: ImageResult) -> Iterator[str]:
    """Where its disk is, and what to do with it."""
    if result.kept is None:
        return
    yield f"{result.name}: its disk was kept: {result.kept.id}"
    yield f"    look into it:  {result.kept.enter}"
    if result.kept.remove is not None:
        yield f"    remove it:     {result.kept.remove}"


def _line(result: ImageResult, start: Path) -> str:
    times = ", ".join(f"{name} {seconds(spent)}" for name, spent in result.stages.items() if spent >= 0.05)
    places = ", ".join(_place(artifact, start) for artifact in result.artifacts)
    text = f"published  {places}" if result.published else str(result.verdict)
    if result.verified is not None:
        text = _verified(result, start)
    if result.account is not None and result.account.requests:
        times += f"; {_asked(result.account)}"
    return f"{text}  [{times}]" if times else text


def _asked(account: Account) -> str:
    """What it asked of its cloud: the requests, and the time that went by doing nothing but waiting."""
    answered = f"{count(account.requests, 'request')} answered in {seconds(account.seconds)}"
    return f"{answered}, {seconds(account.waited)} waiting for operations"


def _verified(result: ImageResult, start: Path) -> str:
    if not result.verified:
        return f"not verified: {'; '.join(result.verdict.reasons)}"
    passed = count(sum(test.outcome == "passed" for test in result.tests), "check")
    return f"verified  {_shown(result.source or '', start)} ({passed} passed)"


def _place(artifact: Artifact, start: Path) -> str:
    """An artifact, with its size if it is a file."""
    if not os.path.isabs(artifact.id) or not os.path.exists(artifact.id):
        return artifact.id
    used = os.stat(artifact.id).st_blocks * 512
    return f"{_shown(artifact.id, start)} ({human(artifact.size)}, {human(used)} on disk)"


def _shown(id: str, start: Path) -> str:
    """A path as the user would type it from where pytest was started; another id as it is."""
    return os.path.relpath(id, start) if os.path.isabs(id) and os.path.exists(id) else id
