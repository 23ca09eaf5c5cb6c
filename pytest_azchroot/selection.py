"""What an image's directory holds, to tell whether a run has taken it whole.

pytest has many ways to leave a test out, and most of them are silent: options, ini settings, plugins, conftests, an
exception at import. Instead of watching each of them, the directory itself is read: a test that it holds by
pytest's own defaults and that was not collected has been dropped, by whomever. Pure but for reading files.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

CONFIG_NAME = "image.yaml"

FILE_PATTERNS = ("test_*.py", "*_test.py")
"""pytest's default ``python_files``."""

SKIPPED_DIRECTORIES = ("*.egg", ".*", "_darcs", "build", "CVS", "dist", "node_modules", "venv", "{arch}", "__pycache__")
"""pytest's default ``norecursedirs``, and its own cache of byte code."""


def test_files(directory: Path) -> Iterator[Path]:
    """The test files of an image, those of images nested in it left out."""
    for path, directories, files in os.walk(directory):
        here = Path(path)
        directories[:] = sorted(
            name
            for name in directories
            if not any(fnmatch(name, pattern) for pattern in SKIPPED_DIRECTORIES)
            and not (here / name / CONFIG_NAME).is_file()
        )
        for name in sorted(files):
            if any(fnmatch(name, pattern) for pattern in FILE_PATTERNS):
                yield here / name


def test_names(source: str) -> list[str]:
    """The tests that a module defines by pytest's default naming rules, as ``test_a`` and ``TestB::test_c``.

    Only what stands unconditionally at the top of the module or of a class: what an ``if`` decides, the author has
    decided. A module that does not parse has none here; pytest reports it as a collection error.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    if _opts_out(tree.body):
        return []
    names = [*_functions(tree.body)]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test") and not _opts_out(node.body):
            names += [f"{node.name}::{name}" for name in _functions(node.body)]
    return names


def _functions(body: list[ast.stmt]) -> Iterator[str]:
    """Names of the test functions among some statements; a fixture may be named like one."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test"):
            continue
        if not any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list):
            yield node.name


def _opts_out(body: list[ast.stmt]) -> bool:
    """``__test__ = False``: pytest's own way of saying that this is no test."""
    return any(
        isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "__test__" for target in node.targets)
        and isinstance(node.value, ast.Constant)
        and node.value.value is False
        for node in body
    )
