"""Leads the images of a session through it. Loaded with the first image, so that a suite without one has no cost."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

from pytest_azchroot.collector import PublishItem, directory_of
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.gate import Answer
from pytest_azchroot.leaving import joined
from pytest_azchroot.preflight import problems_of_session
from pytest_azchroot.report import terminal
from pytest_azchroot.report.commandlog import CommandLog
from pytest_azchroot.report.progress import Progress
from pytest_azchroot.settings import Settings
from pytest_azchroot.suites import Suites

HERE = Path(__file__).parent
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")

SPOKEN = ("longrepr", "sections", "user_properties", "wasxfail", "_subtest.context")
"""What of a serialized report people get to read."""


class Conductor:
    """Leads the session's images through it."""

    def __init__(self, config: pytest.Config, suites: Suites) -> None:
        self.config = config
        self.suites = suites
        self.index: dict[pytest.Item, int] = {}
        self.building = False
        self.terminated = False

    @classmethod
    def register(cls, config: pytest.Config, settings: Settings) -> None:
        """Join the session, once. Registered last, so that its wrappers are the outermost ones."""
        if config.pluginmanager.has_plugin("azchroot-conductor"):
            return
        suites = Suites(settings, CommandLog(_show(config), live=_live(config)), _progress(config))
        config.pluginmanager.register(suites, "azchroot-suites")
        config.pluginmanager.register(cls(config, suites), "azchroot-conductor")

    # -- collection

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        directory = directory_of(collector)
        by_path = bool(directory) and isinstance(collector, pytest.Module)
        with _importing_by_path(self.config.option) if by_path else nullcontext():
            report = yield
        suite = directory.suite if directory else None
        self._mask(report)
        if suite and report.failed:
            suite.ledger.collect_errors.append(report.nodeid)
        if suite and report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            suite.roster.skipped_files[collector.path] = reason.removeprefix("Skipped: ")
        return report

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        self.index[item] = len(self.index)
        suite = self.suites.of(item)
        if suite and not isinstance(item, PublishItem):
            suite.roster.collected(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, None, None]:
        yield
        self.suites.select(items, self.index)

    @pytest.hookimpl(tryfirst=True)
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        text = str(warning_message.message)
        if (masked := self.suites.mask(text)) != text:
            warning_message.message = Warning(masked)

    def pytest_report_collectionfinish(self) -> str | None:
        suites = list(self.suites)
        if not suites or self.config.getoption("verbose", 0) < 0:
            return None
        if (verified := self.suites.settings.verify) is not None:
            return terminal.verifying([suite.image.name for suite in suites], verified)
        origin = self.suites.settings.cloud_origin
        return terminal.header(
            [suite.image.name for suite in suites],
            [(suite.image.spec.cloud, origin) for suite in suites],
            [suite.policy.switched_off for suite in suites if suite.policy.switched_off],
        )

    # -- the run

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        # Once more: what other plugins did after the collection must not change the order or hide a loss.
        self.suites.select(session.items, self.index)
        option = session.config.option
        touches = not (option.collectonly or session.config.getoption("setupplan", False))
        if touches and (not session.testsfailed or option.continue_on_collection_errors):
            if problems := problems_of_session(self.suites, session.items):
                what = "build" if self.suites.settings.verify is None else "verify"
                raise pytest.UsageError("\n".join([f"cannot {what}:", *map(self.suites.mask, problems)]))
            self.building = True
            if len(self.suites) and threading.current_thread() is threading.main_thread():
                before = signal.signal(signal.SIGTERM, self._terminate)
                self.config.add_cleanup(partial(_handle, signal.SIGTERM, before))
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        suite = self.suites.of(item)
        if suite is None:
            return (yield)
        try:
            with suite.running(item):
                result = yield
            if self.terminated:  # and the test, or what it called, has swallowed the exception
                _leave()
            return result
        finally:
            if nextitem is None or self.suites.of(nextitem) is not suite:
                suite.close()  # after pytest's own teardown, which is part of the protocol

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        suite = self.suites.of(item)
        if suite and not isinstance(item, PublishItem) and not self.config.getoption("setuponly", False):
            suite.refuse(item)
            suite.prepare()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        suite = self.suites.of(item)
        if suite is None or isinstance(item, PublishItem):
            return (yield)
        with suite.calling(item):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        suite = self.suites.of(item)
        if suite is None:
            return (yield)
        if call.excinfo and (hint := suite.build.hint()):
            self.suites.log.write("stderr", f"hint: {hint}\n".encode())
        if text := self.suites.log.take():
            item.add_report_section(call.when, "azchroot", text)
        _show_the_first(call)
        told = _to_the_point(call.excinfo) if call.excinfo and not self.config.getoption("fulltrace", False) else None
        report = yield
        if told is not None:
            report.longrepr = told
        self._mask(report)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._mask(report)  # again: a subtest adds its name and what it has captured after its report was made
        for suite in self.suites:
            suite.record(report)

    def pytest_enter_pdb(self) -> None:
        """Somebody types: show them what commands write, and no running time."""
        self.suites.at_prompt(None if _live(self.config) else _aloud)

    def pytest_leave_pdb(self) -> None:
        self.suites.at_prompt(_show(self.config))

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM, by which CI systems cancel, tears down like Ctrl-C; Python's default would leave everything.

        A second one is ignored: the teardown is under way. The exception is an ordinary one, which tests and
        libraries swallow; therefore nothing is published from here on.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.terminated = True
        for suite in self.suites:
            suite.build.interrupt()
        _leave()

    def pytest_keyboard_interrupt(self) -> None:
        for suite in self.suites:
            suite.build.interrupt()

    # -- the end

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """After pytest has torn down every fixture, even where that failed, and before the terminal's summary."""
        try:
            return (yield)
        finally:
            if self.building:
                self._finish(session)
                if self.terminated:  # pytest prints no summary for an exit code that is not one of its own
                    self._summarize()

    def _finish(self, session: pytest.Session) -> None:
        for suite in self.suites:
            suite.close()
            if not (suite.ledger.tests or suite.verdict):
                continue
            told = suite.finish()
            verdict = suite.finished.verdict if suite.finished else None
            unverified = suite.policy.verify and verdict is not None and verdict.answer is Answer.FAIL
            if unverified or not told:
                self._fail(session)

    @staticmethod
    def _fail(session: pytest.Session) -> None:
        """No test says so: make the session red."""
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self) -> None:
        self._summarize()

    def _summarize(self) -> None:
        terminalreporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminalreporter is None:
            return
        results = [suite.finished for suite in self.suites if suite.finished]
        if not results:
            return
        if self.terminated:
            terminalreporter.ensure_newline()  # a test was running
        terminalreporter.section("images")
        for name, published, line in terminal.summary(results, self.config.invocation_params.dir):
            terminalreporter.write(f"{name}  ", bold=True)
            terminalreporter.write(f"{self.suites.mask(line)}\n", green=published, yellow=not published)
        for result in results:
            for line in terminal.kept(result):
                terminalreporter.write_line(self.suites.mask(line))
            for problem in result.problems:
                terminalreporter.write_line(self.suites.mask(f"{result.name}: {problem}"), red=True)

    def _mask(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Mask every secret in a report, wherever in it one stands."""
        if not self.suites.has_secrets:
            return
        hook = self.config.hook
        data = hook.pytest_report_to_serializable(config=self.config, report=report)
        spoken = {key: data[key] for key in SPOKEN if key in data}
        masked = self.suites.masker.mask_data(spoken)
        if masked == spoken:
            return
        if "$report_type" in data:  # of a plugin's own kind of report pytest can only restore what it inherits
            kind = pytest.CollectReport if isinstance(report, pytest.CollectReport) else pytest.TestReport
            data["$report_type"] = kind.__name__
        clean = hook.pytest_report_from_serializable(config=self.config, data={**data, **masked})
        for name in ("longrepr", "sections", "user_properties", "wasxfail", "context"):
            if hasattr(clean, name):
                setattr(report, name, getattr(clean, name))


def _show_the_first(call: pytest.CallInfo[None]) -> None:
    """Of several errors of one teardown pytest would show the last one first."""
    if call.excinfo and (first := joined(call.excinfo.value)) is not call.excinfo.value:
        call.excinfo = pytest.ExceptionInfo.from_exception(first)


def _to_the_point(excinfo: pytest.ExceptionInfo[BaseException]) -> str | None:
    """An error that says what to do needs none of our frames around it: only those of the suite stay.

    Where none of the suite's is there, the error's own words are all there is to tell.
    """
    if not _says_what_to_do(excinfo):
        return None
    ours = [entry for entry in excinfo.traceback if Path(entry.path).is_relative_to(HERE)]
    for entry in ours:
        # pytest's convention, which it looks up in a frame's globals too; dropping entries would not outlast its cut
        entry.frame.f_globals["__tracebackhide__"] = _says_what_to_do
    suite = [entry for entry in excinfo.traceback if entry not in ours and not _is_machinery(str(entry.path))]
    return None if suite else f"{type(excinfo.value).__name__}: {excinfo.value}"


def _is_machinery(path: str) -> bool:
    """Whether a frame belongs to what leads from pytest to us, and not to the suite."""
    return "site-packages" in path or Path(path).is_relative_to(_STANDARD_LIBRARY)


def _says_what_to_do(excinfo: pytest.ExceptionInfo[BaseException] | None) -> bool:
    return excinfo is not None and isinstance(excinfo.value, AzchrootError)


@contextmanager
def _importing_by_path(option: Any) -> Iterator[None]:
    """Images repeat file names; pytest's default import mode refuses that without ``__init__.py`` files."""
    if option.importmode != "prepend":
        yield
        return
    option.importmode = "importlib"
    try:
        yield
    finally:
        option.importmode = "prepend"


def _handle(number: signal.Signals, handler: Any) -> None:
    signal.signal(number, handler)


def _leave() -> NoReturn:
    pytest.exit("terminated by SIGTERM", returncode=128 + signal.SIGTERM)


def _show(config: pytest.Config) -> Callable[[str], None] | None:
    """Where output of commands is shown as it comes: on stdout under ``-s``, unless ``log_cli`` shows it already."""
    if config.getoption("capture", "no") != "no" or _live(config):
        return None

    return _aloud


def _aloud(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _live(config: pytest.Config) -> bool:
    """Whether ``log_cli`` is on; without the plugin for logging pytest does not know these words."""
    if not config.pluginmanager.has_plugin("logging-plugin"):
        return False
    return bool(config.getini("log_cli") or config.getoption("log_cli_level", None))


def _progress(config: pytest.Config) -> Progress | None:
    """None where nobody wants to see it: under ``-q``, and under ``-s``, where output itself shows that it lives."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if reporter is None or capture is None or config.option.verbose < 0 or config.getoption("capture") == "no":
        return None
    writer = config.get_terminal_writer()

    def newline() -> None:
        reporter.currentfspath = None  # so that pytest begins its next line with the file again

    try:
        with capture.global_and_fixture_disabled():  # it is the collection, whose output pytest takes
            stdout = os.dup(sys.__stdout__.fileno())  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return None
    config.add_cleanup(lambda: os.close(stdout))
    return Progress(
        stdout,
        terminal=writer.hasmarkup and os.isatty(stdout),
        column=lambda: writer.width_of_current_line,
        newline=newline,
    )
