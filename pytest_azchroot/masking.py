"""Secrets do not appear in output: each form in which one can stand in a text becomes ``***``. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

SHORTEST_SECRET = 4
"""Characters. Masking anything shorter would shred the output and tell the secret by what is missing."""

MASK = "***"
_ELLIPSES = re.compile(r"\.\.\.|…")


class Masker:
    """Replaces secrets in texts.

    A secret is found verbatim, as ``repr()``, ``ascii()``, JSON or a shell would write it, and as one of these
    inside another; each line of it too; and what is left of it beside an ellipsis, as pytest truncates.

    :param secrets: texts of :data:`SHORTEST_SECRET` characters or more.
    :raises ValueError: a secret is shorter than that.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        secrets = list(secrets)
        if any(len(secret.strip()) < SHORTEST_SECRET for secret in secrets):
            raise ValueError(f"a secret of less than {SHORTEST_SECRET} characters cannot be masked")
        forms = {form for secret in secrets for part in _parts(secret) for form in _forms(part)}
        self._forms = sorted((form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if self._forms else None
        self._heads, self._tails = _truncated(self._forms)

    def mask(self, text: str) -> str:
        """The text without secrets; the same object where there is none."""
        if self._pattern is None:
            return text
        spans = []
        found = self._pattern.search(text)
        while found is not None:
            spans.append(found.span())
            # From the next character, not the next match: of two secrets that overlap neither may show its end.
            found = self._pattern.search(text, found.start() + 1)
        for ellipsis in _ELLIPSES.finditer(text):
            spans += self._beside(text, ellipsis.start(), ellipsis.end())
        return _cover(text, spans) if spans else text

    def mask_data(self, data: Any) -> Any:
        """The same for JSON-like data: texts and numbers at any depth, keys too."""
        if isinstance(data, str):
            return self.mask(data)
        if isinstance(data, dict):
            return {self.mask_data(key): self.mask_data(value) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return type(data)(map(self.mask_data, data))
        if isinstance(data, (int, float)) and not isinstance(data, bool):
            masked = self.mask(str(data))
            return data if masked == str(data) else masked
        return data

    def _beside(self, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """What is left of secrets before and behind an ellipsis."""
        for form, size in self._heads.get(text[max(start - SHORTEST_SECRET, 0) : start], ()):
            if text.endswith(form[:size], 0, start):
                yield start - size, start
                break
        for form, size in self._tails.get(text[end : end + SHORTEST_SECRET], ()):
            if text.startswith(form[-size:], end):
                yield end, end + size
                break


_Index: TypeAlias = "dict[str, list[tuple[str, int]]]"


def _truncated(forms: Iterable[str]) -> tuple[_Index, _Index]:
    """What may be left of each form, the longest first: beginnings by their end, and ends by their beginning.

    By few characters, because output may hold many an ellipsis, and few of them stand beside a secret.
    """
    heads: _Index = {}
    tails: _Index = {}
    for form in forms:
        for size in range(SHORTEST_SECRET, len(form)):
            heads.setdefault(form[size - SHORTEST_SECRET : size], []).append((form, size))
            tails.setdefault(form[-size:][:SHORTEST_SECRET], []).append((form, size))
    for found in (*heads.values(), *tails.values()):
        found.sort(key=lambda each: -each[1])
    return heads, tails


def _parts(secret: str) -> set[str]:
    """The secret, and its lines: output is often shown line by line, and indented."""
    lines = (line.strip() for line in secret.splitlines())
    return {secret, secret.strip(), *(line for line in lines if len(line) >= SHORTEST_SECRET)}


def _forms(part: str) -> set[str]:
    once = {part, *(write(part) for write in _WRITERS)}
    # Twice, because a command line with a quoted secret is often shown by its repr().
    return once | {write(form) for form in once for write in _WRITERS}


def _repr(text: str) -> str:
    return repr(text)[1:-1]


def _repr_both_quotes(text: str) -> str:
    """How repr() writes it in a text that holds both kinds of quotes: with the single ones escaped."""
    return repr(f"\"{text}'")[2:-3]


def _ascii(text: str) -> str:
    return ascii(text)[1:-1]


def _json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _json_unicode(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _shell(text: str) -> str:
    """The inside of the quotes that :func:`shlex.quote` puts around."""
    quoted = shlex.quote(text + " ")
    return quoted[1:-2]


_WRITERS: tuple[Callable[[str], str], ...] = (_repr, _repr_both_quotes, _ascii, _json, _json_unicode, _shell)


def _cover(text: str, spans: list[tuple[int, int]]) -> str:
    pieces = []
    done = 0
    spans.sort()
    index = 0
    while index < len(spans):
        start, end = spans[index]
        while index + 1 < len(spans) and spans[index + 1][0] < end:
            index += 1
            end = max(end, spans[index][1])
        pieces += [text[done:start], MASK]
        done = end
        index += 1
    return "".join([*pieces, text[done:]])
