"""image.yaml → :class:`Configuration`. Reads files, the clock and a UUID; everything else here is pure."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pytest_azchroot.masking import SHORTEST_SECRET, Masker
from pytest_azchroot.spec import variables as variables_
from pytest_azchroot.spec.configuration import Configuration, secret_options
from pytest_azchroot.spec.document import Document, Unusable, parse
from pytest_azchroot.spec.fields import Pending, described
from pytest_azchroot.spec.filling import Filling, broken_places, texts_at
from pytest_azchroot.spec.model import SECRETS, Options
from pytest_azchroot.spec.problems import ConfigError, Place, Problem, field_name, near
from pytest_azchroot.spec.templates import Scope, TemplateError
from pytest_azchroot.spec.validation import Fault, Outcome, field_faults, not_acted_on, validate

DEFAULT_CLOUD = "azure"
"""Where neither ``cloud:`` nor ``--azchroot-cloud`` says one: that of the peer."""

_SECTIONS = ("cloud", "clouds", "variables")


def load(
    path: Path,
    *,
    clouds: Mapping[str, frozenset[str]],
    cloud: str | None = None,
    variables: Iterable[str] = (),
    variable_files: Iterable[Path] = (),
    environ: Mapping[str, str] = os.environ,
    unknown_variables: Literal["error", "ignore"] = "error",
) -> Configuration:
    """Read an image.yaml, without network.

    :param clouds: the clouds there are, and the options that each acts on beyond the common ones.
    :param cloud: the cloud to build on, in place of the one that the file names.
    :param variables: ``NAME=VALUE`` texts, the strongest.
    :param variable_files: YAML mappings of names to values; a later file is stronger.
    :param environ: for ``AZCHROOT_VAR_NAME`` and for ``env.NAME`` in templates.
    :param unknown_variables: whether setting a variable that this image does not declare is an error.
    :raises ConfigError: with everything that is wrong.
    """
    document = _read(path)
    declared, complaints = variables_.declarations(document)
    values = variables_.collect(
        declared,
        path=path,
        arguments=variables,
        files=variable_files,
        environ=environ,
        unknown_is_error=unknown_variables == "error",
    )
    scope = Scope(
        image=path.absolute().parent.name,
        variables={name: given.value for name, given in values.given.items()},
        environ=dict(environ),
        time=datetime.now(timezone.utc),
        uuid=str(uuid.uuid4()),
    )
    reading = _Reading(
        path,
        document,
        scope=scope,
        declared=frozenset(declared),
        unset=frozenset(values.unset),
        clouds=clouds,
    )
    for each in (*document.complaints, *complaints):
        reading.problems.append(Problem(path, each.line, field_name(each.place), each.message, each.hint))
    outcome = reading.read(cloud)
    reading.problems += values.problems
    for name in sorted(values.unset & (reading.filling.used | reading.needed())):
        reading.report(
            Fault(
                ("variables", name),
                "has no value and no default",
                f"set it with --azchroot-var {name}=VALUE, --azchroot-var-file FILE or "
                f"{variables_.ENVIRONMENT_PREFIX}{name}",
            )
        )
    for name, given in values.given.items():
        message = variables_.too_short(declared[name], given)
        if message is not None:
            reading.report(Fault(("variables", name), message))
    secrets = [given.value for name, given in values.given.items() if declared[name].sensitive]
    if outcome.spec is not None:
        secrets += secret_options(outcome.spec)
        reading.refuse_short(outcome.spec)
    if reading.problems or outcome.spec is None:
        raise ConfigError(_masked(reading.problems, [*secrets, *reading.secret_texts]))
    return Configuration(
        path=path,
        directory=path.parent,
        spec=outcome.spec,
        secrets=tuple(dict.fromkeys(secrets)),
        variables=scope.variables,
        origins={name: given.origin for name, given in values.given.items()},
        lines=reading.lines,
        scope=scope,
        pending=texts_at(reading.values, reading.filling.pending),
    )


def declared_variables(path: Path) -> frozenset[str]:
    """The names of the variables that an image.yaml declares; whatever else is wrong with it is not looked at."""
    try:
        return frozenset(variables_.declarations(parse(path.read_bytes()))[0])
    except OSError:
        # Whoever loads the file is told; there is nothing declared until then.
        return frozenset()


def _read(path: Path) -> Document:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(path, None, "", f"cannot be read: {error.strerror}")]) from error
    document = parse(content)
    if document.value is None and document.complaints:
        raise ConfigError(
            Problem(path, each.line, field_name(each.place), each.message, each.hint) for each in document.complaints
        )
    if document.value is None:
        raise ConfigError([Problem(path, None, "", "is empty", "at least source: and output: for the cloud local")])
    if document.value is not None and not isinstance(document.value, dict):
        message = f"a mapping of options is meant, not {described(document.value)}"
        raise ConfigError([Problem(path, document.lines.get(()), "", message)])
    return document


class _Reading:
    """One file being read: what its values are for the chosen cloud, and what is wrong."""

    def __init__(
        self,
        path: Path,
        document: Document,
        *,
        scope: Scope,
        declared: frozenset[str],
        unset: frozenset[str],
        clouds: Mapping[str, frozenset[str]],
    ) -> None:
        self.path = path
        self.document = document
        self.content: dict[str, Any] = document.value or {}
        self.clouds = clouds
        self.unset = unset
        self.problems: list[Problem] = []
        self.places: dict[str, Place] = {}
        """Where the value of each option in force stands."""
        self.values: dict[str, Any] = {}
        """The values in force, templates rendered."""
        self.secret_texts: list[str] = []
        self.filling = Filling(scope, declared, unset, self.template_fault)

    def read(self, chosen: str | None) -> Outcome:
        cloud = self.cloud(chosen)
        blocks = self.blocks()
        mine = blocks.get(cloud, {})
        raw = {name: value for name, value in self.content.items() if name not in _SECTIONS}
        self.places = {name: (name,) for name in raw} | {name: ("clouds", cloud, name) for name in mine}
        merged = {name: value for name, value in {**raw, **mine}.items() if not (name in mine and value is None)}
        self.values = {name: self.value(name, value, cloud) for name, value in merged.items()}
        self.secret_texts = [text for name in SECRETS if isinstance(text := self.values.get(name), str)]
        self.check_rest(raw, mine, blocks, cloud)
        outcome = Outcome()
        if cloud in self.clouds:
            outcome.faults += not_acted_on(merged, cloud, self.clouds)
        checked = validate(
            {**self.values, "cloud": cloud or "unknown"},
            directory=self.path.parent,
            spellings={place: self.document.spellings[self.origin(place)] for place in self.spelled()},
            broken=self.filling.broken,
            pending=frozenset(self.filling.pending),
        )
        outcome.faults += checked.faults
        for fault in outcome.faults:
            self.report(fault)
        outcome.spec = checked.spec
        return outcome

    def value(self, name: str, value: Any, cloud: str) -> Any:
        if value is None and _is_option(name):
            self.report(Fault((name,), "has no value", "give it one, or remove the line"))
            self.filling.broken.add((name,))
            return Unusable()
        return self.filling.fill(value, (name,), cloud)

    def cloud(self, chosen: str | None) -> str:
        """The cloud to read for; empty where it is wrong, which has been said."""
        value = self.filling.fill(self.content.get("cloud", DEFAULT_CLOUD), ("cloud",), "")
        broken = ("cloud",) in self.filling.broken
        self.filling.broken.discard(("cloud",))
        if chosen is not None:
            return chosen if self.is_cloud(chosen, "--azchroot-cloud", None) else ""
        if isinstance(value, Pending):
            self.filling.pending.discard(("cloud",))
            self.report(Fault(("cloud",), "vm is not known before the cloud is", "choose it with a variable"))
        elif isinstance(value, str):
            return str(value) if self.is_cloud(str(value), "cloud", self.document.line(("cloud",))) else ""
        elif not broken:
            self.report(Fault(("cloud",), f"the name of a cloud is meant, not {described(value)}"))
        return ""

    def is_cloud(self, name: str, field: str, line: int | None) -> bool:
        if name in self.clouds:
            return True
        meant = near(name, self.clouds)
        hint = f"there are {', '.join(sorted(self.clouds))}" if meant is None else f"did you mean {meant}?"
        self.problems.append(Problem(self.path, line, field, f"there is no cloud {name!r}", hint))
        return False

    def blocks(self) -> dict[str, dict[str, Any]]:
        """The blocks below ``clouds``, as far as they are mappings."""
        blocks = self.content.get("clouds")
        if blocks is None:
            return {}
        if not isinstance(blocks, dict):
            self.report(Fault(("clouds",), f"a mapping of clouds to options is meant, not {described(blocks)}"))
            return {}
        found = {}
        for name, block in blocks.items():
            place = ("clouds", name)
            self.is_cloud(name, field_name(place), self.document.line(place))
            if isinstance(block, dict):
                found[name] = block
            elif block is not None:
                self.report(Fault(place, f"a mapping of options is meant, not {described(block)}"))
        return found

    def check_rest(
        self, raw: dict[str, Any], mine: dict[str, Any], blocks: Mapping[str, dict[str, Any]], cloud: str
    ) -> None:
        """Check names and types of what is not in force: other clouds' blocks, and values that ours replaces."""
        replaced = {name: value for name, value in raw.items() if name in mine}
        removed = {name: None for name, value in mine.items() if value is None and name not in Options.model_fields}
        self.check_block(replaced, (), frozenset())
        self.check_block(removed, ("clouds", cloud), frozenset())
        for name, block in blocks.items():
            if name != cloud:
                given = {key: value for key, value in block.items() if value is not None or not _is_option(key)}
                self.check_block(given, ("clouds", name), frozenset({name}))

    def check_block(self, block: dict[str, Any], before: Place, clouds: frozenset[str]) -> None:
        checked = {name: self.filling.check(value, (*before, name), (name,), clouds) for name, value in block.items()}
        templates = broken_places(checked, before)
        for fault in field_faults(Options, checked, spellings=self.document.spellings, before=before, silent=templates):
            self.problems.append(self.problem(fault.place, fault))

    def template_fault(self, place: Place, error: TemplateError) -> None:
        self.problems.append(self.problem(self.origin(place), Fault(place, error.what, error.hint)))

    def report(self, fault: Fault) -> None:
        self.problems.append(self.problem(self.origin(fault.place), fault))

    def problem(self, place: Place, fault: Fault) -> Problem:
        return Problem(self.path, self.document.line(place), field_name(place), fault.message, fault.hint)

    def origin(self, place: Place) -> Place:
        """Where a value in force stands in the file."""
        name = place[0] if place else ""
        return (*self.places[str(name)], *place[1:]) if name in self.places else place

    def spelled(self) -> list[Place]:
        """Places of values in force that are scalars in the file."""
        found: list[Place] = []
        for place in self.document.spellings:
            short = place[2:] if place[:1] == ("clouds",) else place
            if short and self.origin(short) == place:
                found.append(short)
        return found

    @property
    def lines(self) -> dict[Place, int]:
        """The lines of the values in force."""
        found = {}
        for place, line in self.document.lines.items():
            short = place[2:] if place[:1] == ("clouds",) else place
            if short and self.origin(short) == place:
                found[short] = line
        return found

    def needed(self) -> frozenset[str]:
        """Variables without a value that are needed though no template in force uses them.

        Whoever declares one and uses it nowhere uses it in tests. One that only another cloud's block uses can wait.
        """
        return self.unset - self.filling.used_elsewhere

    def refuse_short(self, spec: Options) -> None:
        for name in SECRETS:
            value = getattr(spec, name)
            if value is not None and len(value.strip()) < SHORTEST_SECRET:
                message = f"is a secret of less than {SHORTEST_SECRET} characters, which cannot be masked"
                self.report(Fault((name,), message))


def _is_option(name: str) -> bool:
    return name in Options.model_fields


def _masked(problems: Iterable[Problem], secrets: Iterable[str]) -> list[Problem]:
    masker = Masker(secret for secret in secrets if len(secret.strip()) >= SHORTEST_SECRET)
    masked = [
        Problem(each.path, each.line, each.field, masker.mask(each.message), each.hint and masker.mask(each.hint))
        for each in problems
    ]
    return sorted(masked, key=lambda each: (str(each.path), each.line is None, each.line or 0))
