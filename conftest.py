"""Configuration of the project's own tests."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["pytester"]

collect_ignore = ["example_images"]  # suites of their own: `make example` runs them


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "root: needs root, loop devices and namespaces")
    config.addinivalue_line("markers", "boot: starts a virtual machine")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without root most of the project cannot be tried. On a CI system that is an error, not a skip."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        message = "needs root: run the tests with `sudo make test`"
        if os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
