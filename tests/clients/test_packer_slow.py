"""What Packer waits three minutes for. Not a part of the usual run: AZCHROOT_ALL_CLIENTS=1 brings it in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .packer import requirements
from .test_packer_faults import NO_LUCK, WAITING, Case, Outcome, outcome

pytestmark = requirements()

DEVICE_PATIENCE = 180
"""Seconds that Packer 1.6.6 looks for a device."""
CASES = {
    "no device": Case(
        ({"operation": "virtualMachines.update", "nth": 1, "no_device": True},), timeout=300, until=WAITING
    ),
    "attach fails": Case(({"operation": "virtualMachines.update", "nth": 1, **NO_LUCK},), timeout=300),
    "nvme": Case(options={"family": "nvme"}, timeout=300, until=WAITING),
}


@pytest.fixture(scope="module")
def found(platform_image: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What becomes of each: all at once."""
    directory = tmp_path_factory.mktemp("slow")
    with ThreadPoolExecutor() as pool:
        outcomes = pool.map(lambda name: outcome(CASES[name], name, directory, platform_image), CASES)
        return dict(zip(CASES, outcomes, strict=True))


@pytest.mark.parametrize("case", ["no device", "nvme"])
def test_a_disk_whose_device_it_does_not_find_stays_attached(found: dict[str, Outcome], case: str) -> None:
    """It looks for the links of a SCSI machine alone; it never asks for a detach, and waits for one."""
    lost = found[case]
    assert lost.made.ended.status == -9 and "context deadline exceeded" in lost.made.ended.output
    assert lost.left == ["PackerTemp-osdisk"] and [disk["toBeDetached"] for disk in lost.attached] == [False]
    assert lost.statuses("PUT virtualMachines") == [200]


def test_an_attach_that_fails_later_is_a_device_that_does_not_come(found: dict[str, Outcome]) -> None:
    failed = found["attach fails"]
    assert failed.made.ended.status == 1 and "context deadline exceeded" in failed.made.ended.output
    assert failed.made.ended.seconds > DEVICE_PATIENCE and failed.left == []
