"""Rate limits that all processes of the host keep, and what else they share."""

from __future__ import annotations

import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_azchroot.clouds.azure import shared
from pytest_azchroot.clouds.azure.asking import Progress, progress
from pytest_azchroot.clouds.azure.buckets import DISKS, OPERATIONS, POLLS, UPDATES, VERSIONS, Budget, Limit
from pytest_azchroot.clouds.azure.queue import Answer, Failure, Note, Queue
from pytest_azchroot.clouds.azure.refusals import AzureError
from pytest_azchroot.clouds.azure.sizes import Sizes
from pytest_azchroot.clouds.azure.underway import Operations
from pytest_azchroot.emulator.throttles import UPDATE_MACHINE
from pytest_azchroot.errors import UnavailableError


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Of the bucket."""
    return Clock()


@pytest.fixture
def budget(tmp_path: Path, clock: Clock) -> Budget:
    """A full one."""
    return Budget(tmp_path / "budget.json", clock=clock)


def most(limit: Limit, seconds: float) -> float:
    """Questions in so many seconds, at most."""
    return limit.burst + limit.refill * seconds


def test_a_host_asks_less_than_the_subscription_allows() -> None:
    """The sources are those that :mod:`pytest_azchroot.clouds.azure.buckets` names."""
    assert DISKS.burst + OPERATIONS.burst <= 250
    assert DISKS.refill + OPERATIONS.refill <= 25
    assert most(VERSIONS, 3 * 60) <= 1200 * 0.6
    assert most(VERSIONS, 30 * 60) < 4200


def test_a_file_system_that_is_full(budget: Budget, tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    budget.take(DISKS)
    before = sorted(tmp_path.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(UnavailableError, match="cannot be written"):
            budget.take(DISKS)
        with pytest.raises(UnavailableError, match="cannot be written"), queue.asked("attach", "/disks/x"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_process_that_is_suspended_with_the_lock(
    budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_STALLED", 0.05)
    with shared.locked(tmp_path / "budget.lock"), pytest.raises(UnavailableError, match="stays locked"):
        budget.take(DISKS)
    assert budget.take(DISKS)


def test_a_burst_and_then_a_token_at_a_time(budget: Budget, clock: Clock) -> None:
    assert [budget.take(UPDATES) for _ in range(11)] == [True] * 10 + [False]
    assert budget.wait(UPDATES) == pytest.approx(15)
    clock.now += 15.01
    assert [budget.take(UPDATES), budget.take(UPDATES)] == [True, False]


def test_the_margin_is_for_those_in_a_hurry(budget: Budget) -> None:
    while budget.take(UPDATES):
        pass
    assert [budget.take(UPDATES, spare=True) for _ in range(3)] == [True, True, False]


def test_after_a_429_it_is_empty(budget: Budget, clock: Clock) -> None:
    budget.empty(UPDATES, 7)
    assert budget.wait(UPDATES) == pytest.approx(7)
    clock.now += 7.01
    assert budget.take(UPDATES)


def test_azure_has_at_least_as_many(budget: Budget, clock: Clock) -> None:
    tokens = float(UPDATE_MACHINE.burst)
    for step in range(2000):
        clock.now += step % 7
        tokens = min(UPDATE_MACHINE.burst, tokens + step % 7 * UPDATE_MACHINE.refill)
        if budget.take(UPDATES):
            tokens -= 1
        assert tokens >= 1.99


def test_a_token_is_taken_once(tmp_path: Path) -> None:
    def take(_: int) -> bool:
        return Budget(tmp_path / "budget.json").take(UPDATES)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(40))) == 10


def test_nonsense_in_the_file_is_no_end(tmp_path: Path, budget: Budget) -> None:
    (tmp_path / "budget.json").write_text("[broken")
    assert budget.take(UPDATES)
    (tmp_path / "budget.json").write_text('{"updates": "many"}')
    assert budget.take(UPDATES)


# -- operations


def test_an_operation_is_asked_about_once_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(shared, "now", clock)
    asked: list[str] = []

    def ask(url: str) -> Progress:
        asked.append(url)
        return Progress(len(asked) > 1, Failure("it", why="Bad: luck", code="Bad") if len(asked) > 1 else None)

    budget = Budget(tmp_path / "budget.json", clock=clock)
    found = [Operations(tmp_path / "operations.json", budget, ask) for _ in range(3)]
    found[0].begun("u")
    assert not any(each.check("u", "it") for each in found) and asked == []
    clock.now += 2
    assert not any(each.check("u", "it") for each in found) and asked == ["u"]
    clock.now += 3
    for each in found:
        with pytest.raises(AzureError, match="it failed: Bad: luck"):
            each.check("u", "it")
    assert asked == ["u"] * 2


def test_without_a_token_nobody_asks(tmp_path: Path) -> None:
    def never(_: str) -> Progress:
        raise AssertionError

    budget = Budget(tmp_path / "budget.json")
    budget.empty(POLLS, 60)
    operations = Operations(tmp_path / "operations.json", budget, never)
    (tmp_path / "operations.json").write_text("{}")
    operations.begun("u")
    with shared.changing(tmp_path / "operations.json") as content:
        for each in content.values():
            each["next"] = 0
    assert not operations.check("u", "it")


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (200, {"status": "InProgress"}, Progress(False)),
        (200, {"status": "Succeeded"}, Progress(True)),
        (202, {}, Progress(False)),
        (200, {"dataDisks": []}, Progress(True)),
        (204, {}, Progress(True)),
    ],
)
def test_progress(status: int, body: dict[str, object], wanted: Progress) -> None:
    assert progress(status, body) == wanted


def test_a_failed_operation_has_azures_words() -> None:
    found = progress(200, {"status": "Failed", "error": {"code": "C", "message": "m"}}).failure
    assert found is not None and (found.code, found.why) == ("C", "C: m")
    assert progress(200, {"status": "Canceled"}).failure is not None


# -- requests


def test_requests_come_in_their_order_and_go(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    with queue.asked("attach", "/x/disks/A", caching="None") as first, queue.asked("detach", "/x/disks/b") as second:
        assert Queue(tmp_path / "queue").waiting() == [first, second]
        assert first.key == "/x/disks/a"
        queue.remember(second, Note(group="g", failure=Failure("f")))
        queue.answer(first, Answer(3, "url"))
        assert queue.waiting() == [second] and queue.note(second) == Note(group="g", failure=Failure("f"))
        assert queue.answered(first) == Answer(3, "url") and queue.answered(second) is None
    assert list((tmp_path / "queue").iterdir()) == []


def test_an_answer_that_nobody_waits_for_is_removed(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    with queue.asked("attach", "/x/disks/a") as request:
        pass
    queue.answer(request, Answer(1))
    assert queue.waiting() == [] and list((tmp_path / "queue").iterdir()) == []


def test_a_dead_process_asks_for_nothing(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with queue.asked("attach", "/x/disks/a"):
            os.write(writer, b"x")
            signal.pause()
    os.read(reader, 1)
    (request,) = queue.waiting()
    assert request.pid == pid and queue.lives(request)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    assert not queue.lives(request) and queue.waiting() == []


# -- the directory


def test_a_directory_of_others_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "vm").mkdir(mode=0o700)
    assert shared.private(tmp_path / "vm") == tmp_path / "vm"
    (tmp_path / "vm").chmod(0o777)
    with pytest.raises(UnavailableError, match="chmod 700"):
        shared.private(tmp_path / "vm")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UnavailableError):
        shared.private(tmp_path / "link")


def test_sizes_are_asked_for_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked = Clock(), list[str]()
    monkeypatch.setattr(shared, "now", clock)

    def ask(size: str) -> int:
        asked.append(size)
        return 8

    sizes = Sizes(tmp_path / "sizes.json", ask)
    assert sizes.known("S") is None
    assert [sizes.limit("S"), sizes.limit("s"), sizes.known("S")] == [8, 8, 8] and asked == ["S"]
    clock.now += 86401
    assert sizes.known("S") is None and sizes.limit("S") == 8 and asked == ["S", "S"]
