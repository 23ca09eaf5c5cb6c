"""Questions that are asked at once."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from pytest_azchroot.clouds.azure.beside import beside


def test_they_go_at_once() -> None:
    both = threading.Barrier(2, timeout=10)
    one, other = beside(both.wait), beside(both.wait)
    assert {one.result(), other.result()} == {0, 1}


def test_what_is_raised_is_raised_where_somebody_asks() -> None:
    with pytest.raises(ZeroDivisionError):
        beside(divmod, 1, 0).result()


def test_nobody_who_leaves_waits() -> None:
    code = "import time; from pytest_azchroot.clouds.azure.beside import beside; beside(time.sleep, 60)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
