"""Configuration of the project's own tests."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

pytest_plugins = ["pytester"]

collect_ignore = ["example_images"]  # suites of their own: `make example` runs them

ALLOWED_SKIPS: tuple[str, ...] = ("device-mapper",)
"""Beginnings of the reasons for which a test may be skipped on a CI system. What is not here fails there."""

CI = bool(os.environ.get("CI"))

unexpected = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[unexpected] = []
    config.addinivalue_line("markers", "root: needs root, loop devices and namespaces")
    config.addinivalue_line("markers", "boot: starts a virtual machine")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without root most of the project cannot be tried."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: run the tests with `sudo make test`")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(ALLOWED_SKIPS or ("\0",)):
            item.config.stash[unexpected].append(f"{report.nodeid}: {reason}")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test that silently does not run on CI tests nothing."""
    if CI and session.config.stash[unexpected] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if CI and config.stash[unexpected]:
        terminalreporter.section("skipped, which CI does not allow", red=True)
        for line in config.stash[unexpected]:
            terminalreporter.write_line(line)
