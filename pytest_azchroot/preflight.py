"""What can be known before anything is made: asked for all selected images, before the first item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_azchroot import chain
from pytest_azchroot.clouds import TakesUp
from pytest_azchroot.collector import PublishItem, directory_of
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.gate import some
from pytest_azchroot.report import records
from pytest_azchroot.sandbox import requirements
from pytest_azchroot.suite import Suite
from pytest_azchroot.suites import Suites


def problems_of_session(suites: Suites, items: Sequence[pytest.Item]) -> list[str]:
    """Everything that would fail later, a sentence each; nothing where no image is selected."""
    selected = [suite for suite in suites if any(directory_of(item) is suite.directory for item in items)]
    if not selected:
        nothing = suites.settings.verify is not None and len(suites) > 0
        return ["--azchroot-verify runs checks, and none is selected"] if nothing else []
    # First: it tells each image on which machine it is, and with that what it publishes is known.
    own = [f"{suite.image.name}: {problem}" for suite in selected for problem in _problems(suites, suite, items)]
    return [
        *requirements(),
        *_unknown_variables(suites),
        *_verified_together(suites.settings.verify, selected),
        *_claimed_twice(selected),
        *_same_manifest(selected, suites.settings.output),
        *own,
    ]


def _problems(suites: Suites, suite: Suite, items: Sequence[pytest.Item]) -> Iterable[str]:
    if suite.starts_from_itself:
        yield f"its source is made by {some([source.image.name for source in suite.sources])}, which starts from it"
    cloud = suite.build.cloud
    publishing = any(isinstance(item, PublishItem) and item.suite is suite for item in items)
    try:
        # A part of an image publishes nothing: whoever works on one check need not think of the artifact.
        suites.introduce(suite)
        order = suite.build.order
        possible = order.publish and publishing and not suite.ledger.dropped
        if possible and isinstance(cloud, TakesUp) and (sent := cloud.sent(order)):
            suite.build.sent = sent
        else:
            names = (chain.coming(suite.image) for _ in suite.sources)
            coming = frozenset(name for name in names if name is not None)
            yield from cloud.preflight(replace(order, coming=coming, publish=possible))
    except AzchrootError as error:
        yield str(error)
    except Exception as error:  # a cloud of a stranger may raise anything, also what holds a secret
        yield f"the cloud {cloud.name!r} could not tell whether it can build: {type(error).__name__}: {error}"
    if suite.policy.require_publish and not publishing:
        yield "--azchroot-require-publish is set, but its publish item is not selected"


def _verified_together(source: str | None, selected: Sequence[Suite]) -> Iterator[str]:
    if source is not None and len(selected) > 1:
        names = some([suite.image.name for suite in selected], 8)
        what = f"--azchroot-verify names one image, and the checks of {len(selected)} are selected: {names}"
        yield f"{what} (name the directory of one)"


def _claimed_twice(selected: Sequence[Suite]) -> Iterator[str]:
    claimed: dict[str, str] = {}
    for suite in selected:
        if suite.image.configuration.pending:
            continue  # nobody could tell it what its templates wait for, which is a problem of its own
        for path in sorted(suite.makes):
            if path in claimed:
                yield f"{suite.image.name} and {claimed[path]} would both publish {path}"
            claimed[path] = suite.image.name


def _same_manifest(selected: Sequence[Suite], output: Path | None) -> Iterator[str]:
    if output is None:
        return
    named: dict[str, Path] = {}
    for suite in selected:
        path = records.place(output, suite.image.name)
        if other := named.get(suite.image.name):
            yield f"{suite.image.path} and {other} would both write {path}: without --azchroot-output they would not"
        named[suite.image.name] = suite.image.path


def _unknown_variables(suites: Suites) -> Iterator[str]:
    """A variable may belong to one image of several, so that only here it can be called unknown."""
    declared = {name for suite in suites for name in suite.image.variables}
    for assignment in suites.settings.variables:
        name = assignment.partition("=")[0]
        if name not in declared:
            known = some(sorted(declared), 12) if declared else "none"
            yield f"--azchroot-var {name}: no selected image declares a variable of this name (declared: {known})"
