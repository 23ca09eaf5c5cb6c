"""Tries many cells, some at a time, each in a process that is forked from this one, which has loaded everything.

Run as a program with a file that says what to do; prints an outcome a line.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import azure.identity
import azure.mgmt.compute

from pytest_azchroot.clouds.azure import (  # noqa: F401
    attachments,
    credentials,
    disks,
    pending,
    preflight,
    publishing,
    removals,
)
from pytest_azchroot.emulator.settings import Settings

from . import ground
from .cell import Cell, Outcome, run

_ = azure.mgmt.compute.ComputeManagementClient


def main(path: Path) -> None:
    """All cells of a file, ``{"cells": […], "directory": …, "at_once": 3}``."""
    wanted = json.loads(path.read_text())
    directory = Path(wanted["directory"])
    told = ground.prepare(directory / "ground")
    running: dict[int, tuple[str, Path]] = {}
    for number, cell in enumerate(wanted["cells"]):
        if len(running) >= wanted["at_once"]:
            _collect(running)
        place = directory / str(number)
        pid = os.fork()
        if pid == 0:
            _child(Cell.parse(cell), told, place)
        running[pid] = (cell, place)
    while running:
        _collect(running)


def _child(cell: Cell, told: Settings, place: Path) -> None:
    try:
        outcome = run(cell, told, place)
    except BaseException:
        outcome = Outcome(str(cell), ending="the trial has failed", problems=[traceback.format_exc()])
    place.with_suffix(".json").write_text(json.dumps(asdict(outcome)))
    os._exit(0)


def _collect(running: dict[int, tuple[str, Path]]) -> None:
    pid, status = os.wait()
    cell, place = running.pop(pid)
    answer = place.with_suffix(".json")
    if answer.exists():
        found: dict[str, Any] = json.loads(answer.read_text())
    else:
        found = asdict(Outcome(cell, problems=[f"the trial ended with {status}"]))
    print(json.dumps(found), flush=True)
    if not found["problems"]:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
