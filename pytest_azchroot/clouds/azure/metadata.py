"""Asking the instance metadata service which virtual machine this is.

Source: "Azure Instance Metadata Service" (https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service):
no proxies, no redirects; 429, 410 and 5xx are to be asked again; 5 requests a second.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.pace import retry_after
from pytest_azchroot.errors import UnavailableError

ADDRESS = "http://169.254.169.254"
VERSION = "2021-02-01"
TIMEOUT = 90.0
"""Seconds until a service that only stumbles is given up: after a 410 it may be updating for 70 s (the same source)."""

_ADDRESS_VARIABLE = "AZURE_POD_IDENTITY_AUTHORITY_HOST"
"""Where azure-identity asks, too."""
_ANSWER_WITHIN = 2.0
"""Seconds. It is on the same host, and answers within milliseconds."""
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
_SILENCES = 2
"""How often it may be silent before there is none."""
_HINT = (
    "the azure cloud builds on a virtual machine of Azure; elsewhere, `azchroot emulator` plays one, and "
    "`--azchroot-cloud=local` builds without"
)


def machine(*, address: str | None = None, timeout: float = TIMEOUT) -> Machine:
    """The virtual machine that this process runs on.

    :param address: of the service; by default where azure-identity finds it.
    :param timeout: seconds, for a service that is there and does not answer yet.
    :raises UnavailableError: there is none, or it does not say.
    """
    address = address or os.environ.get(_ADDRESS_VARIABLE) or ADDRESS
    url = f"{address.rstrip('/')}/metadata/instance?api-version={VERSION}"
    return parsed(_asked(url, time.monotonic() + timeout))


def parsed(document: Any) -> Machine:
    """What the service says. Pure.

    :raises UnavailableError: it says something else.
    """
    compute = document.get("compute") if isinstance(document, Mapping) else None
    if not isinstance(compute, Mapping):
        raise UnavailableError("the metadata service does not describe a virtual machine", hint=_HINT)
    needed = ("name", "subscriptionId", "resourceGroupName", "location")
    if missing := [name for name in needed if not compute.get(name)]:
        why = f"it does not say {', '.join(missing)}"
        raise UnavailableError("the metadata service does not describe a virtual machine", why=why, hint=_HINT)
    return Machine(
        name=compute["name"],
        subscription_id=compute["subscriptionId"],
        resource_group=compute["resourceGroupName"],
        location=compute["location"],
        resource_id=compute.get("resourceId") or _resource_id(compute),
        zone=compute.get("zone") or None,
        size=compute.get("vmSize") or "",
        vm_id=compute.get("vmId") or "",
        environment=compute.get("azEnvironment") or "AzurePublicCloud",
        tags={each["name"]: each["value"] for each in compute.get("tagsList") or ()},
    )


def _resource_id(compute: Mapping[str, Any]) -> str:
    """The id of the machine; in a uniform scale set that of the instance, whose name ends in its number: ``set_3``."""
    group = f"/subscriptions/{compute['subscriptionId']}/resourceGroups/{compute['resourceGroupName']}"
    provider = f"{group}/providers/Microsoft.Compute"
    scale_set, _, instance = compute["name"].rpartition("_")
    if scale_set and scale_set == compute.get("vmScaleSetName") and instance.isdecimal():
        return f"{provider}/virtualMachineScaleSets/{scale_set}/virtualMachines/{instance}"
    return f"{provider}/virtualMachines/{compute['name']}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the answer stays what it is."""


def _asked(url: str, deadline: float) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
    request = urllib.request.Request(url, headers={"Metadata": "true"})
    silences = 0
    attempt = 0
    while True:
        wait = _PAUSES[min(attempt, len(_PAUSES) - 1)]
        attempt += 1
        try:
            with opener.open(request, timeout=_ANSWER_WITHIN) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            why = f"it answers {error.code}: {error.read(500).decode(errors='replace').strip()}"
            if error.code not in {410, 429} and error.code < 500:
                raise UnavailableError("the metadata service refuses to answer", why=why, hint=_HINT) from error
            wait = max(wait, retry_after(dict(error.headers)) or 0.0)
        except ValueError as error:
            raise UnavailableError("the metadata service answers with no JSON", why=str(error), hint=_HINT) from error
        except (http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            why = str(reason)
            silences += not isinstance(reason, (ConnectionResetError, http.client.HTTPException))
            if isinstance(reason, ConnectionRefusedError) or silences >= _SILENCES:
                what = f"no metadata service answers at {url.partition('/metadata')[0]}: this is no Azure VM"
                raise UnavailableError(what, why=why, hint=_HINT) from error
        if time.monotonic() + wait > deadline:
            raise UnavailableError("the metadata service does not answer in time", why=why, hint=_HINT)
        time.sleep(wait)
