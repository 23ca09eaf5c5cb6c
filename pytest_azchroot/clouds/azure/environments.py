"""Which Azure: where it logs in, where its resource manager is, and what tokens are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.spec.model import ImageSpec
from pytest_azchroot.spec.rules import AZURE_ENVIRONMENTS


@dataclass(frozen=True)
class Environment:
    """One Azure."""

    name: str
    authority: str
    """``https://login.microsoftonline.com``."""
    resource_manager: str
    """``https://management.azure.com``."""
    audience: str
    """What a token is for; often the resource manager's address."""
    known: bool = True
    """Whether Microsoft's libraries know the authority. If not, they must not ask about it."""

    @property
    def scope(self) -> str:
        """What to ask a token for."""
        return f"{self.audience.rstrip('/')}/.default"


# https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure#guidance-for-developers,
# https://learn.microsoft.com/azure/china/resources-developer-guide; as azure.mgmt.core.tools.get_arm_endpoints has them
PUBLIC = Environment(
    "Public",
    authority="https://login.microsoftonline.com",
    resource_manager="https://management.azure.com",
    audience="https://management.azure.com",
)
US_GOVERNMENT = Environment(
    "USGovernment",
    authority="https://login.microsoftonline.us",
    resource_manager="https://management.usgovcloudapi.net",
    audience="https://management.core.usgovcloudapi.net",
)
CHINA = Environment(
    "China",
    authority="https://login.chinacloudapi.cn",
    resource_manager="https://management.chinacloudapi.cn",
    audience="https://management.chinacloudapi.cn",
)
ENVIRONMENTS = {each.name: each for each in (PUBLIC, US_GOVERNMENT, CHINA)}

ENDPOINTS_VERSION = "2022-09-01"
"""Of ``/metadata/endpoints``; it answers with a list of environments."""


def environment(spec: ImageSpec, machine: Machine | None = None) -> Environment:
    """The Azure to work in: what ``metadata_host`` describes, else ``cloud_environment_name``, else the machine's own,
    else the public one.

    :raises AzchrootError: the host does not describe one, or there is none of that name.
    """
    if spec.metadata_host is not None:
        return described_by(spec.metadata_host)
    if spec.cloud_environment_name is not None:
        return named(spec.cloud_environment_name)
    return PUBLIC if machine is None else named(machine.environment)


def named(name: str) -> Environment:
    """The Azure that Packer or Azure's tools call so, in any case. Pure.

    :raises AzchrootError: there is none.
    """
    for known, aliases in AZURE_ENVIRONMENTS.items():
        if name.lower() in {alias.lower() for alias in aliases}:
            return ENVIRONMENTS[known]
    hint = f"set cloud_environment_name to one of {', '.join(AZURE_ENVIRONMENTS)}, or metadata_host"
    raise AzchrootError(f"{name!r} is no Azure that is known", hint=hint)


def described_by(host: str) -> Environment:
    """The Azure that a resource manager describes.

    :raises AzchrootError: it does not answer, or with something else.
    """
    from pytest_azchroot.clouds.azure.transport import get_json  # noqa: PLC0415 - it brings the SDK's core

    address = f"https://{host}"
    query = {"api-version": ENDPOINTS_VERSION}
    answer = get_json(f"{address}/metadata/endpoints", query, doing=f"asking {host} which Azure it is")
    return parsed(answer, address)


def parsed(answer: Any, address: str) -> Environment:
    """What ``/metadata/endpoints`` says. Pure.

    :param address: of the resource manager that said it; of several environments it is that one's.
    :raises AzchrootError: it is something else.
    """
    found = answer if isinstance(answer, list) else [answer]
    described = [
        each for each in found if isinstance(each, Mapping) and isinstance(each.get("authentication"), Mapping)
    ]
    if not described:
        hint = "metadata_host is the host of a resource manager, like management.azure.com"
        raise AzchrootError(f"{address} does not describe an Azure", hint=hint)
    host = urlsplit(address).netloc
    chosen = next(
        (each for each in described if urlsplit(str(each.get("resourceManager"))).netloc == host), described[0]
    )
    authentication = chosen["authentication"]
    authority = str(authentication.get("loginEndpoint") or PUBLIC.authority).rstrip("/")
    manager = str(chosen.get("resourceManager") or address).rstrip("/")
    audiences = [str(each).rstrip("/") for each in authentication.get("audiences") or ()]
    audience = manager if manager in audiences or not audiences else audiences[0]
    known = authority in {each.authority for each in ENVIRONMENTS.values()}
    return Environment(str(chosen.get("name") or host), authority, manager, audience, known=known)
