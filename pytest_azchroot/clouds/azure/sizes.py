"""How many data disks the size of the virtual machine allows, remembered for a day by all builds of the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytest_azchroot.clouds.azure import shared

_DAY = 86400.0


class Sizes:
    """What is known of sizes.

    :param ask: asks Azure, which takes seconds.
    """

    def __init__(self, path: Path, ask: Callable[[str], int | None]) -> None:
        self._path = path
        self._ask = ask

    def known(self, size: str) -> int | None:
        """The limit, if somebody has asked lately."""
        found = shared.read(self._path).get(size.lower())
        return int(found["disks"]) if found and shared.now() - found["at"] < _DAY else None

    def learn(self, size: str, disks: int) -> None:
        """Azure has said it, in a list or a refusal."""
        with shared.changing(self._path) as content:
            content[size.lower()] = {"disks": disks, "at": shared.now()}

    def limit(self, size: str) -> int | None:
        """The limit; None where Azure does not say.

        :raises AzureError: it was refused.
        """
        found = self.known(size)
        if found is None:
            found = self._ask(size)
            if found is not None:
                self.learn(size, found)
        return found
