"""The reference of image.yaml as Markdown, made of the model so that it cannot lag behind. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from pytest_azchroot.spec.destination import SharedImageDestination, TargetRegion
from pytest_azchroot.spec.model import ImageFile, Options, Variable
from pytest_azchroot.spec.options import BUILTIN_CLOUDS, COMMON, clouds_of
from pytest_azchroot.spec.templates import LATE, VM_KEYS

_NAMES: Sequence[tuple[str, str, str]] = (
    ("`var.NAME`", "load", "the value of a variable that `variables` declares"),
    ("`env.NAME`", "load", "an environment variable of the build machine"),
    ("`timestamp`", "load", "seconds since 1970, the same in every template of an image"),
    ("`isotime`", "load", 'the same time in UTC, like `2026-01-31T12:00:00Z`; `isotime("%Y%m%d")` has a strftime form'),
    ("`uuid`", "load", "a random UUID, the same in every template of an image"),
    ("`image.name`", "load", "the name of the image's directory"),
    (
        "`clean_resource_name(text)`",
        "load",
        "the text as a name that Azure takes: `-` for what is not a letter, digit, `.`, `_` or `-`; also a filter",
    ),
    (", ".join(f"`vm.{key}`" for key in VM_KEYS), "VM", "what the build VM says it is; on the cloud `azure` only"),
    ("`device`, `device_name`", "device", "the disk: `/dev/sdc`, `sdc`"),
    ("`partition(n)`", "device", "a partition of it, from 1: `partition(1)` is `/dev/sdc1`"),
    ("`mount_path`", "device", "where the image is mounted"),
    ("`command`", "device", "the command that `command_wrapper` wraps"),
)


def reference() -> str:
    """The page about image.yaml: all options, and what templates know."""
    return "\n".join(
        [
            "# image.yaml",
            "",
            "This page is made of the model: `azchroot schema --markdown`. Options have the names of Packer's",
            "azure-chroot. `azchroot schema` prints a JSON Schema for editors; save it and begin a file with",
            "`# yaml-language-server: $schema=image.schema.json`.",
            "",
            'A text is a text: quote what YAML takes for a number or a boolean (`"1.10"`, `"yes"`).',
            "An option that the chosen cloud does not act on is an error; put it below `clouds`.",
            "",
            "## Options",
            "",
            *_table(
                ("option", "type", "default", "clouds", "templates", "what it says"),
                (_option_row(name) for name in ("cloud", "clouds", "variables", *Options.model_fields)),
            ),
            "",
            "## shared_image_destination",
            "",
            *_fields(SharedImageDestination),
            "",
            "### target_regions",
            "",
            *_fields(TargetRegion),
            "",
            "## variables",
            "",
            "A value comes from `--azchroot-var NAME=VALUE`, else from `--azchroot-var-file FILE`, else from the",
            "environment variable `AZCHROOT_VAR_NAME` (as spelled, or in capitals), else it is the default. Values are",
            "texts, spelled as in the file. A variable is declared as `NAME: default`, as `NAME:` alone if it must be",
            "set, or with:",
            "",
            *_fields(Variable),
            "",
            "## Templates",
            "",
            "Every option may be a Jinja2 template, whatever its type; `{#` does not begin a comment, because shells",
            "use it. *Load* names are known when the file is read, *VM* names when the build VM has been asked, and",
            "*device* names when the disk is attached:",
            "",
            *_table(("option", "knows beyond load and VM"), ((f"`{k}`", _codes(sorted(v))) for k, v in LATE.items())),
            "",
            *_table(("name", "known at", "what it is"), _NAMES),
            "",
        ]
    )


def _option_row(name: str) -> tuple[str, ...]:
    acting = "all" if name in COMMON | {"clouds", "variables"} else ", ".join(clouds_of(name, BUILTIN_CLOUDS))
    kind = _type(ImageFile, name)
    return (f"`{name}`", kind, _default(ImageFile, name), acting, _stage(name, kind, acting), _about(ImageFile, name))


def _stage(name: str, kind: str, acting: str) -> str:
    if name in _OTHER_STAGES:
        return _OTHER_STAGES[name]
    if name in LATE:
        return "device"
    # Only a text can wait for the VM: a number or a boolean is needed when the file is read.
    return "load" if acting == "local" or kind in ("boolean", "whole number", "seconds", "GiB") else "load, VM"


_OTHER_STAGES = {"cloud": "load", "clouds": "as the options", "variables": "none"}


def _fields(model: type[BaseModel]) -> list[str]:
    rows = (
        (f"`{name}`", _type(model, name), _default(model, name), _about(model, name)) for name in model.model_fields
    )
    return _table(("field", "type", "default", "what it says"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [line(heads), line(["---"] * len(heads)), *map(line, rows)]


def _about(model: type[BaseModel], name: str) -> str:
    return " ".join(inspect.cleandoc(model.model_fields[name].description or "").split())


def _default(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if isinstance(value, (str, int, float)) else "none"


def _type(model: type[BaseModel], name: str) -> str:
    schema = model.model_json_schema()
    return _TYPES.get(name) or _kind(schema["properties"][name])


_TYPES = {
    "output": "path, or list of paths",
    "mount_partition": "whole number",
    "chroot_mounts": "list of rows of 3 texts",
    "shared_image_destination": "mapping",
    "target_regions": "list of mappings",
    "clouds": "mapping of mappings",
    "variables": "mapping",
    "default": "text, number or boolean",
    "command_timeout": "seconds",
    "os_disk_size_gb": "GiB",
}


def _kind(schema: dict[str, Any]) -> str:
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind != {"type": "null"}]
    kind = kinds[0]
    if "enum" in kind:
        return _codes(kind["enum"])
    if kind["type"] == "array":
        return "list of texts"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "boolean"}[kind["type"]]


def _codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
