"""Configuration of the project's own tests."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

# What is started in the background, or by nohup, ignores these; programs that tests start would inherit that.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

pytest_plugins = ["pytester"]

collect_ignore = ["example_images"]  # suites of their own: `make example` runs them

ALLOWED_SKIPS: tuple[str, ...] = ("device-mapper",)
"""Beginnings of the reasons for which a test may be skipped on a CI system. What is not here fails there."""

CI = bool(os.environ.get("CI"))

TOGETHER = "examples"
"""The room whose tests share something that is expensive to make: what it builds."""

unexpected: list[str] = []
"""Tests that were skipped and should not have been."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "root: needs root, loop devices and namespaces")
    config.addinivalue_line("markers", "boot: starts a virtual machine")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without root most of the project cannot be tried."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: run the tests with `sudo make test`")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers the tests of a file run in one of them, for the sake of their fixtures.

    Not by the mark ``xdist_group``, which pytest-xdist 3.8 writes where pytest 9.2 does not read it any more, and says
    nothing (pytest-xdist#1386).
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # noqa: PLC0415 - if it is there

    class Files(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            return TOGETHER if TOGETHER in file.split("/") else file

    return Files(config, log)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(ALLOWED_SKIPS or ("\0",)):
            unexpected.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test that silently does not run on CI tests nothing."""
    if CI and unexpected and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CI and unexpected:
        terminalreporter.section("skipped, which CI does not allow", red=True)
        for line in unexpected:
            terminalreporter.write_line(line)
