"""``variables:`` of image.yaml, and where their values come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_azchroot.masking import SHORTEST_SECRET
from pytest_azchroot.spec.document import Complaint, Document, parse
from pytest_azchroot.spec.fields import described
from pytest_azchroot.spec.problems import Place, Problem, field_name, near
from pytest_azchroot.spec.templates import is_template

ENVIRONMENT_PREFIX = "AZCHROOT_VAR_"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KEYS = ("default", "sensitive")


@dataclass(frozen=True)
class Declaration:
    """A variable that an image declares."""

    name: str
    default: str | None = field(repr=False)
    """None: it must be set."""
    sensitive: bool = False


@dataclass(frozen=True)
class Given:
    """A value that somebody set, and who."""

    value: str = field(repr=False)
    origin: str


def declarations(document: Document) -> tuple[dict[str, Declaration], list[Complaint]]:
    """The variables of a document, and what is wrong with how they are declared."""
    reader = _Reader(document)
    block = document.value.get("variables") if isinstance(document.value, dict) else None
    if block is not None and not isinstance(block, dict):
        reader.complain(("variables",), f"a mapping of names to defaults is meant, not {described(block)}")
        block = None
    found = {name: reader.declaration(name, value) for name, value in (block or {}).items()}
    return found, reader.complaints


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.complaints: list[Complaint] = []

    def complain(self, place: Place, message: str, hint: str | None = None) -> None:
        self.complaints.append(Complaint(self.document.line(place), place, message, hint))

    def declaration(self, name: str, value: Any) -> Declaration:
        place: Place = ("variables", name)
        if not _NAME.match(name):
            self.complain(place, f"{name!r} is not a name", "letters, digits and _, not a digit first")
        if not isinstance(value, dict):
            return Declaration(name, self.default(place, value))
        for key in value:
            if key not in _KEYS:
                meant = near(key, _KEYS)
                hint = f"did you mean {meant}?" if meant else "a variable has default and sensitive"
                self.complain((*place, key), "unknown key", hint)
        sensitive = value.get("sensitive", False)
        if not isinstance(sensitive, bool):
            self.complain((*place, "sensitive"), f"true or false is meant, not {described(sensitive)}")
        return Declaration(name, self.default((*place, "default"), value.get("default")), sensitive is True)

    def default(self, place: Place, value: Any) -> str | None:
        if value is None:
            return None
        if isinstance(value, (dict, list)):
            self.complain(place, f"a text, number or boolean is meant, not {described(value)}")
            return ""
        text = self.document.spellings[place]
        if is_template(text):
            self.complain(place, "a variable's default is not a template", "use the template where the variable is")
        return text


def from_arguments(texts: Iterable[str], path: Path) -> tuple[dict[str, Given], list[Problem]]:
    """Read ``NAME=VALUE`` texts; the last one of a name counts."""
    found = {}
    problems = []
    for text in texts:
        name, equals, value = text.partition("=")
        if equals and name:
            found[name] = Given(value, "--azchroot-var")
        else:
            problems.append(Problem(path, None, f"--azchroot-var {name}", "is not NAME=VALUE"))
    return found, problems


def from_file(path: Path) -> tuple[dict[str, Given], dict[str, int | None], list[Problem]]:
    """Read a YAML mapping of names to values: the values, the lines they stand in, what is wrong."""
    try:
        document = parse(path.read_bytes())
    except OSError as error:
        return {}, {}, [Problem(path, None, "", f"cannot be read: {error.strerror}")]
    problems = [
        Problem(path, each.line, field_name(each.place), each.message, each.hint) for each in document.complaints
    ]
    if document.value is None:
        return {}, {}, problems
    if not isinstance(document.value, dict):
        message = f"a mapping of names to values is meant, not {described(document.value)}"
        return {}, {}, [*problems, Problem(path, document.lines.get(()), "", message)]
    found = {}
    lines = {}
    for name, value in document.value.items():
        lines[name] = document.line((name,))
        if value is None or isinstance(value, (dict, list)):
            message = f"a text, number or boolean is meant, not {described(value)}"
            problems.append(Problem(path, lines[name], name, message))
        else:
            found[name] = Given(document.spellings[(name,)], f"{path}:{lines[name]}")
    return found, lines, problems


def from_environment(name: str, environ: Mapping[str, str]) -> Given | None:
    """The value of ``AZCHROOT_VAR_name``, else of ``AZCHROOT_VAR_NAME``."""
    for key in (ENVIRONMENT_PREFIX + name, ENVIRONMENT_PREFIX + name.upper()):
        if key in environ:
            return Given(environ[key], f"the environment variable {key}")
    return None


@dataclass
class Values:
    """The variables of an image with their values."""

    given: dict[str, Given] = field(default_factory=dict)
    unset: set[str] = field(default_factory=set)
    """Variables without a value and without a default."""
    problems: list[Problem] = field(default_factory=list)


def collect(
    declared: Mapping[str, Declaration],
    *,
    path: Path,
    arguments: Iterable[str],
    files: Iterable[Path],
    environ: Mapping[str, str],
    unknown_is_error: bool,
) -> Values:
    """Find each variable's value: arguments, then files (the last first), the environment, the default."""
    values = Values()
    by_argument, values.problems = from_arguments(arguments, path)
    unknown = [(path, None, f"--azchroot-var {name}", name) for name in by_argument]
    by_file: dict[str, Given] = {}
    for file in files:
        given, lines, problems = from_file(Path(file))
        by_file.update(given)
        values.problems += problems
        unknown += [(Path(file), lines[name], name, name) for name in given]  # type: ignore[misc]
    for name, declaration in declared.items():
        found = by_argument.get(name) or by_file.get(name) or from_environment(name, environ)
        if found is None and declaration.default is not None:
            found = Given(declaration.default, "its default")
        if found is None:
            values.unset.add(name)
        else:
            values.given[name] = found
    if unknown_is_error:
        values.problems += [
            Problem(file, line, where, f"no variable {name} is declared", _declared_hint(name, declared))
            for file, line, where, name in unknown
            if name not in declared
        ]
    return values


def too_short(declaration: Declaration, given: Given) -> str | None:
    """What is wrong with the value of a sensitive variable: short ones cannot be masked."""
    if not declaration.sensitive or len(given.value.strip()) >= SHORTEST_SECRET:
        return None
    return (
        f"is sensitive, and its value (from {given.origin}) has less than {SHORTEST_SECRET} characters: "
        "masking it would mask half of the output"
    )


def _declared_hint(name: str, declared: Mapping[str, Declaration]) -> str:
    meant = near(name, declared)
    if meant is not None:
        return f"did you mean {meant}?"
    return f"declared are {', '.join(sorted(declared))}" if declared else "image.yaml declares none under variables:"
