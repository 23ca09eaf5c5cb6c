"""An emulator in a process of its own, to be killed: ``python -m tests.emulator.serve DIRECTORY SECONDS``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import Profile, Settings


def main(directory: str, seconds: str) -> None:
    """Serve until killed; every operation takes so many seconds."""
    with Emulator(Settings(Path(directory), profile=Profile({"*": float(seconds)}))) as emulator:
        print(emulator.url, flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
