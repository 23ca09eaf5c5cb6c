"""What a run writes down before it asks, what is read of it, and whether the run lives."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_azchroot import journal
from pytest_azchroot.journal import Journal, JournalError, Record, parse, records

HEAD = '{"version": 1, "run": "r1", "host": "vm", "pid": 7, "started": "2026-01-02T03:04:05+00:00"}\n'
DISK = '{"entry": 1, "kind": "disk", "id": "/d", "facts": {"a": "b"}, "at": "2026-01-02T03:04:06+00:00"}\n'
SNAPSHOT = '{"entry": 2, "kind": "snapshot", "id": "/s", "facts": {}, "at": "2026-01-02T03:04:07+00:00"}\n'


def only(directory: Path) -> Record:
    """The record of the one journal there."""
    (found,) = records(directory)
    assert found.record is not None
    return found.record


def ids(record: Record) -> list[str]:
    return [each.id for each in record.entries]


# -- reading


def test_what_is_open_is_read_in_its_order() -> None:
    record = parse(HEAD + SNAPSHOT + DISK)
    assert (record.run, record.host, record.pid, record.started.year) == ("r1", "vm", 7, 2026)
    assert ids(record) == ["/s", "/d"]
    assert record.entries[1].facts == {"a": "b"} and record.entries[1].at.second == 6
    assert record.damaged == 0


def test_what_is_done_is_not_open() -> None:
    assert ids(parse(HEAD + DISK + SNAPSHOT + '{"entry": 1, "done": true}\n')) == ["/s"]


def test_what_was_learnt_later_goes_before() -> None:
    record = parse(HEAD + DISK + '{"entry": 1, "facts": {"a": "c", "d": "e"}}\n')
    assert record.entries[0].facts == {"a": "c", "d": "e"}


@pytest.mark.parametrize("length", range(len(SNAPSHOT)))
def test_a_torn_last_line_is_as_if_it_were_not_there(length: int) -> None:
    record = parse(HEAD + DISK + SNAPSHOT[:length])
    assert ids(record) == ["/d"] and record.damaged == 0


@pytest.mark.parametrize(
    "line", ["{", "7", '{"entry": "x"}', '{"entry": 3, "kind": "disk"}', "\0\0\0", '{"entry": 1, "facts": 3}']
)
def test_a_line_that_cannot_be_read_is_counted(line: str) -> None:
    record = parse(f"{HEAD}{DISK}{line}\n{SNAPSHOT}")
    assert ids(record) == ["/d", "/s"] and record.damaged == 1


@pytest.mark.parametrize("text", ["", "\n", "{}\n", "[]\n", HEAD[:-9], HEAD.replace("2026", "nie")])
def test_a_file_that_does_not_say_whose_it_is(text: str) -> None:
    with pytest.raises(JournalError, match="no journal"):
        parse(text)


def test_a_later_version_is_refused() -> None:
    with pytest.raises(JournalError, match="version 2"):
        parse(HEAD.replace('"version": 1', '"version": 2'))


# -- writing


def test_an_intention_is_synced_before_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's data, and at the beginning its name."""
    synced: list[tuple[str, str]] = []

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((path.name, "" if path.is_dir() else path.read_text().splitlines()[-1]))

    monkeypatch.setattr(os, "fsync", fsync)
    begun = Journal.begin(directory=tmp_path, host="vm")
    assert [name for name, _ in synced] == [f"{begun.run}.new", "journal"]
    entry = begun.intend("disk", "/d", vm="/vm")
    assert json.loads(synced[2][1])["id"] == "/d"
    entry.note(lun="3")
    assert json.loads(synced[3][1])["facts"] == {"lun": "3"}
    begun.close()


def test_what_is_released_is_closed(tmp_path: Path) -> None:
    begun = Journal.begin(directory=tmp_path, host="vm")
    disk, snapshot = begun.intend("disk", "/d"), begun.intend("snapshot", "/s")
    disk.note(lun="1")
    assert ids(only(tmp_path)) == ["/d", "/s"] and only(tmp_path).entries[0].facts == {"lun": "1"}
    disk.done()
    disk.done()
    assert ids(only(tmp_path)) == ["/s"]
    snapshot.done()
    begun.close()
    begun.close()
    assert list((tmp_path / "journal").iterdir()) == []


def test_what_is_open_at_the_end_stays_and_is_nobodys(tmp_path: Path) -> None:
    begun = Journal.begin(directory=tmp_path, host="vm")
    begun.intend("disk", "/d")
    assert [each.alive for each in records(tmp_path)] == [True]
    begun.close()
    (found,) = records(tmp_path)
    assert not found.alive and found.record is not None and ids(found.record) == ["/d"]


def test_others_cannot_read_it(tmp_path: Path) -> None:
    begun = Journal.begin(directory=tmp_path / "state", host="vm")
    assert stat.S_IMODE(begun.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(begun.path.parent.stat().st_mode) == 0o700
    begun.close()


def test_runs_are_unique_and_sort_by_time(tmp_path: Path) -> None:
    begun = [Journal.begin(directory=tmp_path, host="vm") for _ in range(5)]
    runs = [each.run for each in begun]
    assert runs == sorted(set(runs)) == [each.record.run for each in records(tmp_path) if each.record]
    for each in begun:
        each.close()


def test_threads_share_one(tmp_path: Path) -> None:
    begun = Journal.begin(directory=tmp_path, host="vm")

    def work(name: int) -> None:
        for number in range(10):
            entry = begun.intend("disk", f"/{name}/{number}")
            entry.note(thread=str(name))
            if number:
                entry.done()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = only(tmp_path)
    assert sorted(ids(record)) == [f"/{name}/0" for name in range(4)] and record.damaged == 0
    assert all(each.id == f"/{each.facts['thread']}/0" for each in record.entries)
    begun.close()


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """A file cannot grow beyond this; what fits is written, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_told_before_anything_is_asked_for(tmp_path: Path) -> None:
    begun = Journal.begin(directory=tmp_path, host="vm")
    kept = begun.intend("disk", "/kept")
    before = begun.path.read_bytes()
    with little_room(len(before) + 20), pytest.raises(JournalError, match="cannot be written") as caught:
        begun.intend("disk", "/lost")
    assert journal.STATE_DIRECTORY in str(caught.value)
    assert begun.path.read_bytes() == before
    begun.intend("disk", "/next")
    kept.done()
    record = only(tmp_path)
    assert ids(record) == ["/next"] and record.damaged == 0
    begun.close()


def test_no_journal_no_run(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file in the way")
    with pytest.raises(JournalError, match="cannot be written"):
        Journal.begin(directory=tmp_path, host="vm")


def test_a_begin_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with little_room(10), pytest.raises(JournalError):
        Journal.begin(directory=tmp_path, host="vm")
    assert list((tmp_path / "journal").iterdir()) == []


# -- where


def test_where_journals_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(journal.STATE_DIRECTORY, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert journal.state_directory() == Path("/var/lib/azchroot")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert journal.state_directory() == Path("/x/azchroot")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert journal.state_directory() == Path("/home/me/.local/state/azchroot")
    monkeypatch.setenv(journal.STATE_DIRECTORY, str(tmp_path))
    begun = Journal.begin(host="vm")
    assert begun.path.parent == tmp_path / "journal" and [each.alive for each in records()] == [True]
    begun.close()


def test_no_directory_no_journals(tmp_path: Path) -> None:
    assert list(records(tmp_path / "nowhere")) == []


def test_what_is_no_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "r.jsonl").write_text("nonsense\n")
    (tmp_path / "journal" / "README").write_text("not ours")
    (found,) = records(tmp_path)
    assert found.record is None and isinstance(found.problem, JournalError) and not found.alive


# -- who lives: real processes

CALLER = """
import os, subprocess, sys, time
from pathlib import Path
from pytest_azchroot.journal import Journal
begun = Journal.begin(directory=Path(sys.argv[1]), host="vm")
begun.intend("disk", "/d")
child = None
{more}
print("ready", child, flush=True)
time.sleep(60)
"""
EXECUTES = 'child = subprocess.Popen(["sleep", "60"], close_fds=False).pid'
FORKS = """child = os.fork()
if not child:
    os.close(1)
    time.sleep(60)
"""


@contextmanager
def running(directory: Path, more: str = "") -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """A process that holds a journal. Yields what kills it, and what kills its child."""
    command = [sys.executable, "-c", CALLER.format(more=more), str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    word = process.stdout.readline().split()[1]
    children = [] if word == "None" else [int(word)]

    def kill() -> None:
        process.kill()
        process.wait()

    def kill_child() -> None:
        while children:
            os.kill(children.pop(), signal.SIGKILL)

    try:
        yield kill, kill_child
    finally:
        kill_child()
        kill()
        process.stdout.close()


def alive(directory: Path) -> list[bool]:
    return [each.alive for each in records(directory)]


def test_a_run_is_dead_when_it_was_killed(tmp_path: Path) -> None:
    with running(tmp_path) as (kill, _):
        assert alive(tmp_path) == [True]
        (path,) = (tmp_path / "journal").iterdir()
        assert Journal.adopted(path) is None
        kill()
        assert alive(tmp_path) == [False]
        assert ids(only(tmp_path)) == ["/d"]


def test_programs_that_a_run_has_executed_do_not_keep_it_alive(tmp_path: Path) -> None:
    with running(tmp_path, EXECUTES) as (kill, _):
        kill()
        assert alive(tmp_path) == [False]


def test_a_forked_child_keeps_it_alive(tmp_path: Path) -> None:
    with running(tmp_path, FORKS) as (kill, kill_child):
        kill()
        assert alive(tmp_path) == [True]
        kill_child()
        for _ in range(500):
            if alive(tmp_path) == [False]:
                break
            threading.Event().wait(0.01)
        assert alive(tmp_path) == [False]


def test_builds_that_begin_at_once_do_not_take_each_other_for_the_dead_run(tmp_path: Path) -> None:
    """Each looks at all journals, and one takes over what it needs."""
    with running(tmp_path) as (kill, _):
        kill()
    (path,) = (tmp_path / "journal").iterdir()
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert alive(tmp_path) == [False]
        threading.Timer(0.05, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        adopted = Journal.adopted(path)
    assert adopted is not None
    adopted.close()


def test_a_dead_journal_is_taken_over_by_one_alone(tmp_path: Path) -> None:
    with running(tmp_path) as (kill, _):
        kill()
    (path,) = (tmp_path / "journal").iterdir()
    adopted = Journal.adopted(path)
    assert adopted is not None and Journal.adopted(path) is None and alive(tmp_path) == [True]
    (entry,) = adopted.entries
    assert (entry.kind, entry.id) == ("disk", "/d")
    entry.done()
    assert adopted.entries == ()
    adopted.close()
    assert not path.exists() and Journal.adopted(path) is None


def test_a_damaged_journal_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "r1.jsonl"
    path.parent.mkdir()
    path.write_text(f"{HEAD}nonsense\n")
    adopted = Journal.adopted(path)
    assert adopted is not None and adopted.record.damaged == 1
    adopted.close()
    assert path.exists()


def test_what_a_run_left_that_died_before_its_journal(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "r1.new").write_text("")
    assert list(records(tmp_path)) == []
    journal.tidy(tmp_path)
    assert list((tmp_path / "journal").iterdir()) == []


def test_nobody_sees_a_journal_unlocked_while_runs_begin(tmp_path: Path) -> None:
    """Sweeps come between at every moment."""
    over = threading.Event()
    seen: list[bool] = []

    def look() -> None:
        while not over.is_set():
            seen.extend(alive(tmp_path))
            journal.tidy(tmp_path)

    looking = [threading.Thread(target=look) for _ in range(2)]
    for thread in looking:
        thread.start()
    try:
        begun = [Journal.begin(directory=tmp_path, host="vm") for _ in range(60)]
    finally:
        over.set()
        for thread in looking:
            thread.join()
    assert alive(tmp_path) == [True] * 60
    assert seen and all(seen)
    for each in begun:
        each.close()
