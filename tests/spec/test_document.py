"""What is wrong with the text itself is said with its line, and the rest is read all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.spec import BUILTIN_CLOUDS, ConfigError, load
from pytest_azchroot.spec.document import parse

from .reading import Case, check, problems

LOCAL = "cloud: local\nsource: a.vhd\noutput: b.vhd\n"

CASES = [
    Case("empty", "", [(None, "", "is empty")]),
    Case("only a comment", "# nothing\n", [(None, "", "is empty")]),
    Case("a list", "- a\n", [(1, "", "a mapping of options is meant, not a list")]),
    Case("a word", "hello\n", [(1, "", "not the text 'hello'")]),
    Case("two documents", LOCAL + "---\na: b\n", [(5, "", "a second document begins here")]),
    Case("a tab", "mount_options:\n\t- a\n", [(2, "", "replace the tab")]),
    Case("not closed", LOCAL + "mount_options: [a\n", [(5, "", "is not YAML")]),
    Case("a key twice", LOCAL + "source: c.vhd\n", [(4, "source", "given twice, first in line 2")]),
    Case(
        "a key twice below",
        LOCAL + "variables:\n  a: 1\n  a: 2\n",
        [(6, "variables.a", "given twice, first in line 5")],
    ),
    Case("a tag", LOCAL + "checks: !secret none\n", [(4, "checks", "the YAML tag !secret means nothing here")]),
    Case(
        "a Python object",
        LOCAL + "checks: !!python/name:os.system none\n",
        [(4, "checks", "the YAML tag !!python/name:os.system means nothing here")],
    ),
    Case(
        "a tag that lies",
        LOCAL + "os_disk_size_gb: !!int x\n",
        [(4, "os_disk_size_gb", "not what its tag says"), (4, "os_disk_size_gb", "a whole number is meant")],
    ),
    Case("a key that is a list", LOCAL + "? [a]\n: b\n", [(4, "", "a key must be a plain word")]),
    Case("an unquoted template", LOCAL + "mount_path: {{ device }}\n", [(4, "mount_path", 'quoted: "{{ … }}"')]),
    Case("a template before text", LOCAL + "mount_path: {{ device }}/x\n", [(4, "", 'quoted: "{{ … }}"')]),
    Case("itself", LOCAL + "mount_options: &a [*a]\n", [(4, "mount_options[0]", "contains itself")]),
    Case("merging a text", LOCAL + "<<: x\n", [(4, "", "<< merges mappings only")]),
]


@pytest.mark.parametrize("case", [case.param for case in CASES])
def test_what_is_wrong_with_the_text_is_said_with_its_line(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


def test_aliases_cannot_explode() -> None:
    text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
    )
    assert [each.message for each in parse(text).complaints] == ["its aliases stand for too many values"]


def test_deep_nesting_is_a_problem_and_no_crash() -> None:
    assert parse("[" * 5000).complaints


def test_bytes_that_are_not_utf8_are_a_problem(tmp_path: Path) -> None:
    (found,) = parse(b"a: b\nc: \xff\n").complaints
    assert (found.line, found.message) == (2, "is not UTF-8 text")


def test_a_byte_order_mark_is_fine() -> None:
    assert parse(b"\xef\xbb\xbfa: b\n").value == {"a": "b"}


def test_a_control_character_is_a_problem() -> None:
    (found,) = parse("a: b\nc: \x07\n").complaints
    assert found.line == 2


def test_anchors_and_merges_keep_lines() -> None:
    document = parse("base: &base\n  x: 1\n  y: 2\nmore:\n  <<: *base\n  y: 3\n")
    assert document.value["more"] == {"x": 1, "y": 3}
    assert (document.lines["more", "x"], document.lines["more", "y"]) == (2, 6)


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("1_000", 1000),
        ("0x1f", 31),
        ("0o17", 15),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("yes", True),
        ("Off", False),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("1.0.0", "1.0.0"),
        ("010", "010"),
        ("12:30:45", "12:30:45"),
        ("2026-01-31", "2026-01-31"),
        ("nope", "nope"),
        ("'yes'", "yes"),
        ("!!str 1.10", "1.10"),
        ("-", [None]),
    ],
)
def test_scalars(spelling: str, value: Any) -> None:
    assert parse(f"a: {spelling}" if spelling != "-" else "a:\n-\n").value == {"a": value}


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "image.yaml", clouds=BUILTIN_CLOUDS)


def test_problems_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = problems(tmp_path, "cloud: local\nmount_optons: [a]\nsource: a\nsource: b\nchecks: no\n")
    assert [each.line for each in found] == [2, 4, 5, None]
