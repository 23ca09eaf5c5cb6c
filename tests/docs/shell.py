"""Doing what a page says, and comparing what comes with what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from .markdown import Block

_VARYING = (
    (re.compile(r"  \[[a-z_]+ \d[^\]]*\]$", re.MULTILINE), ""),  # the stages that took long enough to be named
    (re.compile(r"\d+(\.\d+)? MiB on disk"), "N MiB on disk"),
    (re.compile(r"/dev/loop\d+"), "/dev/loopN"),
    (re.compile(r" in \d+\.\d+s( \(\d+:\d+:\d+\))?"), " in N s"),
    (re.compile(r"(={3,}|_{3,}|-{3,}|!{3,})"), "==="),  # as wide as the words between them leave room for
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
)


def follow(blocks: Iterable[Block], directory: Path, *, tools: Path | None = None) -> None:
    """Write the files and run the commands of a page, in its order.

    :param tools: a directory whose programs go before all others.
    """
    code = 0
    for block in blocks:
        if block.file:
            path = directory / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.content)
        elif block.language == "console":
            for command, expected in block.commands():
                code, printed = run(command, directory, last=code, tools=tools)
                if not matches(expected, printed):
                    message = f"{block}: `{command}` printed (exit code {code})\n\n{printed}\nand not\n\n{expected}"
                    pytest.fail(message, pytrace=False)


def run(command: str, directory: Path, *, last: int = 0, tools: Path | None = None) -> tuple[int, str]:
    """Run what somebody typed, after a command that ended with ``last``; the exit code, and all that was printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_") and name != "CI"}
    first = [str(path) for path in (tools, Path(sys.executable).parent) if path]
    environment |= {
        "PATH": ":".join([*first, environment["PATH"]]),
        "COLUMNS": "80",
        "PYTHONUNBUFFERED": "1",  # else stdout and stderr would not come in the order of their writing
        "PYTHONDONTWRITEBYTECODE": "1",  # a file that is rewritten within a second must be read again
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
    }
    done = subprocess.run(
        ["bash", "-c", f"(exit {last})\n{command}"],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def matches(expected: str, printed: str) -> bool:
    """Whether this was printed: a line ``...`` stands for any lines, and ``...`` within one for anything."""
    pattern = ""
    for line in _plain(expected).splitlines():
        pattern += r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
    return re.fullmatch(pattern, _plain(printed)) is not None


def _plain(text: str) -> str:
    for varying, constant in _VARYING:
        text = varying.sub(constant, text)
    return text if text.endswith("\n") or not text else text + "\n"
