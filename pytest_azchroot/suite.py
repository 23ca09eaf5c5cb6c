"""One image within one pytest session, and the session's images together.

A :class:`Suite` joins what pytest knows of an image (its node, its tests, their reports) with the
:class:`~pytest_azchroot.build.Build`. :class:`Suites` keeps the session's, in the order of collection.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.build import Build
from pytest_azchroot.clouds import Artifact, Cloud, Order
from pytest_azchroot.collector import ImageDirectory, PublishItem, directory_of, in_written_order, is_step
from pytest_azchroot.errors import AzchrootError, AzchrootWarning
from pytest_azchroot.gate import Answer, Ledger, Outcome, Policy, Verdict, count, decide, failures, short, some
from pytest_azchroot.image import Image
from pytest_azchroot.masking import Masker
from pytest_azchroot.report.commandlog import CommandLog
from pytest_azchroot.report.result import ImageResult, TestResult
from pytest_azchroot.report.timeline import Timeline, Watcher
from pytest_azchroot.selection import CONFIG_NAME, test_files, test_names
from pytest_azchroot.settings import Settings
from pytest_azchroot.spec import BUILTIN_CLOUDS, load


class Suite:
    """One image and its tests, in this session."""

    def __init__(
        self, directory: ImageDirectory, build: Build, policy: Policy, mask: Callable[[str], str] = str
    ) -> None:
        self.mask = mask
        self.directory = directory
        self.build = build
        self.policy = policy
        self.verdict: Verdict | None = None
        self.skipped_files: dict[Path, str] = {}
        """Files that were skipped at collection, with the reason."""
        self.finished: ImageResult | None = None
        """The whole story, once it has ended."""
        self.problems: list[str] = []
        self.sources: list[Suite] = []
        """Images of this session that it starts from, and that are to be published first."""
        self._names: set[str] = set()
        self._publishes = False
        self._current: pytest.Item | None = None
        self._mounting = False
        build.guard = self._guard

    @property
    def image(self) -> Image:
        return self.build.image

    @property
    def ledger(self) -> Ledger:
        return self.build.ledger

    # -- before the tests

    @property
    def starts_from_itself(self) -> bool:
        """Whether its sources lead back to it."""
        seen: list[Suite] = []
        pending = [*self.sources]
        while pending:
            source = pending.pop()
            if source is self:
                return True
            if source not in seen:
                seen.append(source)
                pending += source.sources
        return False

    @property
    def needs(self) -> str | None:
        """The file that its disk starts from, if it is a file."""
        source = self.image.spec.source
        return None if source is None else self._file(source)

    @property
    def makes(self) -> frozenset[str]:
        """The files that it will publish."""
        return frozenset(() if self.policy.switched_off else map(self._file, self.image.spec.output))

    def _file(self, name: str) -> str:
        """A file named in image.yaml, by the one path that it has whatever links lead to it; itself not followed."""
        path = self.image.path / name
        return str(path.parent.resolve() / path.name)

    def collected(self, item: pytest.Item) -> None:
        """A test of this image has been collected."""
        self.ledger.collected.append(item.nodeid)
        self._names.add(_written_name(item, self.image.path))

    def select(self, items: list[pytest.Item]) -> None:
        """Fix what runs of this image, and write down what of its directory does not."""
        mine = [item for item in items if directory_of(item) is self.directory]
        tests = [item for item in mine if not isinstance(item, PublishItem)]
        self._publishes = len(tests) < len(mine)
        self.ledger.select((item.nodeid, is_step(item)) for item in tests)
        self.ledger.dropped = [*self._dropped(tests)]

    def _dropped(self, selected: list[pytest.Item]) -> Iterator[str]:
        session = self.directory.session
        if not any(session.isinitpath(path) for path in (self.image.path, *self.image.path.parents)):
            yield "only a part of its directory was selected"
        kept = {item.nodeid for item in selected}
        if gone := sorted({short(id) for id in self.ledger.collected if id not in kept}):
            yield f"{len(gone)} deselected ({some(gone)})"
        for path, reason in self.skipped_files.items():
            yield f"{path.relative_to(self.image.path)} was skipped at collection: {reason}"
        if self.ledger.collect_errors:
            return  # what a broken file holds is not known
        if lost := sorted(set(self._written()) - self._names):
            were = "was" if len(lost) == 1 else "were"
            yield f"{count(len(lost), 'test')} of its directory {were} not collected ({some(lost)})"

    def _written(self) -> Iterator[str]:
        """Every test that the directory's files hold, as ``test_x.py::test_a``."""
        for path in test_files(self.image.path):
            if path in self.skipped_files:
                continue
            for name in test_names(path.read_text(encoding="utf-8", errors="replace")):
                yield f"{path.relative_to(self.image.path).as_posix()}::{name}"

    # -- while the tests run

    @contextmanager
    def running(self, item: pytest.Item) -> Iterator[None]:
        """What happens inside is done for this test: it decides whether the image may be changed."""
        self._current = item
        try:
            yield
        finally:
            self._current = None

    @contextmanager
    def calling(self, item: pytest.Item) -> Iterator[None]:
        """What the test itself has started ends with it; what its fixtures started lives on until they end it."""
        sandbox = self.build.sandbox
        before = set(sandbox.survivors()) if sandbox else set()
        with self.build.timeline.shown(item.name):
            yield
        if sandbox is None or not (left := [each for each in sandbox.survivors() if each not in before]):
            return
        sandbox.end(left)
        names = some([f"{each.command} (pid {each.pid})" for each in left])
        warnings.warn(AzchrootWarning(self.mask(f"{item.name} left running, now ended: {names}")), stacklevel=2)

    @contextmanager
    def mounting(self) -> Iterator[None]:
        """What hooks do to the image as it is mounted belongs to it, whichever test asked first."""
        self._mounting = True
        try:
            yield
        finally:
            self._mounting = False

    def _guard(self) -> None:
        if self._mounting or (self._current is not None and is_step(self._current)):
            return
        name = self._current.name if self._current else "code outside a test"
        raise AzchrootError(
            f"{name} is a check, and `chroot` changes the image",
            hint="mark it `@pytest.mark.provision` if it is meant to; to look at the image, ask for `host`",
        )

    def refuse(self, item: pytest.Item) -> None:
        """Skip or fail a test that must not run any more, before anything is made for it."""
        for source in self.sources:
            if not source.image.artifacts:
                self.ledger.dropped = [f"its source, the image {source.image.name}, was not published"]
                pytest.skip(self.ledger.dropped[0])
        if self.ledger.collect_errors:
            pytest.skip(f"{self.image.name} has collection errors")
        if step := self.ledger.failed_step:
            pytest.skip(f"step {short(step)} failed")
        for nodeid, test in self.ledger.tests.items():
            if nodeid == item.nodeid:
                return
            if not test.ended:
                pytest.fail(f"{short(nodeid)} comes first and has not run in this process", pytrace=False)

    def record(self, report: pytest.TestReport) -> None:
        """Take in one report of one of its tests."""
        test = self.ledger.tests.get(report.nodeid)
        if test is None:
            return
        if report.outcome == "rerun":  # type: ignore[comparison-overlap]
            test.forget()
            return
        outcome = outcome_of(report)
        test.record(outcome, when=report.when or "", duration=report.duration, reason=_reason(report))
        stage = "steps" if test.step else "checks"
        if report.when == "call":
            self.build.timeline.add(stage, report.duration)

    # -- after the tests

    def decide(self) -> Verdict:
        """The verdict, vetoes heard where the gate is open without them."""
        if not self.ledger.disks and not self.policy.checks_required and not self.ledger.tests:
            self._build_without_tests()
        verdict = decide(self.ledger, self.policy)
        if verdict.publish:
            answers = self.directory.ihook.pytest_azchroot_verdict(image=self.image, verdict=verdict)
            self.ledger.vetoes = [str(reason) for reason in answers if reason]
            verdict = decide(self.ledger, self.policy)
        self.verdict = verdict
        return verdict

    def _build_without_tests(self) -> None:
        """An image that wants no tests is made of its image.yaml alone."""
        try:
            self.build.attach()
            self.build.mount()
            self.build.unmount()
        finally:
            self.build.detach()

    def publish(self) -> tuple[Artifact, ...]:
        """Publish, and tell who wants to know."""
        artifacts = self.build.publish()
        self.directory.ihook.pytest_azchroot_published(image=self.image, artifacts=artifacts)
        return artifacts

    def close(self) -> None:
        """Release everything; a failure is kept for the report, it does not undo a good image."""
        try:
            self.build.close()
        except Exception as error:  # a cloud of a stranger may raise anything
            self.problems.append(str(error))

    def finish(self) -> None:
        """The image is finished: make its result known. Only the first call counts."""
        if self.finished is None:
            self.finished = result = self._result()
            self.directory.ihook.pytest_azchroot_finished(image=self.image, result=result)

    def _result(self) -> ImageResult:
        verdict = self.verdict or self._verdict_unheard()
        published = bool(self.image.artifacts)
        if verdict.publish and not published:
            verdict = Verdict(Answer.FAIL, ("publishing failed",), verdict.notes)
        tests = tuple(
            TestResult(id, test.step, test.outcome.value if test.outcome else "not run", test.duration, test.reason)
            for id, test in self.ledger.tests.items()
        )
        return ImageResult(
            name=self.image.name,
            path=self.image.path,
            cloud=self.image.spec.cloud,
            verdict=verdict,
            published=published,
            artifacts=self.image.artifacts,
            tests=tests,
            stages=dict(self.build.timeline.stages),
            source=self.image.disk.source if self.image.disk else None,
            problems=tuple(self.problems),
        )

    def _verdict_unheard(self) -> Verdict:
        """What to say of an image whose publish item has not run."""
        if self.build.interrupted:
            last = "the run was interrupted"
        elif self._publishes:
            last = "the run stopped before its publish item"
        else:
            last = "its publish item was not selected"
        return Verdict(Answer.SKIP, (*failures(self.ledger), last))


class Suites:
    """The images of a session, by directory, in the order of their collection."""

    def __init__(self, settings: Settings, log: CommandLog, watcher: Watcher | None) -> None:
        self.settings = settings
        self.log = log
        self.masker = Masker(())
        self._secrets: list[str] = []
        self._watcher = watcher
        self._suites: dict[Path, Suite] = {}

    def __iter__(self) -> Iterator[Suite]:
        return iter(self._suites.values())

    def __len__(self) -> int:
        return len(self._suites)

    @property
    def has_secrets(self) -> bool:
        return bool(self._secrets)

    def mask(self, text: str) -> str:
        """The text without the secrets of any image of the session."""
        return self.masker.mask(text)

    def select(self, items: list[pytest.Item], index: dict[pytest.Item, int]) -> None:
        """Put the items in their order, and fix for each image what runs of it.

        :param index: the position of each item at its collection.
        """
        publishing = [item.suite for item in items if isinstance(item, PublishItem)]
        for suite in self:
            suite.sources = [each for each in publishing if each is not suite and suite.needs in each.makes]
        items[:] = in_written_order(
            items, index, lambda directory: [source.directory for source in self._suites[directory.path].sources]
        )
        # from here on in the order in which they are built
        seen = dict.fromkeys(directory.path for item in items if (directory := directory_of(item)))
        self._suites = {path: self._suites[path] for path in (*seen, *self._suites)}
        for suite in self:
            suite.select(items)

    def of(self, node: pytest.Item | pytest.Collector) -> Suite | None:
        """The suite that a node belongs to."""
        directory = directory_of(node)
        return directory.suite if directory else None

    def open(self, directory: ImageDirectory) -> Suite:
        """Read an image's configuration and make it a suite, once a directory.

        :raises AzchrootError: the configuration is wrong; says everything that is.
        """
        if directory.path in self._suites:  # the same path given twice, with --keep-duplicates
            return self._suites[directory.path]
        if hasattr(directory.config, "workerinput"):
            raise AzchrootError("images cannot be built by the workers of pytest-xdist yet", hint="run without -n")
        settings = self.settings
        clouds = _clouds(directory)
        acts_on = {**BUILTIN_CLOUDS, **{name: cloud.options for name, cloud in clouds.items()}}
        configuration = load(
            directory.path / CONFIG_NAME,
            clouds=acts_on,
            cloud=settings.cloud,
            variables=settings.variables,
            variable_files=settings.variable_files,
            environ=os.environ,
            unknown_variables="ignore",
        )
        image = Image(directory.path.name, directory.path, configuration)
        if changed := directory.ihook.pytest_azchroot_spec(image=image, spec=configuration.spec):
            image.configuration = configuration = configuration.with_spec(changed)
        self._secrets += configuration.secrets
        self.masker = self.log.masker = Masker(self._secrets)
        spec = configuration.spec
        if spec.cloud not in clouds:
            raise AzchrootError(
                f"{configuration.path}: no cloud named {spec.cloud!r} can build here",
                why=f"there {'is' if len(clouds) == 1 else 'are'} {some(sorted(clouds), 9)}",
                hint="choose one with --azchroot-cloud, or with `cloud:` in image.yaml",
            )
        policy = Policy(
            checks_required=spec.checks != "none",
            strict=settings.strict,
            require_publish=settings.require_publish,
            switched_off="--azchroot-no-publish"
            if settings.no_publish
            else "skip_create_image"
            if spec.skip_create_image
            else None,
        )
        order = Order(
            image.name, image.path, configuration, publish=policy.switched_off is None, overwrite=settings.overwrite
        )
        timeline = Timeline(image.name, self._watcher)
        build = Build(image, clouds[spec.cloud], order=order, ledger=Ledger(), timeline=timeline, output=self.log.write)
        build.command_timeout = settings.command_timeout
        self._suites[directory.path] = suite = Suite(directory, build, policy, self.mask)
        return suite


def _clouds(directory: ImageDirectory) -> dict[str, Cloud]:
    """All clouds that plugins and conftests offer to this image. Hooks run last registered first."""
    found: dict[str, Cloud] = {}
    for offered in directory.ihook.pytest_azchroot_clouds(config=directory.config):
        for cloud in offered or ():
            found.setdefault(cloud.name, cloud)
    return found


def outcome_of(report: pytest.TestReport) -> Outcome | None:
    """The outcome that a phase's report stands for; None where it says nothing yet."""
    if report.failed:
        return Outcome.FAILED
    if report.skipped:
        return Outcome.XFAILED if hasattr(report, "wasxfail") else Outcome.SKIPPED
    if report.when == "call" and report.passed:
        return Outcome.XPASSED if hasattr(report, "wasxfail") else Outcome.PASSED
    return None


def _reason(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail)
    longrepr: Any = report.longrepr
    if report.skipped and isinstance(longrepr, tuple):
        return str(longrepr[2]).removeprefix("Skipped: ")
    return ""


def _written_name(item: pytest.Item, root: Path) -> str:
    """A test as its file has it, without parameters: ``test_x.py::TestB::test_c``."""
    names = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
    names.append(getattr(item, "originalname", None) or item.name)
    return "::".join([item.path.relative_to(root).as_posix(), *names])
