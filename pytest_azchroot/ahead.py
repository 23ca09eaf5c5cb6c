"""Something that is acquired in the background, before it is needed."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """A context manager that is entered in a thread, at once. Whoever needs its value enters this one and waits;
    where nobody does, :meth:`abandon` leaves it.

    Python's own futures would do, but their threads keep the interpreter from ending.

    :param manager: it is entered in a thread and left in whichever leaves this one.
    """

    def __init__(self, manager: AbstractContextManager[T, Any]) -> None:
        self._manager = manager
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._left = False
        self._thread = threading.Thread(target=self._enter, daemon=True)
        self._thread.start()

    def _enter(self) -> None:
        try:
            self._value.append(self._manager.__enter__())
        except BaseException as error:  # whatever it is, it belongs to whoever asks for the value
            self._error = error

    def __enter__(self) -> T:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value[0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._left = True
        swallowed: bool | None = self._manager.__exit__(kind, error, trace)
        return swallowed

    def abandon(self) -> None:
        """Release what nobody has asked for; does nothing after this manager was left. Waits until it is there: what
        is half acquired cannot be released."""
        self._thread.join()
        if self._value and not self._left:
            self.__exit__(None, None, None)
