"""The first error is the one to show; what goes wrong afterwards goes with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from pytest_azchroot.errors import AzchrootError, DirtyImageError, DiskError, SandboxError, attach, recast, told
from pytest_azchroot.leaving import Leaving, afterwards, attached_to, is_interrupted, joined
from pytest_azchroot.sandbox import faults


def failing(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@contextmanager
def resource(error: BaseException) -> Iterator[None]:
    """Something whose release fails."""
    try:
        yield
    finally:
        raise error


# ---- the text


def test_later_errors_are_lines_at_the_end() -> None:
    error = DiskError("it broke", why="a reason", hint="mend it")
    attach(error, SandboxError("it did not end", why="it hangs"))
    attach(error, ValueError("strange"))
    assert str(error) == "it broke: a reason\nhint: mend it\nthen: it did not end: it hangs\nthen: ValueError: strange"


def test_what_is_said_is_not_said_again() -> None:
    error, later = DiskError("it broke"), SandboxError("later")
    attach(later, DiskError("even later"))
    for each in (later, later, SandboxError("even later"), DiskError("it broke"), error):
        attach(error, each)
    assert str(error) == "it broke\nthen: later\nthen: even later"


def test_a_part_of_what_is_said_is_another_error() -> None:
    error = DiskError("the disk is busy")
    attach(error, DiskError("the disk"))
    attach(error, DiskError("busy"))
    assert str(error) == "the disk is busy\nthen: the disk\nthen: busy"


def test_a_strangers_error_has_notes() -> None:
    error = ValueError("strange")
    attach(error, DiskError("later"))
    attach(error, DiskError("last"))
    assert error.__notes__ == ["then: later", "then: last"]  # type: ignore[attr-defined]
    assert told(error) == "ValueError: strange\nthen: later\nthen: last"


def test_a_strangers_error_says_where_it_was_raised() -> None:
    with pytest.raises(ValueError) as caught:
        failing(ValueError("strange"))()
    first = DiskError("first")
    attach(first, caught.value)
    line = failing.__code__.co_firstlineno + 2
    assert str(first) == f"first\nthen: ValueError: strange (in fail, {__file__}:{line})"


def test_an_error_of_another_kind_keeps_what_is_attached() -> None:
    error = SandboxError("first", why="a reason")
    attach(error, DiskError("later"))
    other = recast(error, DirtyImageError)
    assert (type(other), str(other)) == (DirtyImageError, "first: a reason\nthen: later")
    assert recast(other, SandboxError) is other


@pytest.mark.parametrize(
    "error",
    [
        DiskError("first", why="a reason", hint="a hint"),
        faults.BusyError("first", why=None, point="/", devices=[1]),
        OSError(2, "No such file", "/x"),
        ValueError("strange"),
    ],
)
def test_what_is_attached_comes_over_the_wire(error: BaseException) -> None:
    attach(error, DiskError("later"))
    attach(error, DiskError("last"))
    assert str(faults.decode(faults.encode(error))).endswith("\nthen: later\nthen: last")


# ---- the ways out


def test_a_release_does_not_hide_the_error() -> None:
    with pytest.raises(DiskError) as caught, afterwards(failing(SandboxError("later"))):
        raise DiskError("first")
    assert str(caught.value) == "first\nthen: later"


def test_a_release_that_fails_alone_is_the_error() -> None:
    with pytest.raises(SandboxError, match=r"\Aonly\Z"), afterwards(failing(SandboxError("only"))):
        pass


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_during_a_release_goes_first(interrupt: type[BaseException]) -> None:
    with pytest.raises(interrupt) as caught, afterwards(failing(interrupt())):
        raise DiskError("first")
    assert "first" in "".join(caught.value.__notes__)  # type: ignore[attr-defined]


def test_what_is_interrupted_stays_so() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, afterwards(failing(DiskError("later"))):
        raise KeyboardInterrupt
    assert caught.value.__notes__ == ["then: later"]  # type: ignore[attr-defined]


def test_attached_to_does_not_stop_what_follows() -> None:
    first = DiskError("first")
    with attached_to(first):
        raise SandboxError("later")
    assert str(first) == "first\nthen: later"


def test_everything_is_released_and_the_first_error_is_raised() -> None:
    released: list[str] = []
    stack = Leaving()
    stack.callback(released.append, "outermost")
    stack.enter_context(resource(ValueError("last")))
    stack.callback(failing(SandboxError("later")))
    stack.enter_context(suppress(DiskError))
    stack.callback(released.append, "innermost")
    with pytest.raises(DiskError) as caught, stack:
        raise DiskError("first")
    assert str(caught.value).splitlines()[:2] == ["first", "then: later"]
    assert "then: ValueError: last" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3
    assert released == ["innermost", "outermost"]


def test_of_releases_that_fail_the_first_is_raised() -> None:
    stack = Leaving()
    for error in (DiskError("third"), DiskError("second"), DiskError("first")):
        stack.enter_context(resource(error))
    with pytest.raises(DiskError) as caught:
        stack.close()
    assert str(caught.value) == "first\nthen: second\nthen: third"


def test_a_manager_that_translates_the_error_does_not_hide_it() -> None:
    @contextmanager
    def translating() -> Iterator[None]:
        try:
            yield
        except DiskError as error:
            raise SandboxError("in other words") from error

    stack = Leaving()
    stack.enter_context(translating())
    with pytest.raises(DiskError, match="first\nthen: in other words"), stack:
        raise DiskError("first")


def test_a_stack_in_a_stack() -> None:
    outer = Leaving()
    outer.enter_context(resource(DiskError("third")))
    outer.enter_context(Leaving()).enter_context(resource(DiskError("second")))
    with pytest.raises(DiskError) as caught, outer:
        raise DiskError("first")
    assert str(caught.value) == "first\nthen: second\nthen: third"


# ---- what pytest makes of several


class GroupError(Exception):
    """Looks like an ExceptionGroup, which Python 3.10 has not."""

    def __init__(self, *exceptions: BaseException) -> None:
        super().__init__("errors while tearing down")
        self.exceptions = exceptions


def test_the_first_of_a_group() -> None:
    first, second, third = DiskError("first"), ValueError("second"), DiskError("third")
    assert joined(GroupError(third, GroupError(second, first))) is first
    assert str(first) == "first\nthen: ValueError: second\nthen: third"


@pytest.mark.parametrize("error", [AzchrootError("alone"), ValueError("alone"), GroupError(ValueError(), KeyError())])
def test_what_is_no_group_of_ours_stays(error: BaseException) -> None:
    assert joined(error) is error


@pytest.mark.parametrize(("error", "expected"), [(KeyboardInterrupt(), True), (OSError(), False)], ids=repr)
def test_ctrl_c_is_seen_by_the_releases_that_it_leaves_behind(error: BaseException, expected: bool) -> None:
    seen: list[bool] = []

    def release() -> None:
        try:
            raise ValueError
        except ValueError:
            seen.append(is_interrupted())

    def build() -> None:
        with Leaving() as stack:
            stack.callback(release)
            raise error

    with pytest.raises(type(error)):
        build()
    release()
    assert seen == [expected, False]
