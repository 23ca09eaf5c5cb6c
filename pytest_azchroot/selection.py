"""What an image's directory holds, to tell whether a run has taken it whole.

pytest has many ways to leave a test out, and most of them are silent: options, ini settings, plugins, conftests, an
exception at import. Instead of watching each of them, the directory itself is read: a test that it holds by
pytest's own defaults and that was not collected has been dropped, by whomever. Pure but for reading files.
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

CONFIG_NAME = "image.yaml"

FILE_PATTERNS = ("test_*.py", "*_test.py")
"""pytest's default ``python_files``."""

SKIPPED_DIRECTORIES = ("*.egg", ".*", "_darcs", "build", "CVS", "dist", "node_modules", "venv", "{arch}", "__pycache__")
"""pytest's default ``norecursedirs``, and its own cache of byte code."""


def test_files(directory: Path, patterns: Iterable[str] = ()) -> Iterator[Path]:  # noqa: PT028  it is no test
    """The test files of an image, those of images nested in it left out.

    :param patterns: names of test files beside pytest's default ones.
    """
    patterns = (*FILE_PATTERNS, *patterns)
    for path, directories, files in os.walk(directory, followlinks=True):
        here = Path(path)
        directories[:] = sorted(
            name
            for name in directories
            if not any(fnmatch(name, pattern) for pattern in SKIPPED_DIRECTORIES)
            and not (here / name / CONFIG_NAME).is_file()
            and not here.resolve().is_relative_to((here / name).resolve())  # a link in a circle
        )
        for name in sorted(files):
            if any(fnmatch(name, pattern) for pattern in patterns):
                yield here / name


def test_names(source: str | bytes) -> list[str]:
    """The tests that a module defines by pytest's default naming rules, as ``test_a`` and ``TestB::test_c``.

    A name that is defined twice is there twice.

    Only what stands unconditionally at the top of the module or of a class: what an ``if`` decides, the author has
    decided. A module that does not parse has none here; pytest reports it as a collection error.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pytest shows them when it imports the module
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    return [*_names(tree.body)]


def _names(body: list[ast.stmt]) -> Iterator[str]:
    if _opts_out(body):
        return
    yield from _functions(body)
    for node in body:
        if isinstance(node, ast.ClassDef) and _is_test_class(node):
            yield from (f"{node.name}::{name}" for name in _names(node.body))


def _is_test_class(node: ast.ClassDef) -> bool:
    """By its name, or because unittest made it one, whatever its name."""
    return node.name.startswith("Test") or any(ast.unparse(base).endswith("TestCase") for base in node.bases)


def _functions(body: list[ast.stmt]) -> Iterator[str]:
    """Names of the test functions among some statements; a fixture may be named like one."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test"):
            continue
        if not any(map(_is_fixture, node.decorator_list)):
            yield node.name


def _is_fixture(decorator: ast.expr) -> bool:
    """``@pytest.fixture``, with arguments or without; not ``@pytest.mark.usefixtures("x")``."""
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator).endswith("fixture")


def _opts_out(body: list[ast.stmt]) -> bool:
    """``__test__ = False``: pytest's own way of saying that this is no test."""
    return any(
        isinstance(node, ast.Assign | ast.AnnAssign)
        and "__test__" in map(ast.unparse, node.targets if isinstance(node, ast.Assign) else [node.target])
        and isinstance(node.value, ast.Constant)
        and node.value.value is False
        for node in body
    )
