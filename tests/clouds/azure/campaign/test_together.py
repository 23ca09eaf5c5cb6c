"""Sixteen builds at once on one virtual machine: each gets its own disk, and Azure's rate limits are never hit."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.root

COUNT = 16


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of them."""
    directory = tmp_path_factory.mktemp("together")
    order = directory / "order.json"
    order.write_text(json.dumps({"count": COUNT, "directory": str(directory)}))
    argv = [sys.executable, "-m", f"{__package__}.crowd", str(order)]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_all_are_right(together: dict[str, Any]) -> None:
    assert [each["error"] for each in together["results"]] == [None] * COUNT
    assert together["artifacts"] == 2 * COUNT
    assert together["wrong"] == []
    assert together["left"] == []


def test_no_limit_is_hit(together: dict[str, Any]) -> None:
    assert not [call for call in together["calls"] if call.endswith(" 429")]


def test_many_share_a_call(together: dict[str, Any]) -> None:
    changes = together["calls"]["POST virtualMachines/attachDetachDataDisks 202"]
    assert changes < COUNT, together["calls"]
