"""Whatever happens to a call of a build, it ends well, or clearly; and whatever it leaves, one sweep removes.

A build is recorded: every call of Azure's, the metadata service's and the token service's, and every operation. At
each of them one thing happens in a build of its own (:mod:`.faults`), or the build is killed there. By default each
call has one fault and one kill, drawn by a seed; ``AZCHROOT_AZURE_FAULTS=all`` tries everything at every call, about
four hundred builds, ``AZCHROOT_AZURE_SEED=n`` draws others. One by itself::

    AZCHROOT_AZURE_FAULTS='PUT disks#1: lost' pytest tests/clouds/azure/campaign/test_campaign.py
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .cell import KILLS, Cell, Outcome, cells
from .moments import Moment

pytestmark = pytest.mark.root

SEED = int(os.environ.get("AZCHROOT_AZURE_SEED", "5"))
WANTED = os.environ.get("AZCHROOT_AZURE_FAULTS", "")
EXPECTED = {
    *("GET /metadata/instance", "GET /metadata/identity/oauth2/token", "PUT disks", "DELETE disks", "GET disks"),
    *("GET virtualMachines", "POST virtualMachines/attachDetachDataDisks"),
    *("PUT images", "PUT galleries/images/versions", "poll disks.create#1", "poll images.create#1"),
    *("poll versions.create#1", "operation disks.create", "operation virtualMachines.attachDetach"),
    *("operation images.create", "operation versions.create", "operation disks.delete"),
}
TOLERANCE = 0.1
"""How many moments of those that were recorded need not come in another build: how often it asks depends on time."""
_AT_ONCE = 2 * (os.cpu_count() or 1)


def tried(wanted: Sequence[str], directory: Path) -> Iterator[Outcome]:
    """Try cells, many at once."""
    directory.mkdir()
    order = directory / "order.json"
    order.write_text(json.dumps({"cells": [*wanted], "directory": str(directory), "at_once": _AT_ONCE}))
    argv = [sys.executable, "-m", f"{__package__}.server", str(order)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield from (Outcome(**json.loads(line)) for line in server.stdout)
    assert server.returncode == 0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The moments of a build to which nothing happens."""
    (outcome,) = tried([str(Cell(None))], tmp_path_factory.mktemp("recorded") / "r")
    assert (outcome.ending, outcome.problems) == ("published", []), outcome
    return outcome.moments


@pytest.fixture(scope="module")
def outcomes(recorded: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """What became of all that were tried."""
    drawn = [WANTED] if ": " in WANTED else [str(each) for each in sample(recorded)]
    return [*tried(drawn, tmp_path_factory.mktemp("tried") / "t")]


def sample(recorded: Sequence[str]) -> list[Cell]:
    """All cells, or of each moment one fault and one kill; each kind of fault about as often."""
    every = [*cells(recorded)]
    if WANTED == "all":
        return every
    chance, used = random.Random(SEED), Counter[str]()
    of: defaultdict[Moment | None, list[Cell]] = defaultdict(list)
    for cell in every:
        of[cell.moment].append(cell)
    found: list[Cell] = []
    for some in of.values():
        for kill in (False, True):
            left = [cell for cell in some if (cell.event in KILLS) is kill]
            if left:
                found.append(min(left, key=lambda cell: (used[cell.event], chance.random())))
                used[found[-1].event] += 1
    return found


def test_a_build_asks_what_is_known(recorded: list[str]) -> None:
    names = {Moment.parse(each).name for each in recorded}
    assert names >= EXPECTED


@pytest.mark.parametrize("kill", [False, True], ids=["fault", "kill"])
def test_nothing_is_left_and_what_is_said_is_clear(
    kill: bool, outcomes: list[Outcome], subtests: pytest.Subtests
) -> None:
    for outcome in outcomes:
        if (Cell.parse(outcome.cell).event in KILLS) is kill:
            with subtests.test(outcome.cell):
                assert not outcome.problems, str(outcome)


def test_what_was_to_happen_has_happened(recorded: list[str], outcomes: list[Outcome]) -> None:
    missed = [outcome.cell for outcome in outcomes if not outcome.reached]
    assert len(missed) <= TOLERANCE * len(outcomes), missed
    if ": " not in WANTED:
        assert {str(Cell.parse(outcome.cell).moment) for outcome in outcomes} == set(recorded)
        assert {"published", "failed", "killed", "published, with an error"} <= {each.ending for each in outcomes}
