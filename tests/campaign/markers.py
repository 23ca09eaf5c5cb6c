"""A plugin for the build that is traced: it says in which stage the build is, by a system call that does nothing else.

The stages of the timeline, and what happens outside of them: steps, checks, the overlay of a check, what is written
when all is done. A stage within a stage counts for itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_azchroot.disk import partial
from pytest_azchroot.report import records
from pytest_azchroot.report.timeline import Timeline
from pytest_azchroot.sandbox import Sandbox

from . import stages

_inside = [stages.BEFORE]


def pytest_configure() -> None:
    """Put marks around what has no hook."""
    timed = Timeline.stage

    @contextmanager
    def stage(self: Timeline, name: str, *, detail: str | None = None) -> Iterator[None]:
        with _stage(name), timed(self, name, detail=detail):
            yield

    Timeline.stage = stage  # type: ignore[method-assign]
    for name in ("overlay", "fresh_overlay", "drop_overlay", "writes"):
        setattr(Sandbox, name, _within("overlay", getattr(Sandbox, name)))
    records.record = _within("finish", records.record)
    if os.environ.get(stages.NAMED):
        partial._open_unnamed = lambda directory_fd: None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not isinstance(item, pytest.Function):
        return (yield)
    with _stage("steps" if item.get_closest_marker("provision") else "checks"):
        return (yield)


def pytest_azchroot_verdict(image: Any) -> None:
    """The last moment before anything is published."""
    if image.disk is not None:
        (image.path / stages.SEALED).write_text(image.disk.digest or "")


@contextmanager
def _stage(name: str) -> Iterator[None]:
    _inside.append(name)
    os.access(stages.PREFIX + name, os.F_OK)
    try:
        yield
    finally:
        _inside.pop()
        os.access(stages.PREFIX + _inside[-1], os.F_OK)


def _within(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with _stage(name):
            return function(*args, **kwargs)

    return call
