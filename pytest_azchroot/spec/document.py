"""YAML text → plain values, and the line and spelling of each. Pure.

PyYAML composes the nodes; the values are made of them here, because its own constructors lose lines, accept
duplicate keys, and turn ``1.10`` into ``1.1`` without a trace.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from pytest_azchroot.spec.problems import Place, field_name

_MAX_VALUES = 20_000
"""Aliases let a short text stand for exponentially many values; no image.yaml needs as many as this."""

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"


@dataclass(frozen=True)
class Complaint:
    """Something wrong in the text itself, not yet tied to a file."""

    line: int | None
    place: Place
    message: str
    hint: str | None = None


@dataclass
class Document:
    """The values of a YAML text, and where each of them stands."""

    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    """From 1. A key of a mapping stands where its name does."""
    spellings: dict[Place, str] = field(default_factory=dict)
    """How each scalar is written: ``1.10``, ``yes``."""
    complaints: list[Complaint] = field(default_factory=list)

    def line(self, place: Place) -> int | None:
        """The line of a value, else that of the nearest value around it; None at the root."""
        while place:
            if place in self.lines:
                return self.lines[place]
            place = place[:-1]
        return None


class _Loader(yaml.SafeLoader):
    """YAML's core schema, with the booleans of YAML 1.1 so that they can be pointed out where text is meant."""


# Begun anew: base 60 numbers and dates are text here, as editors (YAML 1.2) take them.
_Loader.yaml_implicit_resolvers = {}


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(_TAG + tag, re.compile(rf"(?:{pattern})\Z"), list(first))


_resolve("bool", r"(?i:true|false|yes|no|on|off)", "tTfFyYnNoO")
_resolve("int", r"[-+]?(?:0|[1-9][0-9_]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789")
_resolve(
    "float",
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?i:inf|nan)",
    "-+.0123456789",
)
_resolve("null", r"~|null|Null|NULL|", "~nN\0")
_resolve("merge", r"<<", "<")
_Loader.yaml_implicit_resolvers[""] = [(_TAG + "null", re.compile(r"\Z"))]


def parse(content: bytes | str) -> Document:
    """Read one YAML document. What is wrong with it is in ``complaints``; the rest is read all the same."""
    document = Document()
    text = _decode(content, document)
    if text is None:
        return document
    nodes = _compose(text, document)
    if len(nodes) > 1:
        complaint = Complaint(
            nodes[1].start_mark.line + 1, (), "a second document begins here", "one file describes one image"
        )
        document.complaints.append(complaint)
    if nodes:
        try:
            document.value = _Builder(document).build(nodes[0], ())
        except _TooMuchError as error:
            document.complaints.append(Complaint(None, (), str(error)))
    return document


class Unusable:
    """Stands where a value is wrong in a way that has been said, so that what is around it can be checked."""


class _TooMuchError(Exception):
    pass


def _decode(content: bytes | str, document: Document) -> str | None:
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        document.complaints.append(Complaint(line, (), "is not UTF-8 text", "save the file as UTF-8"))
        return None


def _compose(text: str, document: Document) -> list[yaml.Node]:
    nodes: list[yaml.Node] = []
    try:
        # A list at once would lose the first document when the second is broken.
        for node in yaml.compose_all(text, Loader=_Loader):
            if node is not None:
                nodes.append(node)
    except yaml.MarkedYAMLError as error:
        document.complaints.append(_syntax(error, text))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.complaints.append(Complaint(line, (), f"holds a character that YAML forbids: {error.character!r}"))
    except RecursionError:
        document.complaints.append(Complaint(None, (), "is nested too deeply"))
    return nodes


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Complaint:
    mark = error.problem_mark or error.context_mark
    line = None if mark is None else mark.line + 1
    source = "" if mark is None else (text.splitlines() or [""])[min(mark.line, len(text.splitlines()) - 1)]
    hint = None
    if "\t" in source[: len(source) - len(source.lstrip())] or "'\\t'" in str(error.problem):
        hint = "YAML indents with spaces: replace the tab"
    elif re.search(r":\s+\{\{", source) or source.lstrip("- ").startswith("{{"):
        hint = 'a value that begins with a template must be quoted: "{{ … }}"'
    elif re.search(r":\s+[%@`]", source):
        hint = "quote the value"
    reason = " ".join(part for part in (error.context, error.problem) if part)
    return Complaint(line, (), f"is not YAML: {reason}", hint)


class _Builder:
    """Makes values of nodes, noting lines, spellings and complaints in the document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0
        self.open: list[int] = []

    def build(self, node: yaml.Node, place: Place) -> Any:
        self.count += 1
        if self.count > _MAX_VALUES:
            raise _TooMuchError("its aliases stand for too many values")
        self.document.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, place)
        if id(node) in self.open:
            self.complain(node, place, "contains itself through an alias")
            return Unusable()
        self.open.append(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, place)
            if isinstance(node, yaml.SequenceNode):
                return self.sequence(node, place)
        finally:
            self.open.pop()
        raise AssertionError(f"PyYAML has no other node: {node!r}")

    def complain(self, node: yaml.Node, place: Place, message: str, hint: str | None = None) -> None:
        self.document.complaints.append(Complaint(node.start_mark.line + 1, place, message, hint))

    def tag_is(self, node: yaml.Node, place: Place, *allowed: str) -> bool:
        if node.tag in [_TAG + name for name in allowed]:
            return True
        name = node.tag.replace(_TAG, "!!")
        self.complain(node, place, f"the YAML tag {name} means nothing here", "remove it")
        return False

    def scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text: str = node.value
        self.document.spellings[place] = text
        if not self.tag_is(node, place, "str", "int", "float", "bool", "null"):
            return text
        try:
            return _CONSTRUCTORS[node.tag.removeprefix(_TAG)](text)
        except (ValueError, KeyError):
            self.complain(node, place, f"{text!r} is not what its tag says")
            return text

    def sequence(self, node: yaml.SequenceNode, place: Place) -> list[Any]:
        self.tag_is(node, place, "seq")
        return [self.build(item, (*place, index)) for index, item in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any] | Unusable:
        self.tag_is(node, place, "map")
        pairs: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
        merged: list[yaml.MappingNode] = []
        for key, value in node.value:
            if isinstance(key, yaml.MappingNode) and node.flow_style:
                hint = 'a value that begins with a template must be quoted: "{{ … }}"'
                self.complain(key, place, "is not a text but a mapping in a mapping", hint)
                return Unusable()
            if not isinstance(key, yaml.ScalarNode):
                self.complain(key, place, "a key must be a plain word")
            elif key.tag == _MERGE:
                merged += self.merged(value, place)
            elif key.value in pairs:
                first = pairs[key.value][0].start_mark.line + 1
                self.complain(key, (*place, key.value), f"is given twice, first in line {first}", "keep one of them")
            else:
                pairs[key.value] = (key, value)
        for source in merged:
            for key, value in source.value:
                if isinstance(key, yaml.ScalarNode):
                    pairs.setdefault(key.value, (key, value))
        result = {}
        for name, (key, value) in pairs.items():
            at = (*place, name)
            self.document.lines[at] = key.start_mark.line + 1
            result[name] = self.build(value, at)
        return result

    def merged(self, node: yaml.Node, place: Place) -> list[yaml.MappingNode]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if all(isinstance(each, yaml.MappingNode) for each in nodes):
            return list(nodes)
        self.complain(node, place, "<< merges mappings only")
        return []


def _integer(text: str) -> int:
    plain = text.replace("_", "")
    return int(plain, 0) if plain[:2] in ("0x", "0o") else int(plain)


def _float(text: str) -> float:
    plain = text.replace("_", "").lower()
    if plain.endswith((".inf", ".nan")):
        return -math.inf if plain.startswith("-") else math.inf if plain.endswith("inf") else math.nan
    return float(plain)


_CONSTRUCTORS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": _integer,
    "float": _float,
    "bool": lambda text: _WORDS[text.lower()],
    "null": lambda text: None,
}


def read_flow(text: str) -> Any:
    """The value of a text that a template gave where a list is meant: ``[a, b]``.

    :raises ValueError: it is not YAML.
    """
    document = parse(text)
    if document.complaints:
        raise ValueError(f"{field_name(document.complaints[0].place)}{document.complaints[0].message}")
    return document.value
