"""Moments at which to kill, drawn from the list of a traced build's system calls. Pure."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from . import calls

WHEN = ("before", "during", "after")
"""Before the call is carried out; while it is, which ends it where it waits; when it has been."""


@dataclass(frozen=True)
class Call:
    """One system call of a build."""

    stage: str
    """What the caller was about."""
    role: str
    """Who made it: ``caller``, ``keeper``, ``holder``, or ``tool``: any program that one of these runs."""
    kind: str
    """``umount2``, ``ioctl(BLKPG)``."""
    number: int
    """The how manieth of its kind, by this role, in this stage. Not over all: how often pytest closes a file before
    that may differ from run to run."""


@dataclass(frozen=True)
class Moment:
    """When to kill, and whom."""

    victim: str
    """A role. ``tool`` is the one that makes the call."""
    call: Call
    when: str
    """One of :data:`WHEN`."""

    def __str__(self) -> str:
        call = self.call
        return f"{self.victim}:{call.stage}:{self.when}:{call.role}:{call.kind}:{call.number}"

    @classmethod
    def parse(cls, text: str) -> Moment:
        """What ``str`` made. Raises ValueError."""
        victim, stage, when, role, kind, number = text.split(":")
        if when not in WHEN:
            raise ValueError(f"{when} is none of {', '.join(WHEN)}")
        return cls(victim, Call(stage, role, kind, int(number)), when)


class Numbering:
    """Numbers calls as they come: those of each kind, role and stage by themselves."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str, str]] = Counter()

    def call(self, stage: str, role: str, kind: str) -> Call:
        self._seen[stage, role, kind] += 1
        return Call(stage, role, kind, self._seen[stage, role, kind])


def numbered(rows: Iterable[Sequence[str]]) -> list[Call]:
    """The calls of a trace, whose rows are stage, role and kind."""
    numbering = Numbering()
    return [numbering.call(*row) for row in rows]


def draw(trace: Sequence[Call], *, victim: str, stage: str, seed: int) -> Iterator[Moment]:
    """Moments of a stage at which to kill the victim, each once, the best spread first; the same for the same trace.

    The victim's own calls and those of others take turns, and so do kinds of calls; those that change something come
    more often than those that do not, and where there are many of a kind each is as likely as the other. When all calls
    have had their turn, they come again with what is left of before, during, after.
    """
    chance = random.Random(f"{seed}:{victim}:{stage}")
    here = [call for call in _life(trace, victim) if call.stage == stage]
    own = _spread([call for call in here if call.role == victim], chance)
    others = _spread([call for call in here if victim not in (call.role, "tool")], chance)
    turns = [call for pair in zip_longest(own, others) for call in pair if call is not None]
    left = [(call, chance.sample(WHEN, len(WHEN)) if calls.returns(call.kind) else ["before"]) for call in turns]
    while left:
        yield from (Moment(victim, call, whens.pop()) for call, whens in left)
        left = [(call, whens) for call, whens in left if whens]


def _life(trace: Sequence[Call], victim: str) -> Sequence[Call]:
    """The part of a trace from the victim's first call to its last."""
    own = [index for index, call in enumerate(trace) if call.role == victim]
    return trace[own[0] : own[-1] + 1] if own else ()


def _spread(here: Sequence[Call], chance: random.Random) -> Iterator[Call]:
    kinds: dict[str, list[Call]] = defaultdict(list)
    for call in here:
        kinds[call.kind].append(call)
    for some in kinds.values():
        chance.shuffle(some)
    rank: dict[str, float] = {kind: _delay(kind, chance) for kind in sorted(kinds)}
    while kinds:
        kind = min(kinds, key=lambda each: (rank[each], each))
        yield kinds[kind].pop()
        rank[kind] += 1 + _delay(kind, chance)
        if not kinds[kind]:
            del kinds[kind]


def _delay(kind: str, chance: random.Random) -> float:
    return float(chance.expovariate(calls.weight(kind)))


def stages_of(trace: Iterable[Call]) -> list[str]:
    """In the order in which they came."""
    return list(dict.fromkeys(call.stage for call in trace))


def tally(moments: Iterable[Moment]) -> str:
    """How many moments there were of each victim in each stage, as a table."""
    counts: Counter[tuple[str, str]] = Counter()
    for moment in moments:
        counts[moment.call.stage, moment.victim] += 1
    victims = sorted({victim for _, victim in counts})
    stages = list(dict.fromkeys(stage for stage, _ in counts))
    lines = [f"{'':10}" + "".join(f"{victim:>8}" for victim in victims)]
    lines += [f"{stage:10}" + "".join(f"{counts[stage, victim]:8}" for victim in victims) for stage in stages]
    return "\n".join(lines)
