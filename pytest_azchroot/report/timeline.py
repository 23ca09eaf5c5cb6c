"""Where the time of an image went, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Watcher(Protocol):
    """Told when a stage begins and ends, to show it while it lasts."""

    def begin(self, image: str, stage: str) -> None: ...

    def end(self) -> None: ...


class Timeline:
    """The stages of one image, in the order in which they were first entered, in seconds.

    A stage that is entered again (one test after the other in ``steps``) adds up. Of a stage within a stage the
    time counts once, for the inner one.

    :param image: the image's name, for the watcher.
    :param watcher: shows a stage while it lasts; None shows nothing.
    :param clock: seconds, monotonic.
    """

    def __init__(
        self, image: str, watcher: Watcher | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.image = image
        self.stages: dict[str, float] = {}
        self._watcher = watcher
        self._clock = clock
        self._shown = 0

    @contextmanager
    def stage(self, name: str, *, detail: str | None = None) -> Iterator[None]:
        """Time what happens inside. ``detail`` is shown while it lasts, instead of the stage's name."""
        self.stages.setdefault(name, 0.0)
        began, counted = self._clock(), sum(self.stages.values())
        try:
            with self.shown(detail or name):
                yield
        finally:
            within = sum(self.stages.values()) - counted
            self.add(name, self._clock() - began - within)

    @contextmanager
    def shown(self, detail: str) -> Iterator[None]:
        """Show what happens inside while it lasts, without timing it."""
        if self._watcher is None:
            yield
            return
        self._shown += 1
        self._watcher.begin(self.image, detail)
        try:
            yield
        finally:
            self._shown -= 1
            self._watcher.end()

    def say(self, detail: str) -> None:
        """Show this from now on, instead of what is shown. Nothing where nothing is: what goes on in the background
        is not what the user waits for."""
        if self._watcher is not None and self._shown:
            self._watcher.begin(self.image, detail)

    def add(self, name: str, spent: float) -> None:
        """Count seconds that were measured elsewhere."""
        self.stages[name] = self.stages.get(name, 0.0) + spent


def seconds(spent: float) -> str:
    """A duration as a person says it: ``0.2 s``, ``41 s``, ``3 min 20 s``."""
    if spent < 10:
        return f"{spent:.1f} s"
    if spent < 60:
        return f"{spent:.0f} s"
    minutes, rest = divmod(round(spent), 60)
    return f"{minutes} min {rest} s"
