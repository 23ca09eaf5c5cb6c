"""What clients of a running emulator are told: environment variables, and a description for scripts. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .isolation import MISLEADING
from .settings import Settings
from .state import Json
from .tenant import Application


@dataclass(frozen=True)
class Surroundings:
    """Where an emulator is, and who can use it."""

    settings: Settings
    url: str
    """Plain HTTP, and a forward proxy."""
    tls_url: str
    ca_file: Path
    applications: Sequence[Application] = ()

    @property
    def proxy(self) -> dict[str, str]:
        """For clients with fixed endpoints, unchanged: azure-cli, packer, and the SDKs as they come.

        In both cases, for some clients read only one: curl, for one, has no HTTP_PROXY in capitals. What else runs on
        this machine is asked directly.
        """
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        trust = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
        directly = dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1")
        return dict.fromkeys(names, self.url) | directly | dict.fromkeys(trust, str(self.ca_file))

    @property
    def identity(self) -> dict[str, str]:
        """For azure-identity: the machine's identity is asked for here."""
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.url}

    @property
    def account(self) -> dict[str, str]:
        """The subscription and tenant, and the first application that has a secret."""
        found = {"AZURE_SUBSCRIPTION_ID": self.settings.subscription, "AZURE_TENANT_ID": self.settings.tenant}
        first = next((each for each in self.applications if each.secrets), None)
        if first is not None:
            found |= {"AZURE_CLIENT_ID": first.client_id, "AZURE_CLIENT_SECRET": first.secrets[0]}
        return found

    @property
    def cli(self) -> dict[str, str]:
        """For azure-cli: a login of its own, beside the user's, and no telemetry."""
        return {
            "AZURE_CONFIG_DIR": str(self.settings.directory.absolute() / "azure-cli"),
            "AZURE_CORE_COLLECT_TELEMETRY": "no",
        }

    @property
    def packer(self) -> dict[str, str]:
        """For packer: it asks nobody whether it is the newest."""
        return {"CHECKPOINT_DISABLE": "1"}

    @property
    def builds(self) -> dict[str, str]:
        """For builds of this project: devices of attached disks are there, and not in ``/dev``; and where no rate
        limits hold nobody need keep them."""
        free = {} if self.settings.throttled else {"AZCHROOT_RATE_LIMITS": "off"}
        return {"AZCHROOT_DEVICES": str(self.settings.device_directory.absolute()), **free}

    @property
    def calls(self) -> Path:
        """The log."""
        return (self.settings.calls or self.settings.directory / "calls.jsonl").absolute()

    @property
    def groups(self) -> dict[str, dict[str, str]]:
        """All variables, under what they are for."""
        return {
            "every client: the emulator as a proxy, and its certificate": self.proxy,
            "the machine's identity, for azure-identity": self.identity,
            "subscription and credentials": self.account,
            "azure-cli: a login beside your own": self.cli,
            "packer": self.packer,
            "pytest-azchroot: where devices appear": self.builds,
        }

    @property
    def environment(self) -> dict[str, str]:
        """All variables."""
        return {name: value for group in self.groups.values() for name, value in group.items()}

    def applied(self, environment: Mapping[str, str]) -> dict[str, str]:
        """An environment in which clients meet the emulator and nothing else of Azure."""
        kept = {
            name: value
            for name, value in environment.items()
            if name not in MISLEADING and not name.startswith(("AZURE_", "ARM_"))
        }
        return kept | self.environment

    def script(self) -> str:
        """Shell commands that bring an environment about, to be sourced."""
        lines = [f"unset {' '.join(name for name in MISLEADING if name not in self.environment)}"]
        for what, group in self.groups.items():
            lines += [f"# {what}", *(f"export {name}={shlex.quote(value)}" for name, value in group.items())]
        return "\n".join(lines) + "\n"

    def description(self) -> Json:
        """The same and more, for programs."""
        settings = self.settings
        return {
            "url": self.url,
            "tlsUrl": self.tls_url,
            "caFile": str(self.ca_file),
            "subscription": settings.subscription,
            "tenant": settings.tenant,
            "location": settings.location,
            "vm": settings.machine_id,
            "vmSize": settings.machine.size,
            "family": settings.family,
            "devices": str(settings.device_directory.absolute()),
            "calls": str(self.calls),
            "images": {image.urn: str(image.path.absolute()) for image in settings.images},
            "environment": self.environment,
        }
