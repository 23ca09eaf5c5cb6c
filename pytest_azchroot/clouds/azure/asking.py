"""What is asked of Azure about the virtual machine and its data disks: one method, one request.

None of them is repeated by the SDK: each costs a token of the machine's budget (:mod:`.buckets`), and what follows a
refusal is decided by who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.rest import HttpRequest

from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.queue import Failure
from pytest_azchroot.clouds.azure.refusals import CredentialError, explained
from pytest_azchroot.clouds.azure.retries import ASK_ONCE
from pytest_azchroot.errors import UnavailableError
from pytest_azchroot.spec.azure_ids import parse_resource_id

if TYPE_CHECKING:
    from pytest_azchroot.clouds.azure.client import Azure
    from pytest_azchroot.clouds.azure.refusals import AzureError

Json = dict[str, Any]
_FORBIDDEN = 403
_ONCE: Json = {ASK_ONCE: True, "read_timeout": 60.0}
"""Nor may one keep the machine's lock for long."""


@dataclass(frozen=True)
class Model:
    """A virtual machine as GET answers it."""

    body: Json
    etag: str | None

    @property
    def size(self) -> str:
        """``Standard_D4s_v5``."""
        return str(self.body["properties"].get("hardwareProfile", {}).get("vmSize") or "")

    @property
    def data_disks(self) -> list[Json]:
        """The entries, with all that is in them."""
        return list(self.body["properties"].get("storageProfile", {}).get("dataDisks") or [])


@dataclass(frozen=True)
class Progress:
    """What an operation says of itself."""

    ended: bool
    failure: Failure | None = None


class Asking:
    """Azure, asked about one virtual machine.

    :raises UnavailableError: it is none that disks can be attached to.
    """

    def __init__(self, azure: Azure, machine: Machine) -> None:
        self._azure = azure
        self._machine = machine
        found = parse_resource_id(machine.resource_id)
        # The number of an instance would be taken for the name of a machine, which may be another one.
        if found.kind.lower() != "microsoft.compute/virtualmachines":
            raise UnavailableError(
                f"disks cannot be attached to {machine.name}",
                why="it is an instance of a scale set with uniform orchestration",
                hint="build on a virtual machine of its own, or of a scale set with flexible orchestration",
            )
        self._where = (found.resource_group, found.names[-1])
        self._subscription = found.subscription_id

    @property
    def _compute(self) -> Any:
        """The SDK's client. Its types know models, and no plain dictionaries, which are what is sent here."""
        return self._azure.compute(self._subscription)

    def read(self) -> Model:
        """GET of the machine.

        :raises AzureError: it was refused.
        """
        with explained(f"reading the virtual machine {self._machine.name}"):
            found = self._compute.virtual_machines.get(*self._where, **_ONCE)
            body: Json = found.as_dict()
        return Model(body, body.get("etag"))

    def change(self, *, attach: Iterable[Json], detach: Iterable[Json]) -> str | None:
        """POST of ``attachDetachDataDisks``; returns where to ask for the operation.

        :raises AzureError: it was refused, or nobody knows.
        """
        lists = {"dataDisksToAttach": list(attach), "dataDisksToDetach": list(detach)}
        body = {name: found for name, found in lists.items() if found}
        heard = _Heard()
        with explained(f"changing the data disks of {self._machine.name}"):
            self._compute.virtual_machines.begin_attach_detach_data_disks(
                *self._where,
                body,
                polling=False,
                raw_response_hook=heard,
                **_ONCE,
            )
        return heard.operation

    def replace(self, data_disks: list[Json], *, etag: str | None) -> str | None:
        """PATCH of the machine's list of data disks, if it is still as it was read; where to ask for the operation.

        :raises AzureError: it was refused, or nobody knows.
        """
        heard = _Heard()
        with explained(f"changing the data disks of {self._machine.name}"):
            self._compute.virtual_machines.begin_update(
                *self._where,
                {"properties": {"storageProfile": {"dataDisks": data_disks}}},
                headers={"If-Match": etag} if etag else {},
                polling=False,
                raw_response_hook=heard,
                **_ONCE,
            )
        return heard.operation

    def operation(self, url: str) -> Progress:
        """GET of an operation.

        :raises AzureError: nobody knows how it is.
        """
        with explained("asking how an operation goes"):
            response = self._compute.send_request(HttpRequest("GET", url), **_ONCE)
            if response.status_code >= 400:
                raise HttpResponseError(response=response)
            body = response.json() if response.content else {}
        return progress(response.status_code, body if isinstance(body, dict) else {})

    def disk(self, disk_id: str) -> Mapping[str, Any] | None:
        """GET of a disk; None where there is none.

        :raises AzureError: it was refused.
        """
        found = parse_resource_id(disk_id)
        with explained(f"reading the disk {found.names[-1]}"):
            try:
                disk = self._azure.compute(found.subscription_id).disks.get(
                    found.resource_group, found.names[-1], **_ONCE
                )
            except ResourceNotFoundError:
                return None
            return dict(disk.as_dict())

    def limit(self, size: str) -> int | None:
        """How many data disks a size of machines allows; None where Azure does not say, or this identity may not ask
        (it is the subscription that is asked). Slow: Azure has long lists.

        :raises AzureError: nobody answers.
        """
        with explained(f"asking how many data disks {size} allows"):
            return self._limit(size)

    def _limit(self, size: str) -> int | None:
        try:
            for sku in self._compute.resource_skus.list(filter=f"location eq '{self._machine.location}'"):
                found = sku.as_dict()
                if found.get("resourceType") == "virtualMachines" and found.get("name", "").lower() == size.lower():
                    named = {each.get("name"): each.get("value") for each in found.get("capabilities") or []}
                    return int(named["MaxDataDiskCount"]) if "MaxDataDiskCount" in named else None
        except HttpResponseError as error:
            if error.status_code != _FORBIDDEN:
                raise
        return None


class _Heard:
    """Notes what the headers of an answer say."""

    def __init__(self) -> None:
        self.operation: str | None = None

    def __call__(self, response: Any) -> None:
        headers = response.http_response.headers
        self.operation = headers.get("Azure-AsyncOperation") or headers.get("Location")


def progress(status: int, body: Mapping[str, Any]) -> Progress:
    """What the answer to a poll says: of ``Azure-AsyncOperation``, or of ``Location``, which says it by its status.
    Source: the Resource Manager's rules for asynchronous operations (facts of the resource provider contract).
    """
    state = str(body.get("status") or ("InProgress" if status == 202 else "Succeeded"))
    if state.lower() in {"failed", "canceled", "cancelled"}:
        error = body.get("error") or {}
        code, message = error.get("code") or state, error.get("message") or "Azure says no more"
        hint = "it is Azure that has failed: run again; the machine's activity log may say more"
        return Progress(True, Failure("the operation failed", why=f"{code}: {message}", hint=hint, code=code))
    return Progress(state.lower() == "succeeded")


def failure(error: AzureError) -> Failure:
    """An error, to be written down."""
    status = 401 if isinstance(error, CredentialError) else error.status
    return Failure(error.what, error.why, error.hint, status, error.code)
