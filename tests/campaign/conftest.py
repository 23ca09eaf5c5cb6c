"""Says at the end how often was killed, whom, and where; what looks at all kills comes after them."""

from __future__ import annotations

from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).with_name("test_campaign.py")
TALLY = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if tally := config.stash.get(TALLY, None):
        terminalreporter.section("killed")
        terminalreporter.write_line(tally)


@pytest.hookimpl(trylast=True)  # after the order has been shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that began with waiting for all builds would seem to hang."""
    places = [index for index, item in enumerate(items) if item.path == CAMPAIGN]
    ordered = sorted((items[index] for index in places), key=lambda item: not hasattr(item, "callspec"))
    for index, item in zip(places, ordered, strict=True):
        items[index] = item
