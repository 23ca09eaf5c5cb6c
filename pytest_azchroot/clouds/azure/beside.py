"""Questions that are asked at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def beside(call: Callable[P, T], *args: P.args, **options: P.kwargs) -> Future[T]:
    """Call it in a thread of its own, and give what will be its result.

    Nobody who leaves waits for it, as all of :mod:`concurrent.futures` do: on Ctrl-C an answer that does not come would
    keep the process.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args, **options))
        except BaseException as error:  # it is raised where somebody asks for the result
            future.set_exception(error)

    threading.Thread(target=run, name=f"azchroot-{getattr(call, '__name__', 'lookup')}", daemon=True).start()
    return future
