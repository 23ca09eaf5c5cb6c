"""The gate, as data: what happened to the tests, and the verdict that follows."""

from __future__ import annotations

import pytest

from pytest_azchroot.gate import Answer, Ledger, Outcome, Policy, count, decide, short, some
from pytest_azchroot.gate import Test as Entry

STEP, CHECK = "images/x/test_10.py::test_step", "images/x/test_90.py::test_check"


def ledger(step: Outcome | None = Outcome.PASSED, check: Outcome | None = Outcome.PASSED, **facts: object) -> Ledger:
    """One step and one check, both ended, on a disk that closed well; facts override the ledger's fields."""
    book = Ledger(collected=[STEP, CHECK], disks=1, closed=True)
    book.tests = {STEP: Entry(step=True, outcome=step, ended=True), CHECK: Entry(step=False, outcome=check, ended=True)}
    for name, value in facts.items():
        setattr(book, name, value)
    return book


def test_publishes_when_nothing_speaks_against_it() -> None:
    verdict = decide(ledger(), Policy())
    assert verdict.publish
    assert str(verdict) == "published"


SKIPPED = [
    (ledger(step=Outcome.FAILED), Policy(), "1 failed (test_10.py::test_step)"),
    (ledger(check=Outcome.FAILED), Policy(), "1 failed (test_90.py::test_check)"),
    (ledger(collect_errors=["images/x/test_20.py"]), Policy(), "1 collection error (images/x/test_20.py)"),
    (ledger(dropped=["1 deselected (test_a)"]), Policy(), "1 deselected (test_a)"),
    (ledger(), Policy(switched_off="--azchroot-no-publish"), "publishing is off (--azchroot-no-publish)"),
    (ledger(check=Outcome.FAILED, trouble="busy"), Policy(), "busy"),
]

FAILED = [
    (ledger(check=Outcome.SKIPPED), Policy(), "no check passed"),
    (ledger(disks=0, closed=False), Policy(), "no test used the image"),
    (ledger(disks=2), Policy(), "its disk was made 2 times"),
    (ledger(closed=False), Policy(), "the image was not closed"),
    (ledger(closed=False, trouble="/ is busy"), Policy(), "/ is busy"),
    (ledger(collected=[STEP, STEP, CHECK]), Policy(), "1 test collected twice (test_10.py::test_step)"),
    (
        ledger(writes={CHECK: ["wrote /etc/x"]}),
        Policy(),
        "a check wrote /etc/x (test_90.py::test_check): mark it provision",
    ),
    (ledger(vetoes=["it is Friday"]), Policy(), "vetoed: it is Friday"),
    (ledger(step=Outcome.SKIPPED), Policy(strict=True), "azchroot_strict is set and 1 test did not pass"),
    (ledger(step=Outcome.XFAILED), Policy(strict=True), "azchroot_strict"),
    (ledger(step=Outcome.XPASSED), Policy(strict=True), "azchroot_strict"),
]


@pytest.mark.parametrize(("book", "policy", "reason"), SKIPPED)
def test_skips_what_is_red_or_was_asked_for(book: Ledger, policy: Policy, reason: str) -> None:
    verdict = decide(book, policy)
    assert verdict.answer is Answer.SKIP
    assert reason in str(verdict)


@pytest.mark.parametrize(("book", "policy", "reason"), FAILED)
def test_fails_what_nobody_would_notice(book: Ledger, policy: Policy, reason: str) -> None:
    verdict = decide(book, policy)
    assert verdict.answer is Answer.FAIL
    assert reason in str(verdict)


@pytest.mark.parametrize(("book", "policy", "reason"), SKIPPED)
def test_require_publish_fails_what_would_be_skipped(book: Ledger, policy: Policy, reason: str) -> None:
    required = Policy(require_publish=True, switched_off=policy.switched_off)
    verdict = decide(book, required)
    assert verdict.answer is Answer.FAIL
    assert reason in str(verdict)


def test_a_test_that_did_not_end_blocks() -> None:
    book = ledger()
    book.tests[CHECK].ended = False
    assert "1 test did not run in this process (test_90.py::test_check)" in str(decide(book, Policy()))


@pytest.mark.parametrize("outcome", [Outcome.SKIPPED, Outcome.XFAILED, Outcome.XPASSED])
def test_soft_outcomes_do_not_block_but_are_noted(outcome: Outcome) -> None:
    book = ledger(step=outcome)
    book.tests[STEP].reason = "not today"
    verdict = decide(book, Policy())
    assert verdict.publish
    assert verdict.notes == (f"test_10.py::test_step {outcome.value}: not today",)


def test_steps_alone_are_enough_where_the_spec_wants_no_checks() -> None:
    assert decide(ledger(check=Outcome.SKIPPED), Policy(checks_required=False)).publish


def test_every_reason_is_told() -> None:
    verdict = decide(ledger(check=Outcome.FAILED, dropped=["1 deselected"]), Policy())
    assert verdict.reasons == ("1 failed (test_90.py::test_check)", "1 deselected")


def test_a_failure_sticks() -> None:
    entry = Entry(step=False)
    entry.record(Outcome.FAILED, when="call")
    entry.record(Outcome.PASSED, when="call")
    entry.record(None, when="teardown")
    assert (entry.outcome, entry.ended) == (Outcome.FAILED, True)


def test_a_failed_teardown_spoils_a_passed_test() -> None:
    entry = Entry(step=False)
    entry.record(Outcome.PASSED, when="call")
    entry.record(Outcome.FAILED, when="teardown")
    assert entry.outcome is Outcome.FAILED


def test_a_rerun_starts_anew() -> None:
    entry = Entry(step=True)
    entry.record(Outcome.SKIPPED, when="call", reason="flaky")
    entry.forget()
    entry.record(Outcome.PASSED, when="call")
    assert (entry.outcome, entry.reason) == (Outcome.PASSED, "")


def test_the_failed_step_is_the_first_one() -> None:
    assert ledger().failed_step is None
    assert ledger(check=Outcome.FAILED).failed_step is None
    assert ledger(step=Outcome.FAILED).failed_step == STEP


def test_words() -> None:
    assert count(1, "test") == "1 test"
    assert count(2, "test") == "2 tests"
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert short("images/x/test_1.py::TestA::test_b[1]") == "test_1.py::TestA::test_b[1]"
