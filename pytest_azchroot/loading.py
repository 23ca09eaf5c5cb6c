"""Loading many modules at once, as Azure's SDKs are."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is looked for while modules are loaded: none of what they make is any, and every look goes over all
    of it. It is a third of the time that loading takes."""
    if not gc.isenabled():  # somebody has his reasons
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def for_good() -> Iterator[None]:
    """The same, and no look goes over what is there by now ever again: not during the tests, and not in the end, when
    pytest and then the interpreter look at everything.

    What becomes a cycle of garbage later stays until the process ends, but only if it was there before the first test:
    pytest's own objects and the modules. For the SDKs' hundred thousand objects that is worth it, for less it is not.
    """
    with uncollected():
        yield
        gc.freeze()


def soon(*modules: str, after: float = 0.2) -> None:
    """Load modules in the background, for who will need them later.

    :param after: seconds. What the caller begins now, and then waits for, comes first; then loading costs nothing.
    """
    timer = threading.Timer(after, lambda: [import_module(name) for name in modules])
    timer.daemon = True
    timer.start()
