"""Applications get their tokens with the real azure-identity, through the proxy: it knows nothing of the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    AzureAuthorityHosts,
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    DefaultAzureCredential,
    DeviceCodeCredential,
)

from .azure import (
    ARM,
    CLIENT,
    KEY,
    LOGIN,
    OTHER_TENANT,
    REGISTERED,
    SCOPE,
    SECRET,
    TENANT,
    Azure,
    certificate,
    claims,
    federated,
    pem,
    rsa_key,
)
from .serving import Served, serving


def test_a_client_secret(proxied: Served) -> None:
    token = ClientSecretCredential(TENANT, CLIENT, SECRET).get_token(SCOPE)
    found = claims(token.token)
    assert found["appid"] == CLIENT and found["tid"] == TENANT and found["aud"] == ARM and "xms_mirid" not in found
    assert proxied.asked == [
        f"GET {LOGIN}/{TENANT}/v2.0/.well-known/openid-configuration",
        f"POST {LOGIN}/{TENANT}/oauth2/v2.0/token",
    ]


def test_a_tenant_by_its_domain(proxied: Served) -> None:
    assert claims(ClientSecretCredential("contoso.example", CLIENT, SECRET).get_token(SCOPE).token)["tid"] == TENANT


def test_the_environments_credential(proxied: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TENANT_ID", TENANT), ("CLIENT_ID", CLIENT), ("CLIENT_SECRET", SECRET)):
        monkeypatch.setenv(f"AZURE_{name}", value)
    assert claims(DefaultAzureCredential().get_token(SCOPE).token)["appid"] == CLIENT


def test_resource_manager_takes_it(proxied: Served, azure: Azure) -> None:
    token = ClientSecretCredential(TENANT, CLIENT, SECRET).get_token(SCOPE).token
    assert azure.tokens.check(f"Bearer {token}", tenant_id=TENANT).client_id == CLIENT


@pytest.mark.parametrize("chain", [False, True])
def test_a_certificate(proxied: Served, chain: bool) -> None:
    credential = CertificateCredential(
        TENANT, CLIENT, certificate_data=pem(KEY, REGISTERED), send_certificate_chain=chain
    )
    assert claims(credential.get_token(SCOPE).token)["appid"] == CLIENT


def test_a_federated_assertion(proxied: Served) -> None:
    credential = ClientAssertionCredential(TENANT, CLIENT, federated)
    assert claims(credential.get_token(SCOPE).token)["appid"] == CLIENT


def test_workload_identity(proxied: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(federated())
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    assert claims(DefaultAzureCredential().get_token(SCOPE).token)["appid"] == CLIENT


@pytest.mark.parametrize("host", ["login.windows.net", "login.microsoft.com", AzureAuthorityHosts.AZURE_PUBLIC_CLOUD])
def test_the_authoritys_other_names(proxied: Served, host: str) -> None:
    assert ClientSecretCredential(TENANT, CLIENT, SECRET, authority=host).get_token(SCOPE).token


def test_an_authority_that_is_ours_alone(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azure.authority.certificate_file))
    with serving(azure.answer, azure.authority, tls=True) as ours:
        credential = ClientSecretCredential(TENANT, CLIENT, SECRET, authority=ours.url, disable_instance_discovery=True)
        assert credential.get_token(SCOPE).token
    assert ours.asked[-1] == f"POST {ours.authority}/{TENANT}/oauth2/v2.0/token"


def test_an_authority_that_the_library_asks_about(proxied: Served) -> None:
    """It does not know the name, and asks the public cloud's authority, which does. The port would be lost."""
    assert ClientSecretCredential(TENANT, CLIENT, SECRET, authority="https://localhost").get_token(SCOPE).token
    assert proxied.asked == [
        f"GET {LOGIN}/common/discovery/instance",
        f"GET localhost/{TENANT}/v2.0/.well-known/openid-configuration",
        f"POST localhost/{TENANT}/oauth2/v2.0/token",
    ]


def test_an_authority_that_nobody_knows(proxied: Served) -> None:
    said = failure(ClientSecretCredential(TENANT, CLIENT, SECRET, authority="https://login.example"))
    assert "https://login.example, is not well-known" in said


def failure(credential: Any, scope: str = SCOPE) -> str:
    with pytest.raises(ClientAuthenticationError) as error:
        credential.get_token(scope)
    return str(error.value)


def test_a_wrong_secret(proxied: Served) -> None:
    said = failure(ClientSecretCredential(TENANT, CLIENT, "wr0ng"))
    assert (
        "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret "
        f"value, not the client secret ID, for a secret added to app '{CLIENT}'."
    ) in said and "wr0ng" not in said


def test_an_unknown_application(proxied: Served) -> None:
    said = failure(ClientSecretCredential(TENANT, OTHER_TENANT, SECRET))
    assert f"AADSTS700016: Application with identifier '{OTHER_TENANT}' was not found in the directory" in said


def test_an_unknown_tenant(proxied: Served) -> None:
    """The library keeps the reason to itself."""
    said = failure(ClientSecretCredential(OTHER_TENANT, CLIENT, SECRET))
    assert f"Unable to get authority configuration for https://{LOGIN}/{OTHER_TENANT}" in said


def test_a_scope_without_its_end(proxied: Served) -> None:
    said = failure(ClientSecretCredential(TENANT, CLIENT, SECRET), f"{ARM}/user_impersonation")
    assert f"AADSTS1002012: The provided value for scope {ARM}/user_impersonation is not valid." in said


def test_a_resource_that_no_tenant_has(proxied: Served) -> None:
    said = failure(ClientSecretCredential(TENANT, CLIENT, SECRET), "https://resource.example/.default")
    assert "AADSTS500011: The resource principal named https://resource.example was not found" in said


def test_an_unregistered_certificate(proxied: Served) -> None:
    other = certificate(rsa_key("somebody"))
    said = failure(CertificateCredential(TENANT, CLIENT, certificate_data=pem(rsa_key("somebody"), other)))
    assert "AADSTS700027: The certificate with identifier used to sign the client assertion is not registered" in said


def test_devices_have_no_users(proxied: Served) -> None:
    said = failure(DeviceCodeCredential(CLIENT, tenant_id=TENANT))
    assert "AADSTS7000218" in said
