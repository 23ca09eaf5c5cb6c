"""The kinds of values that options have, on top of pydantic's: texts, numbers that templates gave, choices.

Every kind is strict: ``1.10`` is no text and ``"64"`` is no number, unless a template gave it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from pytest_azchroot.spec.document import read_flow
from pytest_azchroot.spec.problems import near

REFUSED_CAPABILITIES = (
    "DAC_READ_SEARCH", "NET_ADMIN", "NET_RAW", "SYS_MODULE", "SYS_RAWIO", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN",
    "SYS_BOOT", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "AUDIT_CONTROL", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip
"""Capabilities that commands in an image do without, each of which an image may have back."""

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Rendered(str):
    """A text that a template gave. It may become a number, a boolean or a list, which a plain text may not."""


class Pending(str):
    """A template with variables that are known only later, so that its form cannot be checked yet."""


def fail(message: str, hint: str | None = None) -> PydanticCustomError:
    """An error in our own words; :mod:`pytest_azchroot.spec.messages` hands it on as it is."""
    return PydanticCustomError("plain", "{message}", {"message": message, "hint": hint})


def _not_yet(value: object) -> None:
    if isinstance(value, Pending):
        raise fail("uses a variable that is known only when the build runs, but is needed before")


def _to_integer(value: Any) -> Any:
    _not_yet(value)
    if isinstance(value, Rendered):
        if not re.fullmatch(r"[-+]?[0-9]+", value.strip()):
            raise fail(f"its template gave {str(value)!r}, which is not a whole number")
        return int(value)
    return value


def _to_number(value: Any) -> Any:
    _not_yet(value)
    if isinstance(value, Rendered):
        try:
            return float(value)
        except ValueError:
            raise fail(f"its template gave {str(value)!r}, which is not a number") from None
    return value


def _to_flag(value: Any) -> Any:
    _not_yet(value)
    if isinstance(value, Rendered):
        try:
            return _WORDS[value.strip().lower()]
        except KeyError:
            raise fail(f"its template gave {str(value)!r}, which is neither true nor false") from None
    return value


def to_tuple(value: Any) -> Any:
    _not_yet(value)
    if isinstance(value, Rendered):
        try:
            value = read_flow(value)
        except ValueError:
            value = None
        if not isinstance(value, list):
            raise fail("its template gave something that is not a list", "write it so that the result is [a, b]")
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, tuple):
        return value
    raise fail(f"a list is meant, not {described(value)}", "write each entry behind a dash, or [a, b]")


def _to_texts(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Rendered):
        return (value,)
    if isinstance(value, Rendered):
        return to_tuple(value) if value.lstrip().startswith("[") else (str(value),)
    if not isinstance(value, (list, tuple)):
        raise fail(f"a path or a list of paths is meant, not {described(value)}")
    return to_tuple(value)


def _to_row(value: Any) -> Any:
    row = to_tuple(value)
    if len(row) != 3:
        raise fail(
            f"a row has three texts (type, source, path), and this has {len(row)}",
            "for example [bind, /dev, /dev]",
        )
    return row


def _to_partition(value: Any) -> Any:
    _not_yet(value)
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]+", value.strip()):
            raise fail(f"{str(value)!r} is not the number of a partition", "1 is the first one, 0 the whole disk")
        return int(value)
    return value


def described(value: object) -> str:
    """What a value of YAML is, in plain words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {str(value)!r}"
    return "a list" if isinstance(value, (list, tuple)) else "a mapping"


@dataclass(frozen=True)
class Checked:
    """A text with a form; a text whose template waits for variables is checked when they are known."""

    check: Callable[[str], None]
    pattern: str | None = None
    """The form as a regular expression for editors, where it is one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: Any, inner: core_schema.ValidatorFunctionWrapHandler) -> Any:
            text = inner(value)
            if not isinstance(value, Pending) and text is not None:
                self.check(text)
            return text

        return core_schema.no_info_wrap_validator_function(validate, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        plain = handler(schema)
        return plain if self.pattern is None else {**plain, "pattern": self.pattern}


@dataclass(frozen=True)
class Choice:
    """One of a few words, spelled as here."""

    words: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: Any, inner: core_schema.ValidatorFunctionWrapHandler) -> Any:
            text = inner(value)
            if text is not None and not isinstance(value, Pending) and text not in self.words:
                meant = near(text, self.words)
                raise fail(
                    f"{text!r} is not one of {', '.join(self.words)}",
                    None if meant is None else f"did you mean {meant}?",
                )
            return text

        return core_schema.no_info_wrap_validator_function(validate, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "enum": list(self.words)}


def _filled(text: str) -> None:
    if not text.strip():
        raise fail("is empty")


def _absolute(text: str) -> None:
    if not text.startswith("/"):
        raise fail(f"{text!r} is not an absolute path")
    if "\0" in text:
        raise fail("holds a zero byte")


def _capability(text: str) -> None:
    name = text.removeprefix("CAP_")
    if name not in REFUSED_CAPABILITIES:
        meant = near(name.upper().removeprefix("CAP_"), REFUSED_CAPABILITIES)
        hint = f"they are {', '.join(REFUSED_CAPABILITIES)}" if meant is None else f"did you mean {meant}?"
        raise fail(f"{text!r} is no capability that is taken from commands in the image", hint)


Flag: TypeAlias = Annotated[bool, BeforeValidator(_to_flag)]
Size: TypeAlias = Annotated[int, Field(ge=0), BeforeValidator(_to_integer)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=100), BeforeValidator(_to_integer)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_to_number)]
Partition: TypeAlias = Annotated[
    int,
    Field(ge=0),
    BeforeValidator(_to_partition),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+$"}]}),
]
Filled: TypeAlias = Annotated[str, Checked(_filled)]
AbsolutePath: TypeAlias = Annotated[str, Checked(_absolute, "^/")]
Texts: TypeAlias = Annotated[tuple[Filled, ...], BeforeValidator(to_tuple)]
Capability: TypeAlias = Annotated[str, Checked(_capability, f"^(CAP_)?({'|'.join(REFUSED_CAPABILITIES)})$")]
Capabilities: TypeAlias = Annotated[tuple[Capability, ...], BeforeValidator(to_tuple)]
AbsolutePaths: TypeAlias = Annotated[tuple[AbsolutePath, ...], BeforeValidator(to_tuple)]
Outputs: TypeAlias = Annotated[
    tuple[Filled, ...],
    BeforeValidator(_to_texts),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
MountRow: TypeAlias = Annotated[tuple[str, str, str], BeforeValidator(_to_row)]
MountRows: TypeAlias = Annotated[tuple[MountRow, ...], BeforeValidator(to_tuple)]
