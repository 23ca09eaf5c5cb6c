"""How often Azure is asked, and what is asked again."""

from __future__ import annotations

import random
from email.utils import formatdate
from time import time

import pytest

from pytest_azchroot.clouds.azure.calls import call_name, resource_name
from pytest_azchroot.clouds.azure.pace import BRISK, LASTING, Pace, retry_after
from pytest_azchroot.clouds.azure.retries import PATIENCE, PAUSES, pause

COMPUTE = "https://management.azure.com/subscriptions/s/resourceGroups/rg1/providers/Microsoft.Compute"


def questions(pace: Pace, duration: float) -> tuple[int, float]:
    """How often an operation of so many seconds is asked about, and how late its end is seen."""
    elapsed, count = pace.first, 1
    while elapsed < duration:
        elapsed, count = elapsed + pace.delay(elapsed), count + 1
    return count, elapsed - duration


@pytest.mark.parametrize("duration", [0.05, 1.0, 6.4, 60.0, 480.0])
def test_a_share_of_the_time_is_lost_at_most(duration: float) -> None:
    _, late = questions(BRISK, duration)
    assert late <= max(0.015 * duration, 0.06) + 1e-9


def test_long_operations_are_not_pestered() -> None:
    assert questions(BRISK, 6.4)[0] <= 100 and questions(BRISK, 480)[0] <= 450 and questions(LASTING, 480)[0] <= 400


@pytest.mark.parametrize(
    ("asked", "delay"), [(None, 1.0), (0.0, 0.5), (0.25, 0.5), (0.75, 0.75), (2.0, 2.0), (1e9, PATIENCE)]
)
def test_azure_decides(asked: float | None, delay: float) -> None:
    assert Pace(floor=0.5, ceiling=1.0, share=0.1).delay(100.0, asked) == delay


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"RETRY-AFTER": "0.5"}, 0.5),
        ({"Retry-After": "-1"}, 0.0),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"x-ms-retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "nan"}, None),
        ({"x-ms-retry-after-ms": "soon", "Retry-After": "1"}, 1.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_what_an_answer_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_until_a_time() -> None:
    found = retry_after({"Retry-After": formatdate(time() + 100, usegmt=True)})
    assert found is not None and 90 < found <= 101


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST", "PATCH"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412])
def test_a_refusal_stays_one(method: str, status: int) -> None:
    """Even with Retry-After."""
    assert pause(method=method, attempt=0, status=status, asked=1.0) is None


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_be_repeated(status: int) -> None:
    assert [pause(method="PUT", attempt=attempt, status=status) for attempt in range(5)] == [*PAUSES, None]
    assert pause(method="PUT", attempt=0, status=status, asked=0.0) == 0.0
    assert pause(method="PUT", attempt=0, status=status, asked=7.5) == 7.5
    assert pause(method="PUT", attempt=0, status=status, asked=PATIENCE + 1) is None


@pytest.mark.parametrize("status", [408, 502])
def test_what_may_not(status: int) -> None:
    assert pause(method="POST", attempt=0, status=status) is None


def test_no_answer() -> None:
    assert pause(method="PUT", attempt=0, status=None) is not None
    assert pause(method="POST", attempt=0, status=None) is None
    assert pause(method="POST", attempt=0, status=None, sent=False) is not None


def test_pauses_are_not_negative() -> None:
    chance = random.Random(0)
    for _ in range(1000):
        pace = Pace(floor=chance.random(), ceiling=1 + chance.random(), share=chance.random())
        assert pace.floor <= pace.delay(chance.random() * 1000) <= pace.ceiling


@pytest.mark.parametrize(
    ("method", "url", "name", "resource"),
    [
        ("PUT", f"{COMPUTE}/disks/x?api-version=1", "PUT disks", "disks/x"),
        ("GET", f"{COMPUTE}/galleries/g/images/i/versions/1.0.0", "GET galleries/images/versions", "galleries/g/images/i/versions/1.0.0"),
        ("POST", f"{COMPUTE}/virtualMachines/vm/attachDetachDataDisks", "POST virtualMachines/attachDetachDataDisks", "virtualMachines/vm/attachDetachDataDisks"),
        ("GET", "https://m/subscriptions/s/providers/Microsoft.Compute/locations/w/DiskOperations/1?p=1", "GET DiskOperations", "locations/w/DiskOperations/1"),
        ("GET", "https://m/subscriptions/s/providers/Microsoft.Compute/disks", "GET disks", "disks"),
        ("GET", "https://m/subscriptions/s?api-version=1", "GET subscriptions", "subscriptions/s"),
        ("GET", "https://m/subscriptions/s/resourceGroups/rg1", "GET resourceGroups", "subscriptions/s/resourceGroups/rg1"),
        ("GET", "https://m/subscriptions/s/resourcegroups", "GET resourcegroups", "subscriptions/s/resourcegroups"),
        ("POST", "https://login/t/oauth2/v2.0/token", "POST token", "t/oauth2/v2.0/token"),
        ("GET", "https://m/", "GET /", ""),
    ],
)  # fmt: skip
def test_names_of_calls(method: str, url: str, name: str, resource: str) -> None:
    assert call_name(method, url) == name and resource_name(url) == resource
