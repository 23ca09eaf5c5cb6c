"""The pytest hooks of pytest-azchroot: they wire, and nothing more."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, cast

import pytest

from pytest_azchroot import hookspecs
from pytest_azchroot.clouds import Cloud
from pytest_azchroot.clouds.local import LocalCloud
from pytest_azchroot.collector import MARKER, ImageDirectory, PublishItem, directory_of
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.fixtures import WRONG_HOST
from pytest_azchroot.preflight import problems_of_session
from pytest_azchroot.report import terminal
from pytest_azchroot.report.commandlog import CommandLog
from pytest_azchroot.report.progress import Progress
from pytest_azchroot.selection import CONFIG_NAME
from pytest_azchroot.settings import Settings, add_options
from pytest_azchroot.suite import Suites

HERE = Path(__file__).parent

AnyReport = TypeVar("AnyReport", pytest.TestReport, pytest.CollectReport)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_azchroot_clouds(config: pytest.Config) -> list[Cloud]:
    return [LocalCloud()]


@pytest.hookimpl(trylast=True)  # when the terminal reporter is there
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}: this test is a step: it changes the image. Steps run in written order; if one fails, the rest of "
        "its image is skipped. Unmarked tests of an image are checks.",
    )
    # Registered here and not at import: the last registered wrapper is the outermost one.
    log = CommandLog(_show(config), live=bool(config.getini("log_cli") or config.getoption("log_cli_level", None)))
    progress = _progress(config)
    suites = Suites(Settings.of(config), log, progress)
    config.pluginmanager.register(suites, "azchroot-suites")
    config.pluginmanager.register(Conductor(config, suites, progress), "azchroot-conductor")


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if (path / CONFIG_NAME).is_file():
        return ImageDirectory.from_parent(parent, path=path)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Before testinfra parametrizes its own host, which below an image would be the build machine."""
    if "_testinfra_host" in metafunc.fixturenames and directory_of(metafunc.definition):
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {WRONG_HOST}")


class Conductor:
    """Leads the session's images through it."""

    def __init__(self, config: pytest.Config, suites: Suites, progress: Progress | None) -> None:
        self.config = config
        self.suites = suites
        self.progress = progress
        self.index: dict[pytest.Item, int] = {}
        self.building = False

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
        if suite and report.failed:
            suite.ledger.collect_errors.append(report.nodeid)
        if suite and report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            suite.skipped_files[collector.path] = reason.removeprefix("Skipped: ")
        return self._masked(report)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        self.index[item] = len(self.index)
        suite = self.suites.of(item)
        if suite and not isinstance(item, PublishItem):
            suite.collected(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, None, None]:
        yield
        self.suites.select(items, self.index)

    def pytest_report_collectionfinish(self) -> str | None:
        suites = list(self.suites)
        if not suites or self.config.option.verbose < 0:
            return None
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
        touches = not (option.collectonly or option.setupplan)
        if touches and (not session.testsfailed or option.continue_on_collection_errors):
            if problems := problems_of_session(self.suites, session.items):
                raise pytest.UsageError("\n".join(["cannot build:", *map(self.suites.mask, problems)]))
            self.building = True
            if len(self.suites) and threading.current_thread() is threading.main_thread():
                before = signal.signal(signal.SIGTERM, _terminate)
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
                return (yield)
        finally:
            if nextitem is None or self.suites.of(nextitem) is not suite:
                suite.close()  # after pytest's own teardown, which is part of the protocol

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        suite = self.suites.of(item)
        if suite and not isinstance(item, PublishItem) and not self.config.option.setuponly:
            suite.refuse(item)

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
        told = _to_the_point(call.excinfo) if call.excinfo and not self.config.option.fulltrace else None
        report = yield
        if told is not None:
            report.longrepr = told
        return self._masked(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for suite in self.suites:
            suite.record(report)

    def pytest_keyboard_interrupt(self) -> None:
        for suite in self.suites:
            suite.build.interrupt()

    # -- the end

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """After pytest has torn down every fixture, and before the terminal's summary."""
        if not self.building:
            return
        for suite in self.suites:
            suite.close()
            if suite.ledger.tests or suite.verdict:
                suite.finish()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        results = [suite.finished for suite in self.suites if suite.finished]
        if not results:
            return
        terminalreporter.section("images")
        for name, published, line in terminal.summary(results, self.config.invocation_params.dir):
            terminalreporter.write(f"{name}  ", bold=True)
            terminalreporter.write(f"{self.suites.mask(line)}\n", green=published, yellow=not published)
        for result in results:
            for problem in result.problems:
                terminalreporter.write_line(self.suites.mask(f"{result.name}: {problem}"), red=True)

    def _masked(self, report: AnyReport) -> AnyReport:
        """The report with every secret masked, wherever in it one stands."""
        if not self.suites.has_secrets:
            return report
        hook = self.config.hook
        data = hook.pytest_report_to_serializable(config=self.config, report=report)
        spoken = {key: data[key] for key in ("longrepr", "sections", "user_properties", "wasxfail") if key in data}
        masked = self.suites.masker.mask_data(spoken)
        if masked == spoken:
            return report
        clean = hook.pytest_report_from_serializable(config=self.config, data={**data, **masked})
        if isinstance(report, pytest.CollectReport):
            clean.result = report.result  # collectors and items: not part of the serialized form
        return cast(AnyReport, clean)


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
    suite = [entry for entry in excinfo.traceback if entry not in ours and "site-packages" not in str(entry.path)]
    return None if suite else f"{type(excinfo.value).__name__}: {excinfo.value}"


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


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM, by which CI systems cancel, tears down like Ctrl-C; Python's default would leave everything.

    A second one is ignored: the teardown is under way.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pytest.exit("terminated by SIGTERM", returncode=128 + number)


def _show(config: pytest.Config) -> Callable[[str], None] | None:
    """Where output of commands is shown as it comes: on stdout under ``-s``, unless ``log_cli`` shows it already."""
    if config.getoption("capture") != "no" or config.getini("log_cli"):
        return None

    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return show


def _progress(config: pytest.Config) -> Progress | None:
    """None where nobody wants to see it: under ``-q``, and under ``-s``, where output itself shows that it lives."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.verbose < 0 or config.getoption("capture") == "no":
        return None
    writer = config.get_terminal_writer()

    def newline() -> None:
        reporter.currentfspath = None  # so that pytest begins its next line with the file again

    try:
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
