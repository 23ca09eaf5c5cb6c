"""The tutorial, followed from its first line to its last."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import markdown, shell

TUTORIAL = markdown.ROOT / "docs" / "tutorial.md"


@pytest.mark.root
def test_tutorial_is_true(tmp_path: Path) -> None:
    shell.follow(markdown.blocks(TUTORIAL), tmp_path)


def test_a_line_of_dots_stands_for_any_lines() -> None:
    assert shell.matches("a\n...\nb\n", "a\nx\ny\nb\n")
    assert shell.matches("...\nb\n", "b\n")
    assert not shell.matches("a\n...\nb\n", "a\nx\n")
    assert not shell.matches("a\n", "a\nb\n")


def test_dots_in_a_line_stand_for_anything() -> None:
    assert shell.matches("in .../x: no\n", "in /tmp/x: no\n")
    assert not shell.matches("in .../x: no\n", "in /tmp/x: yes\n")


def test_times_and_sizes_may_differ() -> None:
    assert shell.matches("== 5 passed in 0.30s ==\n", "== 5 passed in 61.30s (0:01:01) ==\n")
    assert shell.matches("x  published  [attach 0.1 s]\n", "x  published\n")
    assert not shell.matches("== 5 passed in 0.30s ==\n", "== 4 passed in 0.30s ==\n")
