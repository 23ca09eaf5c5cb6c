"""What the pages of the documentation hold: fenced examples, links, headings. Pure.

The conventions, all of them visible to a reader:

- The first line of an example may name its file in a comment: ``# images/hello/image.yaml``, and more after a colon.
- ``console`` is what was typed, after ``# `` (root's prompt), and what was printed. ``...`` stands for anything.
- ``sh`` is what to type where it cannot be tried here, such as an installation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|ya?ml|toml|ini|cfg|sh|html))(?::.*)?$")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced example."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @cached_property
    def file(self) -> str | None:
        """The path of the file that this is, as its first line says."""
        named = _FILE.match(self.text.partition("\n")[0])
        return named[1] if named else None

    @cached_property
    def content(self) -> str:
        """What is in that file: all of it, but a script begins with its ``#!`` and not with its name."""
        rest = self.text.partition("\n")[2]
        return rest if rest.startswith("#!") else self.text

    def commands(self) -> Iterator[tuple[str, str]]:
        """Of a ``console`` block: each command, and what it printed."""
        command, printed = "", ""
        for line in self.text.splitlines():
            if line.startswith("# "):
                if command:
                    yield command, printed
                command, printed = line[2:], ""
            elif command.endswith("\\") and not printed:
                command += "\n" + line
            else:
                printed += line + "\n"
        if command:
            yield command, printed


def pages() -> list[Path]:
    """The pages that a reader may come to."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The examples of a page, in order, without the indentation that a list gives them."""
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        lines = (line.removeprefix(match["indent"]) for line in match["text"].splitlines(keepends=True))
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, match["language"], "".join(lines)))
    return found


def links(page: Path) -> list[str]:
    """The targets of a page's links, those in examples left out."""
    return _LINK.findall(_FENCE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """What can follow ``#`` in a link to a page, by the rule of GitHub."""
    return {_slug(heading) for heading in _HEADING.findall(_FENCE.sub("", page.read_text()))}


def _slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")
