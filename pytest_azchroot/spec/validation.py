"""Values of an image → its spec and everything that is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pytest_azchroot.spec import rules
from pytest_azchroot.spec.messages import explain
from pytest_azchroot.spec.model import ImageSpec, Options
from pytest_azchroot.spec.options import COMMON, clouds_of
from pytest_azchroot.spec.problems import Place


@dataclass(frozen=True)
class Fault:
    """Something wrong at a place of the values."""

    place: Place
    message: str
    hint: str | None = None


@dataclass
class Outcome:
    """A spec, or what keeps the values from being one."""

    spec: ImageSpec | None = None
    faults: list[Fault] = field(default_factory=list)


def validate(
    values: Mapping[str, Any],
    *,
    directory: Path,
    spellings: Mapping[Place, str],
    broken: Iterable[Place] = (),
    pending: frozenset[Place] = frozenset(),
) -> Outcome:
    """Check the values of an image for its cloud.

    :param values: by option, with templates rendered, and ``cloud``.
    :param spellings: how scalars are written, by the place that they have in ``values``.
    :param broken: places whose templates are wrong, which has been said.
    """
    outcome = Outcome(faults=field_faults(ImageSpec, values, spellings=spellings, silent=broken))
    wrong = {fault.place[0] for fault in outcome.faults} | {place[0] for place in broken}
    sound = {name: value for name, value in values.items() if name not in wrong}
    spec = ImageSpec.model_validate(sound)
    subject = rules.Subject(spec, frozenset(values), pending, directory)
    outcome.faults += [
        Fault(rule.place, rule.message, rule.hint)
        for rule in rules.broken_rules(subject)
        if not wrong & {rule.place[0], *rule.about}
    ]
    if not wrong and not outcome.faults:
        outcome.spec = spec
    return outcome


def field_faults(
    model: type[BaseModel],
    values: Mapping[str, Any],
    *,
    spellings: Mapping[Place, str],
    silent: Iterable[Place] = (),
    before: Place = (),
) -> list[Fault]:
    """What is wrong with single fields, at places that begin with ``before``.

    :param silent: places of which nothing is said.
    """
    try:
        model.model_validate(dict(values))
    except ValidationError as error:
        skipped = set(silent)
        faults = []
        for each in error.errors(include_url=False):
            place = (*before, *each["loc"])
            if place not in skipped:
                each["loc"] = place
                faults.append(Fault(place, *explain(each, spellings.get(place))))
        return faults
    return []


def not_acted_on(given: Iterable[str], cloud: str, clouds: Mapping[str, frozenset[str]]) -> list[Fault]:
    """Options that the chosen cloud does nothing with."""
    faults = []
    for name in given:
        if name in Options.model_fields and name not in COMMON | clouds[cloud]:
            others = [other for other in clouds_of(name, clouds) if other != cloud]
            hint = f"move it to clouds: {{{others[0]}: {{{name}: …}}}}" if others else "remove it"
            faults.append(Fault((name,), f"the cloud {cloud} does not act on {name}", hint))
    return faults
