"""Templates in an image's values, replaced by what they give as far as it is known. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_azchroot.spec.document import Unusable
from pytest_azchroot.spec.fields import Pending, Rendered
from pytest_azchroot.spec.problems import Place
from pytest_azchroot.spec.templates import (
    LATE,
    PLACEHOLDER_VM,
    Scope,
    Template,
    TemplateError,
    faults,
    is_template,
    parse,
    placeholders,
    render,
)


@dataclass
class Filling:
    """Walks over values and notes what it finds."""

    scope: Scope
    declared: frozenset[str]
    unset: frozenset[str]
    """Variables that have no value; whoever uses one is broken, and told so once, at the variable."""
    complain: Callable[[Place, TemplateError], None]
    used: set[str] = field(default_factory=set)
    """Variables that values in force use."""
    used_elsewhere: set[str] = field(default_factory=set)
    """Variables that values use which are not in force."""
    pending: set[Place] = field(default_factory=set)
    """Texts left as templates because they wait for the VM."""
    broken: set[Place] = field(default_factory=set)

    def fill(self, value: Any, place: Place, cloud: str) -> Any:
        """The value, with its templates rendered as far as the cloud and their option allow.

        :param cloud: empty where it is not known, so that nothing can be said about what it allows.
        """
        if isinstance(value, dict):
            return {key: self.fill(each, (*place, key), cloud) for key, each in value.items()}
        if isinstance(value, list):
            return [self.fill(each, (*place, index), cloud) for index, each in enumerate(value)]
        if isinstance(value, str) and is_template(value):
            return self._text(value, place, cloud)
        if isinstance(value, Unusable):
            self.broken.add(place)
        return value

    def check(self, value: Any, place: Place, option: Place, clouds: frozenset[str]) -> Any:
        """The value with its templates checked but not rendered: for a cloud that was not chosen.

        :param option: the place of the value as if its block were the top level.
        """
        if isinstance(value, dict):
            return {key: self.check(each, (*place, key), (*option, key), clouds) for key, each in value.items()}
        if isinstance(value, list):
            return [self.check(each, (*place, i), (*option, i), clouds) for i, each in enumerate(value)]
        if isinstance(value, str) and is_template(value):
            template = self._checked(value, place, str(option[0]), clouds)
            self.used_elsewhere |= frozenset() if template is None else template.variables
            return Unusable()
        return value

    def _text(self, text: str, place: Place, cloud: str) -> object:
        option = str(place[0])
        template = self._checked(text, place, option, frozenset({cloud} if cloud else ()))
        if template is None:
            return self._broken(place)
        self.used |= template.variables & self.declared
        if template.variables & self.unset:
            return self._broken(place)
        waits = "vm" in template.names and self.scope.vm is None
        late: dict[str, object] = placeholders(option)
        if waits:
            late["vm"] = PLACEHOLDER_VM
        try:
            value = render(text, self.scope, late)
        except TemplateError as error:
            self.complain(place, error)
            return self._broken(place)
        if option in LATE:
            return Pending(text)
        if waits:
            self.pending.add(place)
            return Pending(text)
        return Rendered(value)

    def _checked(self, text: str, place: Place, option: str, clouds: frozenset[str]) -> Template | None:
        try:
            template = parse(text)
        except TemplateError as error:
            self.complain(place, error)
            return None
        found = faults(template, option=option, clouds=clouds, declared=self.declared)
        for fault in found:
            self.complain(place, fault)
        return None if found else template

    def _broken(self, place: Place) -> Unusable:
        self.broken.add(place)
        return Unusable()


def broken_places(value: Any, place: Place) -> set[Place]:
    """Where templates were that have no value."""
    if isinstance(value, dict):
        return set().union(*(broken_places(each, (*place, key)) for key, each in value.items()))
    if isinstance(value, list):
        return set().union(*(broken_places(each, (*place, index)) for index, each in enumerate(value)))
    return {place} if isinstance(value, Unusable) else set()


def as_document(value: Any, place: Place, pending: Mapping[Place, str]) -> Any:
    """Values of a spec as a document has them: lists for tuples, and marked what still waits for the VM."""
    if isinstance(value, dict):
        return {key: as_document(each, (*place, key), pending) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_document(each, (*place, index), pending) for index, each in enumerate(value)]
    return Pending(value) if place in pending and pending[place] == value else value


def texts_at(value: Any, places: Iterable[Place]) -> dict[Place, str]:
    """The texts at some places of a value."""
    found = {}
    for place in places:
        each = value
        for part in place:
            each = each[part]
        found[place] = str(each)
    return found
