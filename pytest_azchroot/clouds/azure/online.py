"""``azchroot validate --online``: what builds would find out before they begin, without beginning them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_azchroot.clouds import Order
from pytest_azchroot.clouds.azure import credentials, destinations, metadata, preflight
from pytest_azchroot.clouds.azure.broker import Broker
from pytest_azchroot.clouds.azure.client import Azure
from pytest_azchroot.clouds.azure.environments import environment
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.spec import ConfigError, Problem

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential


def problems(orders: Sequence[Order]) -> list[list[Problem]]:
    """What would keep each of these images from being built on this machine: a list for each.

    What one of them publishes need not be there as another's source. Makes nothing in Azure.

    :raises UnavailableError: this is no virtual machine of Azure's.
    """
    machine = metadata.machine()
    known: dict[object, TokenCredential] = {}
    found: list[list[Problem]] = []
    wanted: list[Order | None] = []
    for order in orders:
        try:
            wanted.append(replace(order, configuration=order.configuration.with_vm(machine)))
            found.append([])
        except ConfigError as error:
            wanted.append(None)
            found.append([*error.problems])
    for place, one in enumerate(wanted):
        if one is not None:
            others = [each.configuration.spec for each in wanted if each is not None and each is not one]
            coming = frozenset(id for spec in others for id in destinations.artifacts(spec, machine))
            said = _problems(replace(one, coming=coming), machine, known)
            found[place] += [Problem(one.configuration.path, None, "", sentence) for sentence in said]
    return found


def _problems(order: Order, machine: Machine, known: dict[object, TokenCredential]) -> list[str]:
    spec = order.configuration.spec
    try:
        where = environment(spec, machine)
        key = tuple(getattr(spec, name) for name in credentials.OPTIONS)
        if key not in known:
            known[key] = credentials.credential(spec, machine, where)
        azure = Azure(known[key], environment=where)
    except AzchrootError as error:
        return [error.sentence]
    try:
        return preflight.problems(azure, order, machine, room=lambda: Broker(azure, machine).room())
    finally:
        azure.close()
