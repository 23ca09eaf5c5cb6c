"""Fixtures for tests of one's own against the emulator. In a conftest.py of the root directory::

    pytest_plugins = ["pytest_azchroot.emulator.pytest_plugin"]

It is not loaded otherwise. ``azure_emulator`` is the fixture to ask for; the others are to be overridden.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from azure.identity import ManagedIdentityCredential
from azure.mgmt.compute import ComputeManagementClient

from .assembly import NOBODY_ELSE, Accounts, Assembly, assembled
from .emulator import Emulator, Endpoint
from .faults import FaultPlan, Rule
from .imds import ADDRESS, NO_LIMITS
from .isolation import guarded, misleading, no_way_out
from .settings import PlatformImage, Settings
from .surroundings import Surroundings

Isolation = Literal["namespace", "guard"]
_POLLING = 0.05
"""Seconds. By default Azure's clients ask every 30 s."""


@dataclass(frozen=True)
class AzureEmulator:
    """An emulator that runs, and what a test needs of it."""

    assembly: Assembly
    surroundings: Surroundings

    @property
    def emulator(self) -> Emulator:
        """All of it."""
        return self.assembly.emulator

    @property
    def settings(self) -> Settings:
        """What it was told."""
        return self.emulator.settings

    @property
    def base_url(self) -> str:
        """Over TLS: ``https://127.0.0.1:40002``."""
        return self.surroundings.tls_url

    @property
    def proxy_url(self) -> str:
        """Plain HTTP, and a proxy."""
        return self.surroundings.url

    @property
    def ca_file(self) -> Path:
        """The certificate to trust."""
        return self.surroundings.ca_file

    @property
    def subscription_id(self) -> str:
        """The only one."""
        return self.settings.subscription

    @property
    def vm_id(self) -> str:
        """The virtual machine that this machine plays."""
        return self.settings.machine_id

    @property
    def device_directory(self) -> Path:
        """In place of ``/dev``."""
        return self.settings.device_directory

    @property
    def environment(self) -> dict[str, str]:
        """For a program that the test starts. The test's own process has it already."""
        return self.surroundings.applied(os.environ)

    def credential(self, **options: Any) -> ManagedIdentityCredential:
        """The machine's identity; ``client_id`` for one that is assigned to it."""
        return ManagedIdentityCredential(**options)

    def compute(self, **options: Any) -> ComputeManagementClient:
        """Azure's client, at this address. It polls often."""
        defaults = {
            "base_url": self.base_url,
            "credential_scopes": ["https://management.azure.com/.default"],
            "connection_verify": str(self.ca_file),
            "polling_interval": _POLLING,
        }
        credential = options.pop("credential", None) or self.credential()
        return ComputeManagementClient(credential, self.subscription_id, **{**defaults, **options})

    def disk_file(self, id_: str) -> Path:
        """The raw file with the bytes of a disk, a snapshot, an image or a gallery version."""
        azure = self.emulator.azure
        hidden = azure.resource(id_).hidden
        return azure.store.path(hidden.get("file") or hidden["files"]["os"])

    def fault(self, **rule: Any) -> None:
        """Let something go wrong from now on: a rule of a fault plan, as ``call="PUT disks", nth=1, status=500``.

        :raises SettingsError: there is no such rule.
        """
        self.emulator.hooks.add(FaultPlan([Rule(**rule)]))

    def calls(self) -> list[dict[str, Any]]:
        """All calls so far, as the log has them."""
        return self.emulator.calls.read()


@pytest.fixture
def azure_emulator_images() -> Mapping[str, Path]:
    """Platform images, ``publisher:offer:sku:version`` → disk image file. Override it; there are none."""
    return {}


@pytest.fixture
def azure_emulator_accounts() -> Accounts:
    """Applications and identities. Override it; there is the machine's own identity."""
    return NOBODY_ELSE


@pytest.fixture
def azure_emulator_settings(tmp_path: Path, azure_emulator_images: Mapping[str, Path]) -> Settings:
    """What the emulator is told. Override it for another machine, latencies, limits and the like."""
    images = tuple(PlatformImage(urn, path) for urn, path in azure_emulator_images.items())
    return Settings(tmp_path / "azure", images=images)


@pytest.fixture
def azure_emulator_isolation() -> Isolation:
    """What keeps a test from a real metadata service: ``namespace`` as root, else ``guard``. Override it.

    In the namespace there is loopback alone, and the emulator's metadata service at its own address; servers that were
    started outside of it cannot be reached. The guard holds in the test's process alone: of programs that it starts,
    those go to the emulator that follow the environment.
    """
    return "namespace" if os.geteuid() == 0 else "guard"


@pytest.fixture
def azure_emulator(
    azure_emulator_settings: Settings,
    azure_emulator_accounts: Accounts,
    azure_emulator_isolation: Isolation,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[AzureEmulator]:
    """A running emulator; the environment leads clients in this process, and programs that it starts, to it."""
    closed = azure_emulator_isolation == "namespace"
    around: AbstractContextManager[None] = no_way_out() if closed else nullcontext()
    with around, guarded(outside=closed):
        assembly = assembled(
            azure_emulator_settings,
            accounts=azure_emulator_accounts,
            limits=NO_LIMITS,
            more=[Endpoint(ADDRESS, 80)] if closed else [],
        )
        with assembly.emulator as emulator:
            surroundings = Surroundings(
                emulator.settings,
                url=emulator.url,
                tls_url=f"https://127.0.0.1:{emulator.ports[1]}",
                ca_file=assembly.authority.certificate_file.absolute(),
                applications=azure_emulator_accounts.applications,
            )
            for name in misleading():
                monkeypatch.delenv(name)
            for name, value in surroundings.environment.items():
                monkeypatch.setenv(name, value)
            yield AzureEmulator(assembly, surroundings)
