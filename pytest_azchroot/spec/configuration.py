"""What :func:`pytest_azchroot.spec.load` gives: an image's options, its variables, and its templates' values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_azchroot.masking import Masker
from pytest_azchroot.spec.filling import Filling, as_document
from pytest_azchroot.spec.model import SECRETS, ImageSpec
from pytest_azchroot.spec.problems import ConfigError, Place, Problem, field_name
from pytest_azchroot.spec.templates import LATE, Scope, TemplateError, render
from pytest_azchroot.spec.validation import Fault, validate


@dataclass(frozen=True)
class Configuration:
    """One image.yaml, read for one cloud."""

    path: Path
    directory: Path
    """The directory that holds the file; relative paths in it begin here."""
    spec: ImageSpec
    """The options. Late ones, and texts with ``vm``, are templates still: see :meth:`render`, :meth:`with_vm`."""
    secrets: tuple[str, ...] = field(repr=False)
    """Values to mask in all output: those of sensitive variables and of secret options."""
    variables: Mapping[str, str] = field(repr=False)
    """The value of every variable that has one."""
    origins: Mapping[str, str]
    """Where each value came from: ``--azchroot-var``, a file and line, the environment, its default."""
    lines: Mapping[Place, int] = field(repr=False)
    """Where the values of ``spec`` stand in the file."""
    scope: Scope = field(repr=False)
    pending: Mapping[Place, str] = field(repr=False, default_factory=dict)
    """Texts of ``spec`` that wait for the VM."""

    def line_of(self, name: str) -> int | None:
        """The line of a field, as problems name it (``mount_options[0]``), else of the value around it."""
        places = {field_name(place): line for place, line in self.lines.items() if place}
        while name:
            if name in places:
                return places[name]
            name = name[: max(name.rfind("."), name.rfind("["), 0)]
        return None

    def render(self, template: str, **late: object) -> str:
        """The value of a template, with what is known by now: ``device``, ``partition``, ``mount_path``, ``command``,
        ``vm``. ``device`` brings ``device_name`` along.

        :raises TemplateError: it has no value.
        """
        try:
            return render(template, self.scope, late)
        except TemplateError as error:
            raise TemplateError(f"cannot render {template!r}", why=error.what, hint=error.hint) from error

    def with_vm(self, vm: object) -> Configuration:
        """The configuration when the VM has said what it is: its texts rendered, and checked as at load.

        :param vm: with ``name``, ``subscription_id``, ``resource_group``, ``location``, ``resource_id``, ``zone``,
            as attributes or as keys.
        :raises ConfigError: a text is not what it must be.
        """
        known = dataclasses.replace(self, scope=dataclasses.replace(self.scope, vm=vm))
        faults: list[Fault] = []
        filling = known._filling(faults)
        values = as_document(self.spec.model_dump(exclude_unset=True, warnings=False), (), {})
        for place in self.pending:
            *around, last = place
            holder = values
            for part in around:
                holder = holder[part]
            holder[last] = filling.fill(holder[last], place, self.spec.cloud)
        return known._checked(values, filling, faults, {})

    def with_spec(self, spec: ImageSpec) -> Configuration:
        """The configuration with another spec, checked as if the file said so.

        :raises ConfigError: it is not valid.
        """
        faults: list[Fault] = []
        values = as_document(spec.model_dump(exclude_unset=True, warnings=False), (), self.pending)
        return self._checked(values, self._filling(faults), faults, self.pending)

    def _filling(self, faults: list[Fault]) -> Filling:
        return Filling(
            self.scope,
            declared=frozenset(self.variables),
            unset=frozenset(),
            complain=lambda place, error: faults.append(Fault(place, error.what, error.hint)),
        )

    def _checked(
        self, values: dict[str, Any], filling: Filling, faults: list[Fault], pending: Mapping[Place, str]
    ) -> Configuration:
        for option in LATE.keys() & values.keys():
            values[option] = filling.fill(values[option], (option,), self.spec.cloud)
        outcome = validate(
            values, directory=self.directory, spellings={}, broken=filling.broken, pending=frozenset(pending)
        )
        if outcome.spec is None:
            masker = Masker(self.secrets)
            raise ConfigError(self._problem(fault, masker) for fault in [*faults, *outcome.faults])
        secrets = dict.fromkeys([*self.secrets, *secret_options(outcome.spec)])
        return dataclasses.replace(self, spec=outcome.spec, pending=pending, secrets=tuple(secrets))

    def _problem(self, fault: Fault, masker: Masker) -> Problem:
        name = field_name(fault.place)
        hint = None if fault.hint is None else masker.mask(fault.hint)
        return Problem(self.path, self.line_of(name), name, masker.mask(fault.message), hint)


def secret_options(spec: ImageSpec) -> list[str]:
    """Values of options that are secrets."""
    return [value for value in (getattr(spec, name) for name in SECRETS) if value is not None]
