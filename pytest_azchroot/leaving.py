"""Ways out on which nothing hides the first error: errors of a release are attached to it.

Python lets the last error win: what is raised by a ``finally``, or by a manager's exit, replaces what was on its way.
The first one is then a footnote (``__context__``), and whoever prints the error alone prints the wrong one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from pytest_azchroot.errors import AzchrootError, attach

T = TypeVar("T")


@contextmanager
def attached_to(first: BaseException) -> Iterator[None]:
    """What goes wrong inside goes with an error that is to be raised afterwards. Only an interrupt goes before it, and
    takes it along."""
    try:
        yield
    except Exception as later:
        attach(first, later)
    except BaseException as interrupt:
        attach(interrupt, first)
        raise


class afterwards(AbstractContextManager[None]):  # noqa: N801 - it is used as a function
    """Release something on the way out, whatever happens inside: ``finally``, but the first error is the one raised.

    A class and no generator, so that no frame of :mod:`contextlib` is in the traceback.
    """

    def __init__(self, release: Callable[[], object]) -> None:
        self._release = release

    def __exit__(self, kind: type[BaseException] | None, first: BaseException | None, _: TracebackType | None) -> None:
        if first is None:
            self._release()
            return
        with attached_to(first):
            self._release()


class Leaving(ExitStack):
    """An ExitStack that releases everything and raises the first error, with the later ones attached to it.

    No manager in it can swallow an error by its exit, not even a stranger's.
    """

    def enter_context(self, cm: AbstractContextManager[T, Any]) -> T:
        """Enter a manager, to be left with the stack."""
        return super().enter_context(_Behind(cm))

    def callback(self, callback: Callable[..., object], /, *args: Any, **kwds: Any) -> Any:
        """Call a function when the stack is left."""
        self.enter_context(afterwards(partial(callback, *args, **kwds)))
        return callback


class _Behind(AbstractContextManager[T]):
    """A manager whose exit does not replace an error, and does not swallow one."""

    def __init__(self, manager: AbstractContextManager[T, Any]) -> None:
        self._manager = manager

    def __enter__(self) -> T:
        return self._manager.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, first: BaseException | None, trace: TracebackType | None
    ) -> None:
        if first is None:
            self._manager.__exit__(None, None, None)
            return
        try:
            with attached_to(first):
                self._manager.__exit__(kind, first, trace)
        finally:
            first.__traceback__ = trace  # else it would tell of the exits, too


def is_interrupted() -> bool:
    """Whether Ctrl-C is on its way out through what this is called from: a release then had better not wait."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def joined(error: BaseException) -> BaseException:
    """Of a group the first error, the others attached to it, if one of them says what to do; else what was given.

    pytest groups what goes wrong in one teardown, the last error first (``SetupState.teardown_exact`` and
    ``FixtureDef.finish`` turn their lists around).
    """
    errors = [*_members(error)]
    if len(errors) == 1 or not any(isinstance(each, AzchrootError) for each in errors):
        return error
    first, *later = errors
    for each in later:
        attach(first, each)
    return first


def _members(error: BaseException) -> Iterator[BaseException]:
    group = getattr(error, "exceptions", None)
    if group is None:
        yield error
        return
    for each in reversed(group):
        yield from _members(each)
