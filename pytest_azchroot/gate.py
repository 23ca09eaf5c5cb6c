"""The gate: from what happened to the tests of an image to the verdict whether it may be published.

Pure: :class:`Ledger` is written by the plugin as pytest reports, :func:`decide` reads it. Nothing here does I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum


class Outcome(str, Enum):
    """How one test of an image ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    XPASSED = "xpassed"


class Answer(str, Enum):
    """What the gate says, and so how the publish item ends."""

    PUBLISH = "publish"
    SKIP = "skip"
    """The run is red already, or the user asked for less."""
    FAIL = "fail"
    """Nobody would notice otherwise that there is no image."""


@dataclass(frozen=True)
class Verdict:
    """The gate's answer, with reasons.

    :param answer: what becomes of the publish item.
    :param reasons: why the image is not published; empty where it is.
    :param notes: what does not block but should be known: skipped and xfailed tests.
    """

    answer: Answer
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def publish(self) -> bool:
        return self.answer is Answer.PUBLISH

    def __str__(self) -> str:
        return "published" if self.publish else f"not published: {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class Policy:
    """What the user wants of the gate."""

    checks_required: bool = True
    """False where image.yaml says ``checks: none``."""
    strict: bool = False
    """``azchroot_strict``: skips and xfails block too."""
    require_publish: bool = False
    """``--azchroot-require-publish``: an image that is not published fails, whatever the reason."""
    switched_off: str | None = None
    """Who switched publishing off (an option's name), if somebody did."""
    verify: bool = False
    """``--azchroot-verify``: the image is there, and the answer says whether its checks would let it be published."""


@dataclass
class Test:
    """One selected test of an image and what is known of it."""

    step: bool
    outcome: Outcome | None = None
    ended: bool = False
    """Its teardown was reported in this process."""
    reason: str = ""
    duration: float = 0.0
    """Seconds of setup, call and teardown together."""
    spoiled: bool = False
    """Its teardown failed, which pytest counts among the failures that an ``xfail`` expects."""

    def record(self, outcome: Outcome | None, *, when: str, duration: float = 0.0, reason: str = "") -> None:
        """Take in one phase's report. A failure sticks: subtests and teardowns report under the same id."""
        self.duration += duration
        self.ended = self.ended or when == "teardown"
        self.spoiled = self.spoiled or (when == "teardown" and outcome is Outcome.XFAILED)
        if self.outcome is Outcome.FAILED or outcome is None:
            return
        if outcome is Outcome.FAILED or self.outcome is None:
            self.outcome, self.reason = outcome, reason

    def forget(self) -> None:
        """A rerun plugin starts the test again: only the last attempt counts."""
        self.outcome, self.ended, self.reason, self.spoiled = None, False, "", False


@dataclass
class Ledger:
    """What happened to one image so far."""

    collected: list[str] = field(default_factory=list)
    """Node ids as they were collected; the same one twice means that a path was given twice."""
    tests: dict[str, Test] = field(default_factory=dict)
    """The selected ones, in the order in which they run."""
    collect_errors: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """What the directory holds and the run does not: a sentence piece each, such as ``1 deselected``."""
    shadowed: list[str] = field(default_factory=list)
    """Tests that stand in a file more than once: of these Python keeps the last one only."""
    disks: int = 0
    """How many disks were made for it. More than one: the checks did not all see the same image."""
    closed: bool = False
    """The image was unmounted strictly, its file systems are clean, the disk is released."""
    trouble: str | None = None
    """Why it could not be closed so."""
    vetoes: list[str] = field(default_factory=list)
    writes: dict[str, list[str]] = field(default_factory=dict)
    """What checks changed outside the volatile directories: node id, and ``wrote /etc/x`` each."""

    remarks: list[str] = field(default_factory=list)
    """What should be known of how it was built, and does not keep it from being published."""

    def select(self, tests: Iterable[tuple[str, bool]]) -> None:
        """Fix which tests will run: node id, and whether it is a step."""
        self.tests = {nodeid: Test(step=step) for nodeid, step in tests}

    @property
    def failed_step(self) -> str | None:
        """The first step that failed: the rest of the image rests on it."""
        return next((id for id, test in self.tests.items() if test.step and test.outcome is Outcome.FAILED), None)


def decide(ledger: Ledger, policy: Policy) -> Verdict:
    """Say whether the image may be published.

    Publish iff there is no reason not to. A reason that the run shows already (red), or that the user asked for,
    skips the publish item; one that nobody would notice fails it.
    """
    known = [*failures(ledger), *_asked(ledger, policy)]
    unnoticed = _unnoticed(ledger, policy)
    notes = tuple(_notes(ledger))
    if not known and not unnoticed:
        return Verdict(Answer.PUBLISH, notes=notes)
    if known and not policy.require_publish:
        return Verdict(Answer.SKIP, tuple(known), notes)
    return Verdict(Answer.FAIL, (*known, *unnoticed), notes)


def failures(ledger: Ledger) -> list[str]:
    """Reasons that the run reports as failures already."""
    reasons = []
    if ledger.collect_errors:
        reasons.append(f"{count(len(ledger.collect_errors), 'collection error')} ({some(ledger.collect_errors)})")
    if failed := [short(id) for id, test in ledger.tests.items() if test.outcome is Outcome.FAILED]:
        reasons.append(f"{len(failed)} failed ({some(failed)})")
    if ledger.trouble is not None and failed:
        reasons.append(ledger.trouble)
    return reasons


def _asked(ledger: Ledger, policy: Policy) -> list[str]:
    """Reasons the user asked for."""
    reasons = list(ledger.dropped)
    if policy.switched_off and not policy.verify:
        reasons.append(f"publishing is off ({policy.switched_off})")
    return reasons


def _unnoticed(ledger: Ledger, policy: Policy) -> list[str]:
    """Reasons that leave the run green, were it not for the publish item."""
    reasons = []
    tests = ledger.tests
    if twice := [id for id, times in Counter(ledger.collected).items() if times > 1]:
        reasons.append(f"{count(len(twice), 'test')} collected twice ({some(map(short, twice))})")
    if ledger.shadowed:
        names = some(ledger.shadowed)
        reasons.append(
            f"{count(len(ledger.shadowed), 'name')} used for more than one test, so the first is lost ({names})"
        )
    if spoiled := [short(id) for id, test in tests.items() if test.spoiled]:
        reasons.append(f"{count(len(spoiled), 'teardown')} failed behind an xfail ({some(spoiled)})")
    if missing := [short(id) for id, test in tests.items() if not test.ended]:
        reasons.append(f"{count(len(missing), 'test')} did not run in this process ({some(missing)})")
    if policy.checks_required and not any(t.outcome is Outcome.PASSED for t in tests.values() if not t.step):
        reasons.append("no check passed (image.yaml may say `checks: none`)")
    if policy.strict and (soft := [short(id) for id, test in tests.items() if _soft(test)]):
        reasons.append(f"azchroot_strict is set and {count(len(soft), 'test')} did not pass ({some(soft)})")
    if ledger.disks == 0:
        reasons.append("no test used the image, so there is no disk")
    elif ledger.disks > 1:
        reasons.append(f"its disk was made {ledger.disks} times, so the tests did not all see the same image")
    elif not ledger.closed and not any(test.outcome is Outcome.FAILED for test in tests.values()):
        reasons.append(ledger.trouble or "the image was not closed")
    reasons += [f"a check {some(writes, 8)} ({short(id)})" for id, writes in ledger.writes.items()]
    if ledger.writes:  # said once
        mark = "" if policy.verify else "mark it provision if it is meant to stay, or "
        reasons[-1] += f": {mark}set `verify_writes: discard`"
    return [*reasons, *(f"vetoed: {reason}" for reason in ledger.vetoes)]


def _notes(ledger: Ledger) -> list[str]:
    notes = []
    for id, test in ledger.tests.items():
        if _soft(test) and test.outcome is not None:
            notes.append(f"{short(id)} {test.outcome.value}" + (f": {test.reason}" if test.reason else ""))
    return [*notes, *ledger.remarks]


def _soft(test: Test) -> bool:
    return test.outcome in (Outcome.SKIPPED, Outcome.XFAILED, Outcome.XPASSED)


def short(nodeid: str) -> str:
    """The part of a node id that is enough within one image: file and test."""
    path, *names = nodeid.split("::")
    return "::".join([path.rsplit("/", 1)[-1], *names])


def some(names: Iterable[str], limit: int = 3) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
