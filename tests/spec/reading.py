"""Reads image.yaml texts for tests."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pytest_azchroot.spec import BUILTIN_CLOUDS, ConfigError, Configuration, Problem, load


@dataclass(frozen=True)
class Case:
    """A text, and what must be said about it: for each problem its line, its field, and a part of its text."""

    id: str
    text: str
    problems: Sequence[tuple[int | None, str, str]]
    cloud: str | None = None
    variables: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def param(self) -> object:
        return pytest.param(self, id=self.id)


def write(directory: Path, text: str, name: str = "image.yaml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def read(
    directory: Path,
    text: str,
    *,
    cloud: str | None = None,
    variables: Iterable[str] = (),
    variable_files: Iterable[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> Configuration:
    return load(
        write(directory / "demo", text),
        clouds=BUILTIN_CLOUDS,
        cloud=cloud,
        variables=variables,
        variable_files=variable_files,
        environ=environ or {},
    )


def problems(
    directory: Path,
    text: str,
    *,
    cloud: str | None = None,
    variables: Iterable[str] = (),
    variable_files: Iterable[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        read(directory, text, cloud=cloud, variables=variables, variable_files=variable_files, environ=environ)
    return caught.value.problems


def check(case: Case, directory: Path) -> None:
    """Everything the case names is said, and nothing else."""
    found = problems(directory, case.text, cloud=case.cloud, variables=case.variables, environ=case.environ)
    assert sorted((each.line or 0, each.field) for each in found) == sorted(
        (line or 0, name) for line, name, _ in case.problems
    ), "\n".join(map(str, found))
    for line, name, part in case.problems:
        said = [f"{each.message} / {each.hint}" for each in found if (each.line, each.field) == (line, name)]
        assert any(part in text for text in said), said
