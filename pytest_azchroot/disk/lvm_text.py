"""The text in which LVM writes what a volume group is made of. Pure: bytes in, sections out.

Its grammar is that of lvm.conf(5): ``name { … }`` is a section, ``name = value`` a value; a value is a number, a text
in quotes, or a list of these in brackets; ``#`` begins a comment. What is not in what LVM writes itself (``@`` tags,
``/`` in names of sections, floating point) is not read. The text is an image's: its length, depth and numbers have
bounds.
"""

from __future__ import annotations

import re
from typing import Union

from pytest_azchroot.errors import DiskError

Value = Union[int, str, "list[int | str]"]
Section = dict[str, Union[Value, "Section"]]

LONGEST = 16 << 20
"""Bytes. LVM's own metadata areas are of 1 MiB unless somebody asks for more (pvcreate(8), ``--metadatasize``)."""

_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,126}")  # lvm(8), "VALID NAMES"
_LARGEST = 1 << 63
_DEEPEST = 8  # what LVM writes has four levels
_TOKEN = re.compile(
    r"""(?:\s+|\#[^\n]*)*
    (?:(?P<text>"(?:[^"\\]|\\.)*")
    |(?P<number>-?[0-9]{1,20})(?![0-9A-Za-z_.+\-])
    |(?P<name>[A-Za-z0-9_.+\-]+)
    |(?P<sign>[{}\[\]=,])
    |(?P<end>\Z))""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def parse(data: bytes) -> Section:
    """The sections of a text, in its order. It ends at its first NUL.

    :raises DiskError: it is not as LVM writes it.
    """
    if len(data) > LONGEST:
        raise damaged(f"it is longer than {LONGEST >> 20} MiB")
    # what is no UTF-8 may be in a description, which nobody reads
    return _Reader(data.split(b"\0", 1)[0].decode("utf-8", errors="surrogateescape")).section()


class _Reader:
    """Reads tokens, one ahead. Sections are on a stack of ours: depth is the image's choice."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._next()

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise self._unexpected()
        self._kind, self._token = match.lastgroup or "", match[match.lastgroup or 0]
        self._start, self._at = match.start(match.lastgroup or 0), match.end()

    def _unexpected(self) -> DiskError:
        line = self._text.count("\n", 0, self._at) + 1
        return damaged(f"line {line} is not as LVM writes it")

    def _take(self, sign: str) -> bool:
        if self._kind != "sign" or self._token != sign:
            return False
        self._next()
        return True

    def section(self) -> Section:
        top: Section = {}
        stack = [top]
        while self._kind != "end":
            if self._take("}"):
                stack.pop()
                if not stack:
                    raise self._unexpected()
                continue
            name = self._name()
            if name in stack[-1]:
                raise damaged(f"{name!r} is there twice")
            if self._take("{"):
                if len(stack) >= _DEEPEST:
                    raise damaged(f"its sections are more than {_DEEPEST} deep")
                inner: Section = {}
                stack[-1][name] = inner
                stack.append(inner)
            elif self._take("="):
                stack[-1][name] = self._value()
            else:
                raise self._unexpected()
        if len(stack) > 1:
            raise damaged("it ends within a section")
        return top

    def _name(self) -> str:
        if self._kind not in {"name", "number"}:
            raise self._unexpected()
        name = self._token
        self._next()
        return name

    def _value(self) -> Value:
        if not self._take("["):
            return self._scalar()
        found: list[int | str] = []
        while not self._take("]"):
            found.append(self._scalar())
            if not self._take(",") and self._token != "]":
                raise self._unexpected()
        return found

    def _scalar(self) -> int | str:
        kind, token = self._kind, self._token
        if kind not in {"text", "number"}:
            raise self._unexpected()
        self._next()
        return int(token) if kind == "number" else _ESCAPE.sub(r"\1", token[1:-1])


# ---- what is in a section; each raises DiskError


def section(row: Section, name: str) -> Section:
    """The section of this name."""
    value = row.get(name)
    if not isinstance(value, dict):
        raise damaged(f"its metadata has no {name}")
    return value


def sections(row: Section, name: str) -> dict[str, Section]:
    """The sections in one that may be missing."""
    rows = row.get(name, {})
    if not isinstance(rows, dict):
        raise damaged(f"in its metadata {name} is no section")
    return {each: value for each, value in rows.items() if isinstance(value, dict)}


def number(row: Section, name: str, *, least: int = 0) -> int:
    """A number that is at least as large as this one."""
    value = row.get(name)
    if not isinstance(value, int) or not least <= value < _LARGEST:
        raise damaged(f"in its metadata {name} is not a possible number")
    return value


def word(row: Section, name: str) -> str:
    """A text."""
    value = row.get(name)
    if not isinstance(value, str):
        raise damaged(f"in its metadata {name} is no text")
    return value


def words(row: Section, name: str) -> list[str]:
    """A list of texts, which may be missing."""
    value = row.get(name, [])
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def valid_name(name: str) -> str:
    """A name of LVM's, which says so."""
    if not _NAME.fullmatch(name):
        raise damaged(f"{name!r} is no name of LVM's")
    return name


def identity(value: str | bytes) -> str:
    """A UUID of LVM's without its hyphens (lvm2: ``id_format.c``)."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    plain = text.replace("-", "")
    if not re.fullmatch(r"[0-9a-zA-Z!#]{32}", plain):
        raise damaged("it has an impossible UUID")
    return plain


def group(text: Section) -> tuple[str, Section]:
    """Name and section of the volume group: the first section (lvm2: ``_read_vg``)."""
    for name, value in text.items():
        if isinstance(value, dict):
            return valid_name(name), value
    raise damaged("its metadata describes no volume group")


def damaged(why: str) -> DiskError:
    """The error for everything that is wrong with what LVM has written."""
    hint = "look at it on a machine whose LVM sees it: pvck --dump headers, vgck"
    return DiskError("a physical volume of LVM cannot be read", why=why, hint=hint)
