"""JSON Schema of image.yaml, for editors. Pure."""

from __future__ import annotations

from typing import Any

from pytest_azchroot.spec.model import ImageFile
from pytest_azchroot.spec.templates import LATE

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TEMPLATE = {
    "type": "string",
    "pattern": r"\{\{|\{%",
    "description": "A Jinja2 template; its value is checked when it is known.",
}
_NOT_TEMPLATES = ("clouds", "variables")


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12. Every option may be a template, whatever its type."""
    schema = ImageFile.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    _open(schema)
    for name, definition in definitions.items():
        if name != "Variable":
            _open(definition)
    # An empty value in a cloud's block takes the option away.
    for name, option in definitions["Options"]["properties"].items():
        definitions["Options"]["properties"][name] = _either(option, {"type": "null"})
    definitions["Template"] = _TEMPLATE
    plain = _tidied(schema)
    return {
        "$schema": DIALECT,
        "title": "image.yaml of pytest-azchroot",
        **{key: value for key, value in plain.items() if key != "title"},
    }


def _open(definition: dict[str, Any]) -> None:
    """Let the properties of an object be templates, and nothing be null."""
    for name, option in definition["properties"].items():
        if name not in _NOT_TEMPLATES:
            definition["properties"][name] = _templated(name, _without_null(option))


def _without_null(option: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in option.get("anyOf", []) if kind != {"type": "null"}]
    if "anyOf" not in option or len(kinds) == len(option["anyOf"]):
        return option
    plain = {key: value for key, value in option.items() if key != "anyOf" and not (key == "default" and value is None)}
    return {**plain, **kinds[0]} if len(kinds) == 1 else {**plain, "anyOf": kinds}


def _templated(name: str, option: dict[str, Any]) -> dict[str, Any]:
    if option.get("type") == "string" and not {"enum", "pattern"} & option.keys():
        return option
    if "$ref" in option or (option.get("type") == "array" and name in LATE):
        return option
    return _either(option, {"$ref": "#/$defs/Template"})


def _either(option: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {key: option[key] for key in ("description", "default") if key in option}
    kind = {key: value for key, value in option.items() if key not in about}
    kinds = kind["anyOf"] if set(kind) - {"title"} == {"anyOf"} else [kind]
    return {**about, "anyOf": [*kinds, other]}


def _tidied(value: Any) -> Any:
    """The value without the titles that pydantic makes of names, and with descriptions as one paragraph."""
    if isinstance(value, dict):
        plain = {key: _tidied(each) for key, each in value.items() if not (key == "title" and isinstance(each, str))}
        if isinstance(plain.get("description"), str):
            plain["description"] = " ".join(plain["description"].split())
        return plain
    return [_tidied(each) for each in value] if isinstance(value, list) else value
