"""How moments are drawn from a trace: as data."""

from __future__ import annotations

import struct
from itertools import islice

import pytest

from . import calls
from .moments import Call, Moment, draw, numbered, stages_of, tally

ROWS = [
    ("create", "caller", "openat(unnamed)"),
    ("attach", "keeper", "unshare"),
    *[("attach", "holder", "mount")] * 3,
    *[("attach", "holder", "close")] * 40,
    *[("attach", "tool", "execve")] * 2,
    ("attach", "holder", "exit_group"),
    ("publish", "caller", "linkat"),
    ("publish", "caller", "linkat"),
]
TRACE = numbered(ROWS)


def drawn(victim: str, stage: str, *, seed: int = 1) -> list[Moment]:
    return list(draw(TRACE, victim=victim, stage=stage, seed=seed))


def test_calls_are_numbered_by_stage_role_and_kind() -> None:
    assert TRACE[-1] == Call("publish", "caller", "linkat", 2)
    assert TRACE[4] == Call("attach", "holder", "mount", 3)
    assert stages_of(TRACE) == ["create", "attach", "publish"]


def test_a_moment_is_read_as_it_is_written() -> None:
    moment = Moment("keeper", Call("seal", "holder", "ioctl(LOOP_CLR_FD)", 2), "after")
    assert str(moment) == "keeper:seal:after:holder:ioctl(LOOP_CLR_FD):2"
    assert Moment.parse(str(moment)) == moment


@pytest.mark.parametrize("text", ["", "a:b", "holder:seal:never:holder:mount:1", "holder:seal:after:holder:mount:x"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Moment.parse(text)


def test_the_same_seed_draws_the_same() -> None:
    assert drawn("holder", "attach") == drawn("holder", "attach")
    assert drawn("holder", "attach") != drawn("holder", "attach", seed=2)


def test_each_moment_comes_once() -> None:
    found = drawn("holder", "attach")
    ended, others = 1, 3 + 40 + 2
    assert len(found) == len(set(found)) == ended + 3 * others
    assert len({moment.call for moment in found[: ended + others]}) == ended + others


def test_the_victims_own_calls_and_those_of_others_take_turns() -> None:
    own = [moment.call.role == "holder" for moment in islice(drawn("holder", "attach"), 4)]
    assert own == [True, False, True, False]


def test_a_tool_is_killed_at_its_own_calls_only() -> None:
    assert {moment.call.role for moment in drawn("tool", "attach")} == {"tool"}


def test_a_victim_is_killed_only_while_it_lives() -> None:
    assert drawn("holder", "publish") == []
    assert all(moment.call.role != "keeper" for moment in drawn("holder", "attach"))


def test_what_changes_something_comes_before_what_does_not() -> None:
    places = [
        [moment.call.kind for moment in drawn("holder", "attach", seed=seed)].index("mount") for seed in range(50)
    ]
    others = [
        [moment.call.kind for moment in drawn("holder", "attach", seed=seed)].index("close") for seed in range(50)
    ]
    assert sum(places) < sum(others)


def test_nothing_comes_after_the_last_call() -> None:
    for seed in range(20):
        last = [each.when for each in drawn("holder", "attach", seed=seed) if each.call.kind == "exit_group"]
        assert last == ["before"]


def test_the_tally_counts_by_stage_and_victim() -> None:
    moments = [
        Moment("holder", TRACE[2], "after"),
        Moment("holder", TRACE[3], "after"),
        Moment("caller", TRACE[0], "before"),
    ]
    assert tally(moments).splitlines() == [
        "            caller  holder",
        "attach           0       2",
        "create           1       0",
    ]


# -- the filter, as the kernel would run it


def stopped_at(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int | None:
    """At which call the filter stops, None if it lets it pass."""
    known = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    values = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=iIQ6Q", number, known if architecture is None else architecture, 0, *values)
    code = list(struct.iter_unpack("HBBI", calls.program(machine)))
    place = loaded = 0
    while True:
        operation, if_true, if_false, value = code[place]
        place += 1
        if operation == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif operation == 0x15:
            place += if_true if loaded == value else if_false
        elif operation == 0x45:
            place += if_true if loaded & value else if_false
        else:
            return value & 0xFFFF if value & 0x7FFF0000 == 0x7FF00000 else None


@pytest.mark.parametrize(
    ("machine", "number", "name"),
    [("x86_64", 165, "mount"), ("x86_64", 86, "link"), ("aarch64", 40, "mount"), ("aarch64", 37, "linkat")],
)
def test_the_filter_stops_at_a_call(machine: str, number: int, name: str) -> None:
    index = stopped_at(machine, number)
    assert index is not None and calls.NAMES[index] == name


@pytest.mark.parametrize(
    ("arguments", "label"),
    [
        ((0, 0, 0), None),
        ((0, 0, 0o1), "openat(write)"),
        ((0, 0, 0o102), "openat(create)"),
        ((0, 0, 0o20200002), "openat(unnamed)"),
    ],
)
def test_a_file_opened_for_reading_passes(arguments: tuple[int, ...], label: str | None) -> None:
    index = stopped_at("x86_64", 257, *arguments)
    assert (None if index is None else calls.label(calls.NAMES[index], arguments)) == label


@pytest.mark.parametrize(
    ("number", "label"), [(0x5401, None), (0x1269, "ioctl(BLKPG)"), (0x4C0A, "ioctl(LOOP_CONFIGURE)")]
)
def test_an_ioctl_of_a_terminal_passes(number: int, label: str | None) -> None:
    index = stopped_at("x86_64", 16, 3, number)
    assert (None if index is None else calls.label(calls.NAMES[index], (3, number))) == label


def test_a_read_passes() -> None:
    assert stopped_at("x86_64", 0) is None


def test_calls_of_32_bit_programs_pass() -> None:
    assert stopped_at("x86_64", 165, architecture=0x40000003) is None


def test_an_unknown_machine_is_an_error() -> None:
    with pytest.raises(KeyError):
        calls.program("m68k")
