"""Modules are loaded while nobody looks for garbage."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from pytest_azchroot.loading import uncollected


def test_nobody_looks_for_garbage_meanwhile() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_module_that_fails_changes_nothing() -> None:
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()


def test_who_has_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


_SOON = """
import sys, time
from pytest_azchroot.loading import soon
soon("colorsys", after=0.01)
deadline = time.monotonic() + 10
while "colorsys" not in sys.modules and time.monotonic() < deadline:
    time.sleep(0.01)
assert "colorsys" in sys.modules
soon("wave", after=99)
"""


def test_what_is_loaded_soon_keeps_nobody() -> None:
    subprocess.run([sys.executable, "-c", _SOON], check=True, timeout=30)


_ONCE = """
import gc
from pytest_azchroot.clouds.azure import loading
loading.load()
frozen = gc.get_freeze_count()
made = [[] for _ in range(1000)]
loading.load()
assert gc.isenabled() and gc.get_freeze_count() <= frozen, "what was made since is set apart, too"
assert frozen > 10_000, f"only {frozen} objects are set apart"
"""


def test_the_sdks_are_set_apart_once() -> None:
    subprocess.run([sys.executable, "-c", _ONCE], check=True)
