"""Who asks: the credential that image.yaml names, or the one that this machine has."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_azchroot.clouds.azure.calls import Calls
from pytest_azchroot.clouds.azure.environments import PUBLIC, Environment
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.refusals import AzureError, CredentialError, clean, explained
from pytest_azchroot.spec.model import ImageSpec

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, AccessTokenInfo, TokenCredential, TokenRequestOptions

OPTIONS = (
    *("use_azure_cli_auth", "client_id", "client_secret", "client_cert_path", "client_cert_password", "client_jwt"),
    *("oidc_request_token", "oidc_request_url", "tenant_id", "subscription_id"),
    *("cloud_environment_name", "metadata_host"),
)
"""What a credential depends on: images in which these are equal can share one."""

_APPLICATION = ("client_secret", "client_cert_path", "oidc_request_token", "client_jwt")
"""Each says that an application asks; in Packer's order."""
_SUBSCRIPTIONS_VERSION = "2022-12-01"
_AUDIENCE = "api://AzureADTokenExchange"
"""Whom a federated token is for. Source: https://learn.microsoft.com/entra/workload-id/workload-identity-federation"""

_TELLING = ("EnvironmentCredential", "ManagedIdentityCredential", "AzureCliCredential")
"""Of azure-identity's default chain: those that people set up on a machine that builds."""

# It warns of every credential that gives no token, over many lines; the error tells it once.
logging.getLogger("azure.identity").addHandler(logging.NullHandler())


def credential(
    spec: ImageSpec, machine: Machine | None, environment: Environment, *, calls: Calls | None = None
) -> Steady:
    """The credential that the options name; without any, that of azure-identity's default chain: the environment's,
    the machine's, the Azure CLI's. Threads may share it; its errors are :exc:`CredentialError`.

    Nothing is asked yet, but for the tenant of an application that ``tenant_id`` does not say.

    :param calls: where requests for tokens are noted.
    :raises AzureError: the options contradict each other, or what they name cannot be read.
    """
    from pytest_azchroot.clouds.azure.transport import Transport  # noqa: PLC0415 - it brings the SDK's core

    common: dict[str, Any] = {"transport": Transport(Calls() if calls is None else calls)}
    kind = _kind(spec)
    if kind == "use_azure_cli_auth":
        return _azure_cli(spec)
    if kind in _APPLICATION:
        common |= {"authority": environment.authority, "disable_instance_discovery": not environment.known}
        return _application(kind, spec, machine, environment, common)
    if kind == "client_id":
        return _assigned(str(spec.client_id), common)
    if environment != PUBLIC:
        common |= {"authority": environment.authority}
    return _default(common)


def _kind(spec: ImageSpec) -> str | None:
    """The option that decides. Pure.

    :raises AzureError: there are several.
    """
    given = [name for name in _APPLICATION if getattr(spec, name) is not None]
    if spec.use_azure_cli_auth:
        given.insert(0, "use_azure_cli_auth")
    if len(given) > 1:
        raise AzureError(f"{' and '.join(given)} contradict each other", hint="one of them says who asks Azure")
    if given:
        return given[0]
    return None if spec.client_id is None else "client_id"


def _azure_cli(spec: ImageSpec) -> Steady:
    from azure.identity import AzureCliCredential  # noqa: PLC0415 - it is slow to import

    hint = "run `az login`, as the user who builds"
    return Steady(AzureCliCredential(tenant_id=spec.tenant_id or ""), who="the Azure CLI's login", hint=hint)


def _assigned(client_id: str, common: dict[str, Any]) -> Steady:
    from azure.identity import ManagedIdentityCredential  # noqa: PLC0415 - it is slow to import

    return Steady(
        ManagedIdentityCredential(client_id=client_id, **common),
        who=f"the managed identity {client_id} (client_id)",
        hint="is that identity assigned to this virtual machine? An application needs a client_secret or the like",
    )


def _default(common: dict[str, Any]) -> Steady:
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - it is slow to import

    return Steady(
        DefaultAzureCredential(**common),
        who="this machine or its environment",
        hint="give the virtual machine a managed identity, or set client_id and client_secret, or use_azure_cli_auth",
    )


def _application(
    kind: str, spec: ImageSpec, machine: Machine | None, environment: Environment, common: dict[str, Any]
) -> Steady:
    from azure.identity import (  # noqa: PLC0415 - it is slow to import
        CertificateCredential,
        ClientAssertionCredential,
        ClientSecretCredential,
    )

    if spec.client_id is None:
        raise AzureError(f"client_id is required with {kind}", hint="it is the id of the application")
    tenant = spec.tenant_id or _tenant(spec, machine, environment)
    client = spec.client_id
    found: TokenCredential
    if kind == "client_secret":
        found = ClientSecretCredential(tenant, client, str(spec.client_secret), **common)
    elif kind == "client_cert_path":
        data, password = _certificate(str(spec.client_cert_path)), spec.client_cert_password
        try:
            found = CertificateCredential(tenant, client, certificate_data=data, password=password, **common)
        except (ValueError, TypeError) as error:
            hint = "it needs a certificate and its private key, PEM or PKCS#12; is client_cert_password right?"
            raise AzureError(f"{spec.client_cert_path} cannot be used", why=str(error), hint=hint) from error
    else:
        found = ClientAssertionCredential(tenant, client, _assertion(spec), **common)
    return Steady(
        found,
        who=f"the application {client} of tenant {tenant} ({kind})",
        hint=f"check client_id, tenant_id and {kind}",
    )


def _assertion(spec: ImageSpec) -> Callable[[], str]:
    if spec.oidc_request_token is None:
        return lambda: str(spec.client_jwt)
    url, token = spec.oidc_request_url, spec.oidc_request_token
    if url is None:
        raise AzureError("oidc_request_url is required with oidc_request_token")
    return lambda: _github_token(url, token)


def _github_token(url: str, token: str) -> str:
    """A token of the workflow that runs. Source: https://docs.github.com/actions/security-for-github-actions
    ("OpenID Connect reference", "Updating your workflows for OIDC").

    :raises AzureError: GitHub gives none.
    """
    from pytest_azchroot.clouds.azure.transport import get_json  # noqa: PLC0415 - it brings the SDK's core

    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    found = get_json(url, {"audience": _AUDIENCE}, doing="asking oidc_request_url for a token", headers=headers)
    if not isinstance(found, dict) or not isinstance(found.get("value"), str):
        hint = "it is ACTIONS_ID_TOKEN_REQUEST_URL; the workflow needs `permissions: {id-token: write}`"
        raise AzureError("oidc_request_url gives no token", hint=hint)
    return str(found["value"])


def _certificate(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AzureError(f"client_cert_path {path} cannot be read", why=error.strerror) from error


def _tenant(spec: ImageSpec, machine: Machine | None, environment: Environment) -> str:
    """The tenant of the subscription: Resource Manager says it to everybody.

    Source: https://learn.microsoft.com/azure/azure-resource-manager/management/find-tenant-id-domain is for people;
    the header is what Packer and the Azure CLI read.
    """
    from pytest_azchroot.clouds.azure.transport import ask  # noqa: PLC0415 - it brings the SDK's core

    subscription = spec.subscription_id or (machine and machine.subscription_id)
    if subscription is None:
        raise AzureError("tenant_id is required without subscription_id", hint="it is the tenant of the application")
    doing = f"finding the tenant of subscription {subscription}"
    with explained(doing):
        url = f"{environment.resource_manager}/subscriptions/{subscription}"
        answer = ask(url, {"api-version": _SUBSCRIPTIONS_VERSION})
    challenge = answer.headers.get("WWW-Authenticate") or ""
    found = re.search(r'authorization_uri="https?://[^/"]+/([^/"]+)', challenge)
    if found is None:
        why, hint = f"the answer ({answer.status_code}) does not say it", "set tenant_id"
        raise AzureError(f"{doing} failed", why=why, hint=hint, status=answer.status_code)
    return found[1]


class Steady:
    """A credential that many threads may ask at once: one of them fetches the token. Its errors say what to do.

    :param who: whose token it is, for people.
    """

    def __init__(self, credential: Any, *, who: str, hint: str) -> None:
        self._credential = credential
        self._who = who
        self._hint = hint
        self._lock = threading.Lock()

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Of the SDK's protocol."""
        with self._asking():
            token: AccessToken = self._credential.get_token(*scopes, **options)
        return token

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Of the SDK's newer protocol."""
        with self._asking():
            token: AccessTokenInfo = self._credential.get_token_info(*scopes, options=options)
        return token

    def close(self) -> None:
        """Let go of its connections."""
        if hasattr(self._credential, "close"):
            self._credential.close()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from azure.core.exceptions import AzureError as SdkError  # noqa: PLC0415 - it brings the SDK's core

        with self._lock:
            try:
                yield
            except SdkError as error:
                why = _abridged(clean(str(error.message)).strip())
                raise CredentialError(f"Azure gives no token to {self._who}", why=why, hint=self._hint) from error


def _abridged(message: str) -> str:
    """Of what a chain of credentials says, those that may be meant; what one credential says, as it is. Pure."""
    names, told = "|".join(_TELLING), []
    for line in message.splitlines():
        if found := re.fullmatch(rf"\s+(?:{names}): (.+)", line):
            told.append(found[1].rstrip("."))
    return "; ".join(told) or message
