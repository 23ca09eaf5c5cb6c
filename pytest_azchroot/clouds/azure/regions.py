"""Azure's regions: their names, of which each has two (``westeurope``, ``West Europe``), and what they offer."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.refusals import AzureError, explained

if TYPE_CHECKING:
    from pytest_azchroot.clouds.azure.client import Azure

log = logging.getLogger(__name__)

EVERYWHERE = frozenset({"Premium_LRS", "Standard_LRS", "StandardSSD_LRS"})
"""Kinds of disks that every region has. Source: learn.microsoft.com, "Azure managed disk types"."""
_PREMIUM = ("Premium_LRS", "Premium_ZRS")
_FORBIDDEN = 403
_NO_REGION = re.compile("NoRegisteredProviderFound|LocationNotAvailable|InvalidLocation|LocationNotFound")


def plain(region: str) -> str:
    """The form that ids and locations have, from either."""
    return region.lower().replace(" ", "")


def same(one: str, other: str) -> bool:
    """Whether both names are of one region."""
    return plain(one) == plain(other)


def is_known(azure: Azure, subscription_id: str, region: str) -> bool:
    """Whether there is such a region for the subscription. One call, whose answer is small.

    :raises AzureError: Azure could not be asked.
    """
    images = azure.compute(subscription_id).virtual_machine_images
    try:
        with explained(f"looking for the region {region}"):
            images.list_offers(plain(region), "Canonical")
    except AzureError as error:
        if _NO_REGION.search(error.code or ""):
            return False
        if error.status != 404:  # a region without that publisher is one, too
            raise
    return True


def storage_problems(azure: Azure, machine: Machine, storage: str) -> list[str]:
    """Why the machine cannot have a disk of this kind, a sentence each.

    Azure's list of what a region offers is long, and slow to get. It is asked for only where there is doubt: the common
    kinds are everywhere, and the name of a machine's size says whether it takes premium disks.

    :raises AzureError: Azure could not be asked.
    """
    if storage in EVERYWHERE and (storage not in _PREMIUM or takes_premium(machine.size)):
        return []
    skus = azure.compute(machine.subscription_id).resource_skus
    with explained(f"listing what {machine.location} offers"):
        offered = [
            sku
            for sku in skus.list(filter=f"location eq '{machine.location}'")
            if sku.get("name") == storage or str(sku.get("name")).lower() == machine.size.lower()
        ]
    return storage_problems_of(offered, machine, storage)


def takes_premium(size: str) -> bool:
    """Whether the name of a machine's size promises premium disks: an ``s`` among the letters behind the number, or
    ``DS`` and ``GS`` before it. Source: learn.microsoft.com, "Azure virtual machine sizes naming conventions"."""
    parts = re.fullmatch(r"[A-Za-z]+_([A-Z]+)\d+(?:-\d+)?([a-z]*)(?:_.*)?", size)
    return parts is not None and (parts[1] in {"DS", "GS"} or "s" in parts[2])


def storage_problems_of(offered: Sequence[Mapping[str, Any]], machine: Machine, storage: str) -> list[str]:
    """The same of what the region offers: those resource SKUs that have the name of the storage or of the size."""
    return list(_storage_problems(offered, machine, storage))


def _storage_problems(offered: Sequence[Mapping[str, Any]], machine: Machine, storage: str) -> Iterator[str]:
    option = "os_disk_storage_account_type"
    disks = [sku for sku in offered if sku.get("resourceType") == "disks" and _is_offered(sku, machine.location)]
    zones = {zone for sku in disks for zone in _zones(sku)}
    free = {zone for sku in disks for zone in _zones(sku) - _restricted(sku, "Zone", "zones")}
    if not disks:
        yield f"{option} is {storage}, and {machine.location} offers no such disks (Premium_LRS is everywhere)"
    elif machine.zone and zones and machine.zone not in free:
        yield (
            f"{option} is {storage}, and zone {machine.zone} of {machine.location}, where this machine is, offers no "
            "such disks (Premium_LRS is everywhere)"
        )
    for sku in offered:
        if sku.get("resourceType") != "virtualMachines" or storage not in _PREMIUM:
            continue
        capabilities = {str(each.get("name")): str(each.get("value")) for each in sku.get("capabilities") or ()}
        if capabilities.get("PremiumIO", "True").lower() == "false":
            other = storage.replace("Premium", "StandardSSD")
            yield (
                f"{option} is {storage}, and this machine's size {machine.size} takes no premium disks "
                f"(set {option}: {other}, or build on a size that does)"
            )


def _is_offered(sku: Mapping[str, Any], location: str) -> bool:
    return not any(same(place, location) for place in _restricted(sku, "Location", "locations"))


def _zones(sku: Mapping[str, Any]) -> set[str]:
    """The zones of the region that offer it; none where the region has no zones."""
    return {str(zone) for info in sku.get("locationInfo") or () for zone in info.get("zones") or ()}


def _restricted(sku: Mapping[str, Any], kind: str, places: str) -> set[str]:
    """Where the subscription cannot have it."""
    return {
        str(place)
        for restriction in sku.get("restrictions") or ()
        if restriction.get("type") == kind
        for place in (restriction.get("restrictionInfo") or {}).get(places) or restriction.get("values") or ()
    }


@contextmanager
def if_permitted() -> Iterator[None]:
    """For what is good to know, and what an identity that can build need not be allowed to read."""
    try:
        yield
    except AzureError as error:
        if error.status != _FORBIDDEN:
            raise
        log.info("%s, so this is not checked: %s", error.what, error.why)
