"""The block device of an attached data disk, by its LUN.

Never by the order of names: those are given in the order in which the kernel meets disks. udev's links are looked at,
of both packages that bring rules for Azure, and sysfs, which needs no rules and is there before them. What is found is
believed where everything that is known of the disk agrees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_azchroot.clouds.azure import blocks
from pytest_azchroot.clouds.azure.blocks import DEVICES_VARIABLE, Block, Roots
from pytest_azchroot.errors import DiskError

__all__ = ["Known", "Roots", "find", "snapshot", "wait_for"]

_LINKS = ("disk/azure/data/by-lun/{}", "disk/azure/scsi1/lun{}")
"""Of Azure/azure-vm-utils, 80-azure-disk.rules, and Azure/WALinuxAgent, 66-azure-storage.rules."""
_FIRST = 0.015
"""Seconds between the first two looks."""
_GROWTH = 1.3
_SHORT, _LONGEST, _SHARE = 0.03, 0.2, 0.015
"""Seconds between two looks, at most, soon and later; and of the time that has gone, what may be lost at the end."""


@dataclass(frozen=True)
class Known:
    """The block devices that were there at a time."""

    identities: frozenset[str] = frozenset()

    def __contains__(self, block: Block) -> bool:
        return block.identity in self.identities


@dataclass(frozen=True)
class _Look:
    """What was found for a LUN."""

    device: Path | None
    there: tuple[Block, ...] = ()
    """Disks that stand at the LUN, whether or not one is the right one."""
    seen: tuple[str, ...] = ()
    """What was not the right one, and why."""


def snapshot(roots: Roots | None = None) -> Known:
    """The block devices that are there now. To be taken before a disk is attached: what is known then is not that disk.

    :raises OSError: sysfs cannot be read.
    """
    return Known(frozenset(block.identity for block in blocks.blocks(roots or Roots.default())))


def find(lun: int, *, size: int | None, before: Known | None, roots: Roots | None = None) -> Path | None:
    """The node of the data disk at a LUN, by the kernel's name; None if it is not there, or something else is.

    :param size: in bytes, which it must have; None: any.
    :param before: devices that it cannot be; None: it may have been attached all the time.
    :raises OSError: the devices cannot be looked at.
    """
    return _look(lun, size=size, before=before, roots=roots or Roots.default()).device


def wait_for(
    lun: int,
    *,
    size: int | None,
    before: Known | None,
    timeout: float,
    check: Callable[[], None] | None = None,
    roots: Roots | None = None,
) -> Path:
    """The same, as soon as it is there.

    :param timeout: seconds.
    :param check: called between two looks; what it raises ends the waiting. How often it does something is its affair.
    :raises DiskError: it did not come.
    """
    roots = roots or Roots.default()
    for _ in _looks(timeout):
        look = _look(lun, size=size, before=before, roots=roots)
        if look.device is not None:
            return look.device
        if check is not None:
            check()
    raise DiskError(
        f"the disk at LUN {lun} has not become a block device in {timeout:g} s",
        why=f"looked at {_looked_at(lun, roots)}; {'; '.join(look.seen) or 'nothing is there'}",
        hint=_hint(look, roots),
    )


def _looks(timeout: float) -> Iterator[None]:
    """Ever less often, until the time is over; the last look is then."""
    began = time.monotonic()
    deadline = began + timeout
    delay = _FIRST
    while True:
        yield
        now = time.monotonic()
        left = deadline - now
        if left <= 0:
            return
        time.sleep(min(delay, left))
        delay = min(delay * _GROWTH, max(_SHARE * (now - began), _SHORT), _LONGEST)


def _look(lun: int, *, size: int | None, before: Known | None, roots: Roots) -> _Look:
    good: dict[int, Path] = {}
    there: dict[int, Block] = {}
    bad: dict[str, list[str]] = {}
    for way, node, block in _candidates(lun, roots):
        if block is not None and block.size and not block.partition and block.lun in (None, lun):
            there[block.number] = block
        wrong = next(_faults(lun, node, block, size=size, before=before, roots=roots), None)
        if wrong is not None:
            bad.setdefault(f"{node}, but {wrong}", []).append(way)
        elif block is not None:
            good.setdefault(block.number, node)
    seen = [f"{' and '.join(ways)} is {what}" for what, ways in bad.items()]
    if len(good) > 1:  # of equal size and equally new: to guess would be to write to somebody else's disk
        seen.append(f"{' and '.join(str(node) for node in good.values())} are both at LUN {lun}")
        good.clear()
    return _Look(next(iter(good.values()), None), tuple(there.values()), tuple(seen))


def _candidates(lun: int, roots: Roots) -> Iterator[tuple[str, Path, Block | None]]:
    """How it was found, the node, and what the kernel says of it."""
    for link in _link_paths(lun, roots):
        node = blocks.target(link)
        if node is not None:
            number = roots.number(node)
            yield str(link), node, None if number is None else blocks.numbered(number, roots)
    if not roots.links_only:
        for block in blocks.hardware(roots):
            if block.lun == lun:
                yield f"{block.place}", roots.dev / block.name, block


def _faults(
    lun: int, node: Path, block: Block | None, *, size: int | None, before: Known | None, roots: Roots
) -> Iterator[str]:
    """Why a candidate is not the disk."""
    if block is None:
        yield "that is no block device"
        return
    if roots.number(node) != block.number:
        yield "there is no such node for it"
    if block.partition:
        yield "that is a partition"
    if block.place is not None and block.lun != lun:
        yield f"that is {block.place}"
    if before is not None and block in before:
        yield "that was there before the disk was attached"
    if not block.size:
        yield "that has no size"
    if size is not None and block.size != size:
        yield f"that has {block.size} bytes and not {size}"


def _link_paths(lun: int, roots: Roots) -> list[Path]:
    return [roots.dev / link.format(lun) for link in _LINKS]


def _looked_at(lun: int, roots: Roots) -> str:
    links = " and ".join(str(link) for link in _link_paths(lun, roots))
    if roots.links_only:
        return f"{links} (the environment's {DEVICES_VARIABLE} names that directory)"
    return f"{links}, and at SCSI and NVMe disks in {roots.sys / 'class/block'}"


def _hint(look: _Look, roots: Roots) -> str:
    if look.there:
        return "detach the disk that is there in Azure, or wait until it has left (`lsblk`), and run again"
    if roots.links_only:
        return f"unset {DEVICES_VARIABLE} if no emulator of Azure is meant"
    return (
        "if Azure shows the disk as attached, see what the kernel says of it (`dmesg`, `lsblk`); on a SCSI machine "
        "`for each in /sys/class/scsi_host/host*/scan; do echo '- - -' >$each; done` lets it look again"
    )
