"""``kill -9`` at any moment leaves nothing: no process, no mount, no loop device, no partition, no half an artifact.

A build is traced; from its system calls moments are drawn, by a fixed seed, over every stage; and for each moment the
build runs again and is killed there: the caller (pytest), the keeper, the holder, or a tool that one of them runs. It
dies before the call, while it is carried out, or after it, at its own call or at one of another process.

``AZCHROOT_KILL_MOMENTS=1000`` kills as often as that, ``AZCHROOT_KILL_SEED=n`` at other moments. One moment by itself:
``python -m tests.campaign.tracer MOMENT DIRECTORY COMMAND...``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from . import subject
from .campaign import Attack, Cell, Outcome, strike, traced
from .conftest import TALLY
from .moments import Call, draw, stages_of, tally
from .stages import BEFORE, STAGES

pytestmark = pytest.mark.root

SEED = int(os.environ.get("AZCHROOT_KILL_SEED", "3"))
ATTACHED = STAGES[STAGES.index("attach") : STAGES.index("close") + 1]
"""Stages in which there is a sandbox."""
WORKING = tuple(stage for stage in STAGES if stage not in ("create", "close", "digest", "finish"))
"""Stages in which programs run."""

CELLS = [
    *(Cell("caller", stage) for stage in STAGES),
    *(Cell("holder", stage) for stage in ATTACHED),
    *(Cell("keeper", stage) for stage in ATTACHED),
    *(Cell("tool", stage) for stage in WORKING),
    *(Cell("caller", stage, "named") for stage in ("create", "seal", "publish", "finish")),
    *(Cell("caller", stage, "replacing") for stage in ("publish", "finish")),
]
MINIMUM = 100
TOLERANCE = 0.1
"""How many moments of those that were drawn need not come in a second run."""
EACH = max(3, -(-int(os.environ.get("AZCHROOT_KILL_MOMENTS", "0")) // len(CELLS)))
"""Kills in each cell."""
_CHAIN = 8
"""Kills in one directory."""


class Campaign:
    """Builds two at a time, or as many as there are processors, while the tests look at those that have ended.

    :param cells: in the order in which they are asked for, so that each test waits for its own builds alone.
    """

    def __init__(self, cells: list[Cell], directory: Path) -> None:
        self.cells = cells
        self._source = subject.make_source(directory)
        self._directory = directory
        self._pool = ThreadPoolExecutor(os.cpu_count())
        traces = {mode: self._pool.submit(self._traced, mode) for mode in {cell.mode for cell in cells}}
        self.traces = {mode: trace.result() for mode, trace in traces.items()}
        self._running: dict[Cell, list[Future[dict[Cell, list[Outcome]]]]] = {cell: [] for cell in cells}
        for number, chain in enumerate(self._chains()):
            begun = self._pool.submit(strike, chain, directory=directory / f"chain-{number}", source=self._source)
            for attack in chain:
                self._running[attack.cell].append(begun)

    def _traced(self, mode: str) -> list[Call]:
        return traced(self._directory / f"trace-{mode}", self._source, mode=mode)

    def _chains(self) -> Iterator[list[Attack]]:
        """What happens in one directory: some kills of one cell, or those of several, so that few builds have to end."""
        chain: list[Attack] = []
        for cell in self.cells:
            moments = [*draw(self.traces[cell.mode], victim=cell.victim, stage=cell.stage, seed=SEED)]
            parts = -(-EACH // _CHAIN)
            attacks = [Attack(cell, moments[index::parts], -(-EACH // parts)) for index in range(parts)]
            if parts > 1 or cell.mode or cell.may_leave_partials:
                yield from ([attack] for attack in attacks)
                continue
            chain += attacks
            if len(chain) * EACH >= _CHAIN:
                yield chain
                chain = []
        if chain:
            yield chain

    def of(self, cell: Cell) -> list[Outcome]:
        """What became of a cell's builds."""
        return [outcome for running in self._running[cell] for outcome in running.result()[cell]]

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of all builds that were to be killed."""
        return [each for cell in self._running for each in self.of(cell) if each.killed is not None]

    def end(self) -> None:
        """Begin no more builds, and wait for those that run."""
        self._pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def campaign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = [item.callspec.params.get("cell") for item in functions if hasattr(item, "callspec")]
    campaign = Campaign([cell for cell in chosen if isinstance(cell, Cell)], tmp_path_factory.mktemp("campaign"))
    try:
        yield campaign
    finally:
        campaign.end()


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_nothing_is_left(cell: Cell, campaign: Campaign, subtests: pytest.Subtests) -> None:
    outcomes = campaign.of(cell)
    for outcome in outcomes:
        with subtests.test(str(outcome.moment)):
            assert "\n".join(outcome.problems) == ""
    assert any(outcome.killed for outcome in outcomes), f"no moment in {cell}"


def test_the_moments_were_many_and_came(campaign: Campaign, request: pytest.FixtureRequest) -> None:
    outcomes = campaign.outcomes
    killed = [outcome.moment for outcome in outcomes if outcome.killed]
    request.config.stash[TALLY] = f"{tally(killed)}\n{len(killed)} killed, {len(outcomes) - len(killed)} moments missed"
    if {*campaign.cells} == {*CELLS}:
        assert len({str(moment) for moment in killed}) >= MINIMUM
    assert len(outcomes) - len(killed) <= len(outcomes) * TOLERANCE


def test_every_stage_of_a_build_is_among_those_that_are_killed(campaign: Campaign) -> None:
    for trace in campaign.traces.values():
        assert {*stages_of(trace)} == {BEFORE, *STAGES}
