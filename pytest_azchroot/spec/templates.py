"""Jinja2 templates in image.yaml: what they may name, when it is known, and their values. Pure.

A name belongs to a stage. *Load*: when the file is read. *VM*: when the build VM has said what it is.
*Device*: when the disk is attached, and only in the options of ``LATE``. Names and syntax of every template are
checked when the file is read, whatever their stage.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox

from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.spec.problems import near

LOAD_NAMES = ("var", "env", "timestamp", "isotime", "uuid", "clean_resource_name", "image")
VM_KEYS = ("name", "subscription_id", "resource_group", "location", "resource_id", "zone")
VM_CLOUDS = frozenset({"azure"})
"""Clouds that build on a virtual machine which can say what it is."""

_DISK = frozenset({"device", "device_name", "partition"})
_MOUNTED = _DISK | {"mount_path"}
LATE: Mapping[str, frozenset[str]] = {
    "pre_mount_commands": _DISK,
    "mount_path": frozenset({"device", "device_name"}),
    "manual_mount_command": _MOUNTED,
    "post_mount_commands": _MOUNTED,
    "pre_unmount_commands": _MOUNTED,
    "command_wrapper": frozenset({"command"}),
}
"""Options that stay templates until the build runs, and what they know then beyond the load and VM stages."""

LATE_NAMES = frozenset().union(*LATE.values())
_GLOBALS = ("range", "dict", "namespace")
_IMAGE_KEYS = ("name",)

_GO_NAMES = {"Device": "device", "MountPath": "mount_path", "Command": "command", "Name": "image.name"}
_GO_FUNCTIONS = {"user": "var", "env": "env", "vm": "vm"}


class TemplateError(AzchrootError):
    """A template is wrong, or has no value."""


def is_template(text: str) -> bool:
    """Whether a text is a template. ``{#`` is not one: it is common in shell, as in ``${#name}``."""
    return "{{" in text or "{%" in text


def clean_resource_name(text: str) -> str:
    """A name that Azure takes, as Packer's function of this name makes it.

    Each byte outside ``[0-9A-Za-z._-]`` becomes ``-``; then ``-``, ``_`` and ``.`` are taken off the end.
    """
    return re.sub(rb"[^0-9A-Za-z._-]", b"-", str(text).encode()).decode("ascii").rstrip("-_.")


class Moment(str):
    """The time of the build in ISO 8601; called with a strftime format, the same time in that format."""

    _time: datetime

    @classmethod
    def of(cls, time: datetime) -> Moment:
        time = time.astimezone(timezone.utc)
        moment = cls(time.strftime("%Y-%m-%dT%H:%M:%SZ"))
        moment._time = time
        return moment

    def __call__(self, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
        return self._time.strftime(form)


@dataclass(frozen=True)
class Names:
    """Values that a template reaches by a dot, and by nothing else: no method can hide a variable."""

    root: str
    values: Mapping[str, str] = field(repr=False)

    def lacks(self, name: str) -> str:
        """What to say about a name that is not here."""
        if self.root == "env":
            return f"the environment variable {name} is not set; {{{{ env.{name} | default('…') }}}} would do without"
        return f"{self.root}.{name} has no value"


@dataclass(frozen=True)
class Scope:
    """Everything that templates of one image know when the file has been read. Fixed, so that names agree."""

    image: str
    variables: Mapping[str, str] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    time: datetime
    uuid: str
    vm: Any = None

    def names(self) -> dict[str, Any]:
        """The names of the load stage, and ``vm`` where it is known."""
        known: dict[str, Any] = {
            "var": Names("var", self.variables),
            "env": Names("env", self.environ),
            "timestamp": str(int(self.time.timestamp())),
            "isotime": Moment.of(self.time),
            "uuid": self.uuid,
            "clean_resource_name": clean_resource_name,
            "image": Names("image", {"name": self.image}),
        }
        return known if self.vm is None else {**known, "vm": _reachable("vm", self.vm)}


@dataclass(frozen=True)
class Template:
    """A template whose syntax is right."""

    text: str
    names: frozenset[str]
    """Names that it uses: ``var``, ``device``."""
    attributes: frozenset[tuple[str, str]]
    """What it reaches by a dot: ``("var", "release")``."""

    @property
    def variables(self) -> frozenset[str]:
        """The variables it uses."""
        return frozenset(name for root, name in self.attributes if root == "var")


class _Environment(jinja2.sandbox.SandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        return self._look(obj, attribute) if isinstance(obj, Names) else super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return self._look(obj, argument) if isinstance(obj, Names) else super().getitem(obj, argument)

    def _look(self, names: Names, key: Any) -> Any:
        if key in names.values:
            return names.values[key]
        return self.undefined(hint=names.lacks(str(key)), name=str(key))


def _environment() -> _Environment:
    environment = _Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        # Jinja2 cannot do without comments; these are ones that no shell script holds.
        comment_start_string="{#~#",
        comment_end_string="#~#}",
    )
    environment.globals = {name: environment.globals[name] for name in _GLOBALS}
    environment.filters["clean_resource_name"] = clean_resource_name
    return environment


_ENVIRONMENT = _environment()


def parse(text: str) -> Template:
    """Check a template's syntax and find the names in it.

    :raises TemplateError: with a hint where it looks like one of Packer's.
    """
    try:
        tree = _ENVIRONMENT.parse(text)
        _ENVIRONMENT.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        line = f" (line {error.lineno} of it)" if "\n" in text.strip() else ""
        raise TemplateError(f"is not a template: {error.message}{line}", hint=_syntax_hint(text)) from None
    attributes = set()
    for node in tree.find_all((jinja2.nodes.Getattr, jinja2.nodes.Getitem)):
        if isinstance(node, jinja2.nodes.Getattr):
            key: object = node.attr
        else:
            assert isinstance(node, jinja2.nodes.Getitem)
            key = node.arg.value if isinstance(node.arg, jinja2.nodes.Const) else None
        if isinstance(node.node, jinja2.nodes.Name) and isinstance(key, str):
            attributes.add((node.node.name, key))
    return Template(text, frozenset(jinja2.meta.find_undeclared_variables(tree)), frozenset(attributes))


def faults(template: Template, *, option: str, clouds: frozenset[str], declared: frozenset[str]) -> list[TemplateError]:
    """Names in a template that have no value where it stands.

    :param option: the top-level option that holds it, which decides what it knows.
    :param clouds: the clouds for which it counts; the VM must be known on each.
    :param declared: the variables that ``variables:`` declares.
    """
    found = []
    late = LATE.get(option, frozenset())
    usable = {*LOAD_NAMES, "vm", *late}
    for name in sorted(template.names - usable - set(_GLOBALS)):
        if name in LATE_NAMES:
            options = ", ".join(each for each, names in LATE.items() if name in names)
            found.append(TemplateError(f"{name} is not known here", hint=f"it is known in {options}"))
        elif name in declared:
            found.append(TemplateError(f"{name} is not a name that templates know", hint=f"write var.{name}"))
        else:
            found.append(TemplateError(f"{name} is not a name that templates know", hint=_names_hint(name, usable)))
    if "vm" in template.names:
        found += [
            TemplateError(f"vm is not known on the cloud {cloud}", hint="only azure builds on a VM that it can ask")
            for cloud in sorted(clouds - VM_CLOUDS)
        ]
    found += _attribute_faults(template, declared)
    return found


def render(text: str, scope: Scope, late: Mapping[str, object]) -> str:
    """The value of a template.

    :param late: names of the device stage, and ``vm``. ``device`` brings ``device_name`` along.
    :raises TemplateError: it has none.
    """
    names = {**scope.names(), **late}
    if "vm" in late:
        names["vm"] = _reachable("vm", late["vm"])
    if "device" in late:
        names.setdefault("device_name", posixpath.basename(os.fspath(late["device"])))  # type: ignore[call-overload]
    try:
        return _ENVIRONMENT.from_string(text).render(names)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"is not a template: {error.message}", hint=_syntax_hint(text)) from None
    # A template runs code of its own: it can divide by zero or call what is not callable.
    except Exception as error:
        raise TemplateError(f"its template has no value: {error}") from error


def placeholders(option: str) -> dict[str, object]:
    """Values that stand for the late names of an option, to try its templates before the build."""
    values: dict[str, object] = {
        "device": "/dev/sda",
        "device_name": "sda",
        "partition": _any_partition,
        "mount_path": "/mnt",
        "command": "true",
    }
    known = LATE.get(option, frozenset())
    return {name: value for name, value in values.items() if name in known}


PLACEHOLDER_VM: Mapping[str, str] = {key: f"some-{key}" for key in VM_KEYS} | {"zone": "1"}


def _any_partition(number: int) -> str:
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"partition({number!r}): the first one is partition(1)")
    return f"/dev/sda{number}"


def _attribute_faults(template: Template, declared: frozenset[str]) -> list[TemplateError]:
    keys: dict[str, tuple[str, ...]] = {"vm": VM_KEYS, "image": _IMAGE_KEYS}
    found = []
    for root, name in sorted(template.attributes):
        if root == "var" and name not in declared:
            listed = f"declared are {', '.join(sorted(declared))}" if declared else "declare it under variables:"
            meant = near(name, declared)
            hint = listed if meant is None else f"did you mean var.{meant}?"
            found.append(TemplateError(f"there is no variable {name}", hint=hint))
        elif root in keys and name not in keys[root]:
            hint = f"{root} has {', '.join(keys[root])}"
            found.append(TemplateError(f"{root} has no {name}", hint=hint))
    return found


def _names_hint(name: str, usable: set[str]) -> str:
    meant = near(name, usable)
    return f"known here are {', '.join(sorted(usable))}" if meant is None else f"did you mean {meant}?"


def _reachable(root: str, value: Any) -> Any:
    return Names(root, value) if isinstance(value, Mapping) else value


def _syntax_hint(text: str) -> str:
    for pattern, replacement in _GO_FORMS:
        match = re.search(pattern, text)
        if match:
            return f"this looks like Packer's Go template; templates are Jinja2 here: {replacement(match)}"
    return "templates are Jinja2; a brace that is meant as such is written {{ '{{' }}"


def _go_variable(match: re.Match[str]) -> str:
    name = match[1]
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return f"{{{{ {_GO_NAMES.get(name, plain)} }}}}"


def _go_function(match: re.Match[str]) -> str:
    return f"{{{{ {_GO_FUNCTIONS[match[1]]}.{match[2]} }}}}"


_GO_FORMS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"\{\{-?\s*\.(\w+)", _go_variable),
    (r"\{\{-?\s*(user|env|vm)\s+[`\"']([^`\"']*)[`\"']", _go_function),
    (r"\{\{-?\s*(isotime|strftime)\s+[`\"']", lambda match: '{{ isotime("%Y-%m-%d") }}'),
    (r"\{\{-?\s*(clean_resource_name)\s+", lambda match: "{{ clean_resource_name(…) }}"),
    (r"\{\{-?\s*(partition)\s+\d+", lambda match: "{{ partition(1) }}"),
    (r"\|\s*(clean_resource_name)", lambda match: "{{ … | clean_resource_name }}"),
)
