"""Packer 1.6.6, as Debian has it, builds on the emulator. What counts is what is in the images, not what it says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from .packer import (
    AUTHS,
    DESTINATIONS,
    SOURCES,
    URN,
    Build,
    assert_built,
    build,
    files_of,
    image_id,
    left_of_builds,
    prepared,
    requirements,
    target,
    version_id,
)
from .stage import opened

pytestmark = requirements()


@dataclass(frozen=True)
class Matrix:
    """Builds by source, destination and authentication, and the directories of the stages, which have ended."""

    builds: dict[tuple[str, str, str], tuple[Build, str]]
    directories: dict[str, Path]


@pytest.fixture(scope="module")
def matrix(userland: Path, platform_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """All builds: for each source a machine, on which they run one after another, and the machines at once."""
    directory = tmp_path_factory.mktemp("matrix")
    builds = {}

    def run(source: str) -> None:
        ways = [(place, auth) for place in DESTINATIONS for auth in AUTHS]
        with opened(directory / source, name=source, images={URN: platform_image}) as stage:
            prepared(stage)
            for number, (place, auth) in enumerate(ways):
                builder = {**SOURCES[source], **AUTHS[auth], **target(place, number)}
                filling = userland if source == "scratch" else None
                made = build(stage, f"{source}-{place}-{auth}", builder, userland=filling)
                builds[source, place, auth] = made, (image_id if place == "image" else version_id)(number)

    with ThreadPoolExecutor() as pool:
        list(pool.map(run, SOURCES))
    return Matrix(builds, {source: directory / source for source in SOURCES})


@pytest.mark.parametrize("auth", AUTHS)
@pytest.mark.parametrize("place", DESTINATIONS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_build(matrix: Matrix, source: str, place: str, auth: str) -> None:
    made, id_ = matrix.builds[source, place, auth]
    assert_built(made, id_)


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_left_of_them(matrix: Matrix, source: str) -> None:
    assert left_of_builds(matrix.directories[source]) == []


@pytest.mark.parametrize("place", DESTINATIONS)
def test_data_disks_of_a_version_go_into_what_is_made_of_it(matrix: Matrix, place: str) -> None:
    made, id_ = matrix.builds["gallery", place, "identity"]
    files = files_of(made.stage.directory, id_)
    assert set(files) == {"os", "0"} and files["0"].stat().st_size == 1024**3


def test_who_asked_is_who_it_was_to_be(matrix: Matrix) -> None:
    calls = [call for made, _ in matrix.builds.values() for call in made.stage.calls()]
    assert {call["status"] for call in calls if call["path"].endswith("/oauth2/token")} == {200}
    assert any(call["host"] == "login.microsoftonline.com" for call in calls)
    assert any(call["host"] == "169.254.169.254" and "/identity/" in call["path"] for call in calls)


def test_it_polls_as_if_it_were_azure(matrix: Matrix) -> None:
    calls = [call for made, _ in matrix.builds.values() for call in made.stage.calls()]
    packers = [call for call in calls if "Azure-SDK-For-Go" in call["agent"]]
    assert {call["version"] for call in packers if call["name"] == "PUT disks"} == {"2019-11-01"}
    assert {call["status"] for call in packers} <= {200, 201, 202, 401}
