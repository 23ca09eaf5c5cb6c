"""The pages about the emulator: their tables are those of its code, their examples run."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
import yaml

from pytest_azchroot.emulator import arm, calls, pytest_plugin
from pytest_azchroot.emulator.calls import CallLog
from pytest_azchroot.emulator.faults import FaultPlan, Rule
from pytest_azchroot.emulator.http import Request, Response
from pytest_azchroot.emulator.isolation import no_way_out
from pytest_azchroot.emulator.settings import Profile

from . import emulator_page, markdown, shell

HOW_TO = markdown.ROOT / "docs" / "how-to" / "emulator.md"
TEXT = emulator_page.PAGE.read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_code() -> None:
    stale = "docs/reference/emulator.md is stale: python -m tests.docs.emulator_page"
    assert emulator_page.made() == TEXT, stale


def test_every_difference_is_of_something_that_is_there() -> None:
    assert set(emulator_page.DIFFERENCES) <= set(arm.ROUTES)


def test_every_operation_says_what_it_does() -> None:
    assert [line for line in emulator_page.operations() if "|  |" in line.partition("` |")[2][:5]] == []


@pytest.mark.parametrize("type_", [Rule, Profile])
def test_files_are_described_whole(type_: type[Rule] | type[Profile]) -> None:
    names = [field.name for field in dataclasses.fields(type_)]
    assert [name for name in names if f"`{name}`" not in TEXT] == []


def test_the_log_is_described_whole(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.jsonl")
    log.write("GET disks", Request("GET", "http", "h", "/"), Response(200), began=0, request_id="1")
    log.close()
    names = [*json.loads(log.path.read_text()), "operation", "error"]
    assert [name for name in names if f"`{name}`" not in TEXT] == []
    assert str(calls._AGENT) in TEXT


def test_examples_of_files_can_be_read(tmp_path: Path) -> None:
    for page in (emulator_page.PAGE, HOW_TO):
        for block in markdown.blocks(page):
            if block.language != "yaml":
                continue
            path = tmp_path / "example.yaml"
            path.write_text(block.text)
            if isinstance(yaml.safe_load(block.text), list):
                FaultPlan.load(path)
            else:
                Profile.load(path)


def test_the_fixtures_are_described_whole() -> None:
    text = HOW_TO.read_text(encoding="utf-8")
    members = [name for name in vars(pytest_plugin.AzureEmulator) if not name.startswith("_")]
    fixtures = [name for name, value in vars(pytest_plugin).items() if name.startswith("azure_emulator")]
    missing = [name for name in [*members, *fixtures] if f"`{name}" not in text and f"`{name}." not in text]
    assert missing == ["emulator"]  # what is inside may change
    assert inspect.getdoc(pytest_plugin.azure_emulator)


@pytest.mark.root
def test_the_how_to_is_true(tmp_path: Path) -> None:
    with no_way_out():
        shell.follow(markdown.blocks(HOW_TO), tmp_path)
