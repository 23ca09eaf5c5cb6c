"""What can be known before anything is made on Azure: everything that would fail later, in one list.

All lookups go at once, so it costs about one round trip: a build of a platform image for a managed image makes three or
four calls, the deepest of them two in a row (``latest`` is a list and then a version).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pytest_azchroot.clouds import Order
from pytest_azchroot.clouds.azure import destinations, regions
from pytest_azchroot.clouds.azure.beside import beside
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.refusals import AzureError, CredentialError, explained
from pytest_azchroot.clouds.azure.sources import GIB, Source, examine
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.spec import ImageSpec
from pytest_azchroot.spec.azure_ids import (
    DiskId,
    GalleryImageVersionId,
    parse_disk_id,
    parse_image_id,
    parse_source,
)

if TYPE_CHECKING:
    from pytest_azchroot.clouds.azure.broker import Room
    from pytest_azchroot.clouds.azure.client import Azure

T = TypeVar("T")
D = TypeVar("D")
log = logging.getLogger(__name__)

_NOT_YOU = 401
_DATA_ONLY = {"PremiumV2_LRS": "Premium SSD v2", "UltraSSD_LRS": "Ultra"}
"""Disks that can be neither OS disks nor in galleries. Source: learn.microsoft.com, "Deploy a Premium SSD v2" and
"Using Azure Ultra Disks", their limitations."""


@dataclass(frozen=True)
class Preflight:
    """What was found out."""

    problems: list[str]
    """Everything that would fail later, a sentence each."""
    source: Source | None
    """What the build starts from, if it is there and can be used: nobody needs to look for it again."""


def problems(azure: Azure, order: Order, machine: Machine, *, room: Callable[[], Room]) -> list[str]:
    """Everything that would fail later, a sentence each. Makes nothing; see :func:`preflight`."""
    return preflight(azure, order, machine, room=room).problems


def preflight(azure: Azure, order: Order, machine: Machine, *, room: Callable[[], Room]) -> Preflight:
    """Look everything up that a build needs, and say what is wrong with it.

    :param room: tells how many data disks the machine has, and may have: :meth:`.broker.Broker.room`.
    """
    spec, found = order.configuration.spec, _Findings()
    publishing = order.publish and not spec.skip_create_image
    lookups = _Lookups(azure, order, machine, publishing=publishing)
    free = beside(room)
    source = None if lookups.source is None else found.of(lookups.source, None)
    found += _room_problems(found.of(free, None), machine)
    found += _size_problems(spec, source)
    found += _storage_problems(spec)
    unoffered: list[str] = found.of(lookups.storage, [])
    found += unoffered
    found += _temporary_problems(spec, machine, found.of(lookups.temporary, False))
    if publishing:
        found += _nothing_problems(spec)
        found += _image_problems(lookups, found, source, order)
        found += _gallery_problems(lookups, found, source, order, machine)
    if source is not None:
        found += source.problems
        for notice in source.notices:
            log.warning("%s: %s", order.name, notice)
    return Preflight(found.problems, source if source is not None and not source.problems else None)


class _Lookups:
    """Everything that is asked, at once."""

    def __init__(self, azure: Azure, order: Order, machine: Machine, *, publishing: bool) -> None:
        spec = order.configuration.spec
        self.source = None if is_coming(order) else beside(examine, azure, spec, machine)
        self.temporary = beside(_temporary_exists, azure, spec, machine)
        self.storage = beside(_unoffered, azure, spec, machine)
        self.image_id = parse_image_id(spec.image_resource_id) if publishing and spec.image_resource_id else None
        self.version_id = destinations.version_id(spec, machine) if publishing else None
        if self.image_id is not None:
            self.image = beside(destinations.find_image, azure, self.image_id)
        if self.version_id is not None:
            self.definition = beside(destinations.find_definition, azure, self.version_id)
            self.version = beside(destinations.find_version, azure, self.version_id)
            asked = spec.shared_image_destination.target_regions if spec.shared_image_destination else ()
            self.regions = [
                beside(destinations.unknown_region, azure, self.version_id.subscription_id, each.name)
                for each in asked
                if not regions.same(each.name, machine.location)
            ]


class _Findings:
    """Sentences, none twice."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._met: set[Hashable] = set()

    def __iadd__(self, sentences: Iterable[str]) -> _Findings:
        self.problems += [each for each in sentences if each not in self.problems]
        return self

    def of(self, lookup: Future[T], otherwise: D) -> T | D:
        """What a lookup has found, else something else; if it has failed, that is a problem.

        What keeps many lookups from an answer is one problem: a credential, the network, a subscription.
        """
        try:
            return lookup.result()
        except AzchrootError as error:
            if (cause := _cause(error)) not in self._met:
                self._met.add(cause)
                self += [error.sentence]
        return otherwise


def _cause(error: AzchrootError) -> Hashable:
    """What is the same for two lookups that fail for one reason."""
    if isinstance(error, CredentialError):
        return "credential"
    if isinstance(error, AzureError) and error.status in {None, _NOT_YOU}:
        return error.status
    return error.what if error.why is None else error.why


def is_coming(order: Order) -> bool:
    """Whether an image before this one is about to publish the source, so that it need not be there yet."""
    spec = order.configuration.spec
    if spec.from_scratch or spec.source is None:
        return False
    coming = {each.lower() for each in order.coming}
    asked = parse_source(spec.source)
    if isinstance(asked, GalleryImageVersionId) and asked.version.lower() == "latest":
        versions = str(asked).lower().rpartition("/")[0] + "/"
        return any(each.startswith(versions) for each in coming)
    return str(asked).lower() in coming


# -- lookups


def _unoffered(azure: Azure, spec: ImageSpec, machine: Machine) -> list[str]:
    storage = spec.os_disk_storage_account_type
    if storage in _DATA_ONLY:
        return []
    with regions.if_permitted():
        return regions.storage_problems(azure, machine, storage)
    return []


def _temporary_exists(azure: Azure, spec: ImageSpec, machine: Machine) -> bool:
    """Whether the disk is there already that the spec wants as its working disk.

    :raises AzureError: Azure could not be asked, or has no such resource group.
    """
    asked = _temporary(spec)
    if asked is None or asked.subscription_id.lower() != machine.subscription_id.lower():
        return False
    disks = azure.compute(asked.subscription_id).disks
    try:
        with explained(f"looking for temporary_os_disk_id {asked}"):
            disks.get(asked.resource_group, asked.name)
    except AzureError as error:
        if not error.is_missing or error.code == "ResourceGroupNotFound":
            raise
        return False
    return True


def _temporary(spec: ImageSpec) -> DiskId | None:
    return None if spec.temporary_os_disk_id is None else parse_disk_id(spec.temporary_os_disk_id)


# -- what is wrong


def _room_problems(room: Room | None, machine: Machine) -> Iterator[str]:
    if room is not None and room.left == 0:
        yield (
            f"no further disk can be attached to {machine.name}: its size {machine.size} allows {room.limit} data "
            f"disks, and it has {room.used} (detach one that nobody needs, or build on a larger size)"
        )


def _size_problems(spec: ImageSpec, source: Source | None) -> Iterator[str]:
    if source is None or source.size is None or not spec.os_disk_size_gb:
        return
    # A platform image of 30 GiB is a MiB larger than that, and Azure takes 30 for its disk.
    least = source.size // GIB
    if spec.os_disk_size_gb < least:
        yield (
            f"os_disk_size_gb says {spec.os_disk_size_gb} GiB, and {source.title} has {least} GiB: it only enlarges "
            "(leave it out, or name a smaller source)"
        )


def _storage_problems(spec: ImageSpec) -> Iterator[str]:
    storage = spec.os_disk_storage_account_type
    if name := _DATA_ONLY.get(storage):
        yield (
            f"os_disk_storage_account_type is {storage}, and Azure takes {name} disks neither for operating systems "
            "nor for galleries (Premium_LRS is the fastest that can become an image)"
        )


def _temporary_problems(spec: ImageSpec, machine: Machine, exists: bool) -> Iterator[str]:
    asked = _temporary(spec)
    if asked is None:
        return
    if asked.subscription_id.lower() != machine.subscription_id.lower():
        yield (
            f"temporary_os_disk_id is in the subscription {asked.subscription_id}, and this machine in "
            f"{machine.subscription_id}: Azure attaches disks within a subscription alone (leave it out)"
        )
    if exists:
        yield f"temporary_os_disk_id names {asked.name}, which is there already (delete that disk, or leave it out)"


def _nothing_problems(spec: ImageSpec) -> Iterator[str]:
    if spec.image_resource_id is None and spec.shared_image_destination is None:
        yield (
            "image.yaml names nothing to publish (set image_resource_id or shared_image_destination, or "
            "skip_create_image: true)"
        )


def _image_problems(lookups: _Lookups, found: _Findings, source: Source | None, order: Order) -> Iterator[str]:
    if (asked := lookups.image_id) is not None:
        image = found.of(lookups.image, None)
        yield from destinations.image_problems(asked, image, source, overwrite=order.overwrite)


def _gallery_problems(
    lookups: _Lookups, found: _Findings, source: Source | None, order: Order, machine: Machine
) -> Iterator[str]:
    asked, destination = lookups.version_id, order.configuration.spec.shared_image_destination
    if asked is None or destination is None:
        return
    if (definition := found.of(lookups.definition, None)) is not None:
        yield from destinations.definition_problems(asked, definition, source, machine)
    yield from destinations.version_problems(asked, found.of(lookups.version, None), overwrite=order.overwrite)
    yield from destinations.region_problems(destination, machine)
    for lookup in lookups.regions:
        yield from found.of(lookup, [])
