"""``azchroot sweep``: its options, and what it prints."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.printable import printable
from pytest_azchroot.removal import Action, Outcome, Removal
from pytest_azchroot.sweep import Order, Swept, sweep

_DONE: dict[Action, str] = {
    "delete": "deleted",
    "detach": "detached",
    "revoke": "revoked",
    "keep": "kept",
    "leave": "left",
}


def add_to(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and touch nothing")
    parser.add_argument(
        "--abandon",
        action="store_true",
        help="delete images and gallery image versions, too, that are still being made for a run that died",
    )
    parser.add_argument(
        "--subscription",
        metavar="ID",
        help="look at the tags of this subscription; by default of the virtual machine's own",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> bool:
    """:return: whether all that should go is gone."""
    order = Order(dry_run=options.dry_run, abandon=options.abandon, subscription=options.subscription)
    with _ending_at_once():
        swept = sweep(
            order,
            heard=lambda outcome: None if options.json else _print(outcome, dry_run=order.dry_run),
            say=lambda line: print(line, file=sys.stderr),
        )
    if options.json:
        print(json.dumps(_as_data(swept, dry_run=order.dry_run), indent=2))
    else:
        print(_summary(swept, dry_run=order.dry_run))
        for note in swept.notes:
            print(f"note: {printable(note)}", file=sys.stderr)
        for problem in swept.problems:
            print(problem, file=sys.stderr)
    return not swept.failed


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """Ctrl-C kills it, as anything may: what is not done is in the journals, and the next sweep goes on. To wait for
    what Azure has been asked would take minutes."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _print(outcome: Outcome, *, dry_run: bool) -> None:
    step, error = outcome.removal, outcome.error
    if error is not None:
        text = f"failed {_named(step)}{_whose(step)}"
        print(f"{printable(text)}: {error}", file=sys.stderr)
    elif step.action in _DONE:
        verb = f"would {step.action}" if dry_run else _DONE[step.action]
        print(printable(f"{verb} {_named(step)}: {step.reason}{_whose(step)}"))


def _named(step: Removal) -> str:
    """``disk rg1/name``: an id of Azure in short."""
    parts = step.id.split("/")
    short = "/".join([parts[4], *parts[8::2]]) if step.id.startswith("/subscriptions/") and len(parts) > 8 else step.id
    what = {"attachment": "disk", "access": "access to"}.get(step.kind, step.kind)
    machine = f" from {step.vm.rpartition('/')[2]}" if step.action == "detach" and step.vm else ""
    return f"{what} {short}{machine}"


def _whose(step: Removal) -> str:
    if step.run is None:
        return ""
    began = "" if step.began is None else f", which began {step.began:%Y-%m-%d %H:%M} UTC"
    return f" (run {step.run}{began})"


def _summary(swept: Swept, *, dry_run: bool) -> str:
    counts = Counter(_DONE.get(each.removal.action, "") for each in swept.outcomes if each.error is None)
    failed = sum(each.error is not None for each in swept.outcomes)
    parts = [f"{counts[verb]} {verb}" for verb in _DONE.values() if counts[verb]]
    parts += [f"{failed} failed"] if failed else []
    if not parts:
        return "dead runs have left nothing"
    return ", ".join(parts) + (" if this were no dry run" if dry_run else "")


def _as_data(swept: Swept, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "steps": [
            {
                "action": each.removal.action,
                "kind": each.removal.kind,
                "id": each.removal.id,
                "vm": each.removal.vm,
                "reason": each.removal.reason,
                "run": each.removal.run,
                "began": None if each.removal.began is None else each.removal.began.isoformat(),
                "error": _told(each.error),
            }
            for each in swept.outcomes
        ],
        "notes": swept.notes,
        "problems": [_told(each) for each in swept.problems],
    }


def _told(error: AzchrootError | None) -> str | None:
    return None if error is None else str(error)
