"""One image within one pytest session.

A :class:`Suite` joins what pytest knows of an image (its node, its tests, their reports) with the
:class:`~pytest_azchroot.build.Build`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot import chain
from pytest_azchroot.build import Build
from pytest_azchroot.clouds import Accountable, Artifact
from pytest_azchroot.collector import ImageDirectory, PublishItem, is_step
from pytest_azchroot.errors import AzchrootError, AzchrootWarning, PublishError, told
from pytest_azchroot.gate import Answer, Ledger, Outcome, Policy, Test, Verdict, decide, failures, short, some
from pytest_azchroot.image import Image
from pytest_azchroot.leaving import afterwards
from pytest_azchroot.masking import MASK
from pytest_azchroot.report import records
from pytest_azchroot.report.provenance import provenance
from pytest_azchroot.report.result import ImageResult, TestResult
from pytest_azchroot.roster import Roster
from pytest_azchroot.sealing import Seal


class Suite:
    """One image and its tests, in this session."""

    def __init__(
        self,
        directory: ImageDirectory,
        build: Build,
        policy: Policy,
        mask: Callable[[str], str] = str,
        *,
        output: Path | None = None,
        keep: str = "never",
    ) -> None:
        self.mask = mask
        self._output = output
        self._keep = keep
        self.directory = directory
        self.build = build
        self.policy = policy
        self.verdict: Verdict | None = None
        self.roster = Roster(directory, build.ledger, only_checks=policy.verify)
        self.finished: ImageResult | None = None
        """The whole story, once it has ended."""
        self.problems: list[str] = []
        self.sources: list[Suite] = []
        """Images of this session that it starts from, and that are to be published first."""
        self.sealed: Callable[[Suite], None] = lambda _: None
        """Told when nothing will change the image any more."""
        self._asked = False
        self._process = os.getpid()
        self._current: pytest.Item | None = None
        self._mounting = False
        self._seal = Seal(build)
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
        """What its disk starts from, if another image may publish it."""
        return chain.needs(self.image)

    @property
    def makes(self) -> frozenset[str]:
        """What it will publish."""
        return frozenset() if self.policy.switched_off else chain.makes(self.image)

    @property
    def can_begin(self) -> bool:
        """Whether its disk can be made before its first test runs: it will be wanted, and waits for no other image."""
        ledger = self.ledger
        return bool(ledger.tests) and not (self.sources or self.build.sent or ledger.collect_errors or ledger.disks)

    @property
    def is_read_only(self) -> bool:
        """Whether nothing of this session changes its disk or publishes it, so that it need be no copy."""
        spec, ledger = self.image.spec, self.ledger
        building = (spec.pre_mount_commands, spec.post_mount_commands, spec.pre_unmount_commands, spec.copy_files)
        if spec.from_scratch or any(building) or any(test.step for test in ledger.tests.values()):
            return False
        if self.policy.verify:
            return True
        if self.roster.publishes and self.policy.switched_off is None and not ledger.dropped:
            return False
        manager = self.directory.session._fixturemanager
        overridden = any(len(manager.getfixturedefs(name, self.directory) or ()) > 1 for name in ("disk", "chroot"))
        return not overridden and not self.directory.ihook.pytest_azchroot_mounted.get_hookimpls()

    # -- while the tests run

    @contextmanager
    def running(self, item: pytest.Item) -> Iterator[None]:
        """What happens inside is done for this test: it decides whether the image may be changed."""
        self._current = item
        if not isinstance(item, PublishItem):  # a hook may have added it since the selection
            self.ledger.tests.setdefault(item.nodeid, Test(step=is_step(item)))
        try:
            yield
        finally:
            self._current = None

    @contextmanager
    def calling(self, item: pytest.Item) -> Iterator[None]:
        """What the test itself has started ends with it; what its fixtures started lives on until they end it."""
        sandbox = self.build.sandbox
        # By number: between fork and exec a process still has the command of its parent.
        before = {each.pid for each in sandbox.survivors()} if sandbox else set()
        with self.build.timeline.shown(item.name):
            yield
        if sandbox is None or not (left := [each for each in sandbox.survivors() if each.pid not in before]):
            return
        sandbox.end(left)
        names = some([f"{each.command} (pid {each.pid})" for each in left])
        item.warn(AzchrootWarning(self.mask(f"{item.name} left running, now ended: {names}")))

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
        if (sent := self.build.sent) is not None:
            pytest.skip(f"the run {sent.run} has tested it, and what that run sent on its way is taken up")
        for source in self.sources:
            if not source.image.artifacts:
                self.ledger.dropped = [f"its source, the image {source.image.name}, was not published"]
                pytest.skip(self.ledger.dropped[0])
        if self.ledger.collect_errors:
            pytest.skip(f"{self.image.name} has collection errors")
        if step := self.ledger.failed_step:
            pytest.skip(f"step {short(step)} failed")
        if self.ledger.trouble:
            pytest.skip(self.ledger.trouble)
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

    # -- the seal

    def prepare(self) -> None:
        """The current test is about to use the image, if it is mounted: cover it, seal it, or lay it open.

        :raises DirtyImageError: the image does not seal.
        """
        item = self._current
        if item is None or isinstance(item, PublishItem):
            return
        if is_step(item):
            self._seal.before_step()
            return
        later = [*self.ledger.tests]
        later = later[later.index(item.nodeid) + 1 :]
        is_last = not any(self.ledger.tests[id].step for id in later)
        ended = self._seal.before_check(item.nodeid, module=item.path, is_last=is_last)
        if is_last and self.build.chroot is not None:
            self.sealed(self)
        if ended:
            names = some([f"{each.command} (pid {each.pid})" for each in ended])
            item.warn(AzchrootWarning(self.mask(f"still running before {item.name}, ended: {names}")))

    def unmount(self) -> None:
        """The last test has used the image."""
        with afterwards(self.build.unmount):
            self._seal.look()

    def detach(self) -> None:
        """Nothing uses the disk any more."""
        try:
            self.build.detach()
        except Exception as error:
            if not self.build.interrupted:
                raise
            self.problems.append(told(error))  # pytest leaves by this teardown, and would end with a traceback of it

    # -- after the tests

    def decide(self) -> Verdict:
        """The verdict, vetoes heard where the gate is open without them."""
        self._asked = True
        if os.getpid() != self._process:
            return Verdict(Answer.FAIL, ("this is a forked process, and not the one in which the run began",))
        if (sent := self.build.sent) is not None:
            self.verdict = Verdict(Answer.PUBLISH, notes=(f"it was built and tested by the run {sent.run}",))
            return self.verdict
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
        with afterwards(self.build.detach):
            self.build.attach()
            self.build.mount()
            self.build.unmount()

    def publish(self) -> tuple[Artifact, ...]:
        """Publish, and tell who wants to know."""
        artifacts = self.build.publish()
        if not artifacts:
            raise PublishError(f"the cloud {self.build.cloud.name!r} returned no artifact")
        self.directory.ihook.pytest_azchroot_published(image=self.image, artifacts=artifacts)
        return artifacts

    def close(self) -> None:
        """Release everything; a failure is kept for the report, it does not undo a good image."""
        self.build.keeping = self._keep == "always" or (self._keep == "failed" and self._has_failed)
        try:
            self.build.close()
        except Exception as error:  # a cloud of a stranger may raise anything
            self.problems.append(told(error))

    def finish(self) -> bool:
        """The image is finished: make its result known. Only the first call counts.

        :returns: whether all who wanted to know took it; an error of theirs is kept for the terminal.
        """
        if self.finished is not None:
            return True
        result = self._result()
        self.finished = result = records.record(result, output=self._output, mask=self.mask)
        try:
            self.directory.ihook.pytest_azchroot_finished(image=self.image, result=result)
        except Exception as error:  # the other images, and the reports of other plugins, are still to come
            self.finished = replace(result, problems=(*result.problems, self.mask(told(error))))
            return False
        return True

    def _result(self) -> ImageResult:
        verdict = self.verdict or self._verdict_unheard()
        published, verified = bool(self.image.artifacts), None
        if self.policy.verify:
            verified = verdict.publish
            if verified:
                verdict = Verdict(Answer.SKIP, ("it was only verified (--azchroot-verify)",), verdict.notes)
        elif verdict.publish and not published:
            last = "the run was interrupted" if self.build.interrupted else "publishing failed"
            verdict = Verdict(Answer.FAIL, (last,), verdict.notes)
        mask = self.mask
        verdict = replace(verdict, reasons=(*map(mask, verdict.reasons),), notes=(*map(mask, verdict.notes),))
        tests = tuple(
            TestResult(
                id,
                test.step,
                test.outcome.value if test.outcome else "not run",
                test.duration,
                mask(test.reason),
                tuple(map(mask, self.ledger.writes.get(id, ()))),
            )
            for id, test in self.ledger.tests.items()
        )
        build, disk, configuration = self.build, self.image.disk, self.image.configuration
        return ImageResult(
            name=self.image.name,
            path=self.image.path,
            cloud=self.image.spec.cloud,
            verdict=verdict,
            published=published,
            verified=verified,
            kept=build.kept,
            architecture=build.runs.architecture.debian if build.runs else None,
            emulator=build.runs.emulator if build.runs else None,
            source_version=self.image.source_version,
            account=build.cloud.account(build.order) if isinstance(build.cloud, Accountable) else None,
            artifacts=self.image.artifacts,
            tests=tests,
            stages=dict(self.build.timeline.stages),
            source=disk.source if disk else None,
            problems=tuple(map(mask, self.problems)),
            source_digest=disk.source_digest if disk else None,
            size=disk.size if disk else None,
            digest=disk.digest if disk else None,
            started=build.started,
            ended=datetime.now(timezone.utc),
            packages_before=build.packages_before,
            packages=build.packages,
            provenance=build.provenance or provenance(configuration.path),
            variables={
                name: MASK if value in configuration.secrets else mask(value)
                for name, value in configuration.variables.items()
            },
        )

    @property
    def _has_failed(self) -> bool:
        """Whether somebody would want to see what became of it."""
        refused = self.verdict is not None and self.verdict.answer is Answer.FAIL
        unpublished = self.verdict is not None and self.verdict.publish and not self.image.artifacts
        return refused or unpublished or self.ledger.trouble is not None or bool(failures(self.ledger))

    def _verdict_unheard(self) -> Verdict:
        """What to say of an image whose publish item has not run."""
        if self.policy.verify and not self.build.interrupted:
            return decide(self.ledger, self.policy)
        if self.build.interrupted:
            last = "the run was interrupted"
        elif self._asked:
            last = "its publish item failed before it had a verdict"
        elif self.roster.publishes:
            last = "the run stopped before its publish item"
        else:
            last = "its publish item was not selected"
        return Verdict(Answer.SKIP, (*failures(self.ledger), last))


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
