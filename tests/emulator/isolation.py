"""No test of the emulator can reach a real metadata service, or anything else off this machine.

Tests that start other programs are marked `root`: without a namespace, only this interpreter is held.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from pytest_azchroot.emulator.isolation import misleading, no_way_out

HERE = Path(__file__).parent


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Around fixtures of every scope too: they start servers. The hook is called for tests of other directories."""
    if HERE not in item.path.parents:
        return (yield)
    with no_way_out():
        return (yield)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the machine's own environment says about clouds and proxies."""
    for name in misleading():
        monkeypatch.delenv(name)
