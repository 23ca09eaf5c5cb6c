"""Text of an image, as it can be shown on a terminal: it may hold what steers one, what turns the direction of writing,
line ends that make two messages of one, and bytes that are no UTF-8."""

from __future__ import annotations

import re

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")  # ECMA-48, "SGR": how the text behind it looks


def printable(text: str, *, kept: str = "", colours: bool = False) -> str:
    """The text with everything escaped that is no visible character.

    :param kept: characters that are left alone.
    :param colours: leave colours alone too, and end them.
    """
    parts = _COLOUR.split(text) if colours else [text]
    words = [part if at % 2 else _escaped(part, kept) for at, part in enumerate(parts)]
    return "".join(words) + ("\x1b[0m" if len(parts) > 1 else "")


def _escaped(text: str, kept: str) -> str:
    return "".join(
        each if each.isprintable() or each in kept else each.encode("unicode-escape").decode("ascii") for each in text
    )


def abridged(text: str, width: int = 40) -> str:
    """Enough of a command to know it by, in one line.

    :param width: in characters.
    """
    words = " ".join(text.split())
    return words if len(words) <= width else f"{words[: width - 1]}…"
