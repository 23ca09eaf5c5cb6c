"""Says at the end how often was killed, whom, and where."""

from __future__ import annotations

import pytest

TALLY = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if tally := config.stash.get(TALLY, None):
        terminalreporter.section("killed")
        terminalreporter.write_line(tally)
