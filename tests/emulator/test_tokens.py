"""Tokens: what Resource Manager makes of them, and how machines get theirs with the real azure-identity."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from azure.identity import (
    ChainedTokenCredential,
    CredentialUnavailableError,
    DefaultAzureCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
)

from pytest_azchroot.emulator.errors import ArmError
from pytest_azchroot.emulator.http import Request, Response
from pytest_azchroot.emulator.imds import ADDRESS, Limits
from pytest_azchroot.emulator.tokens import ARM_AUDIENCES, Principal, Tokens

from .azure import (
    ARM,
    CLIENT,
    OTHER_TENANT,
    OTHER_USER,
    SCOPE,
    SYSTEM,
    TENANT,
    USER,
    USER_ID,
    VM_ID,
    Azure,
    claims,
    rsa_key,
)
from .serving import Served, serving

# -- what Resource Manager makes of a token


def tokens_at(now: float) -> Tokens:
    return Tokens(rsa_key("tokens"), clock=lambda: now)


def reason(tokens: Tokens, authorization: str | None) -> ArmError:
    with pytest.raises(ArmError) as refused:
        tokens.check(authorization, tenant_id=TENANT)
    assert refused.value.status == 401
    assert f'authorization_uri="https://login.windows.net/{TENANT}"' in refused.value.headers["WWW-Authenticate"]
    return refused.value


@pytest.mark.parametrize("audience", ARM_AUDIENCES)
def test_a_good_token_says_who_sent_it(audience: str) -> None:
    tokens = tokens_at(time.time())
    value = tokens.issue(SYSTEM, audience).value
    assert tokens.check(f"Bearer {value}", tenant_id=TENANT) == SYSTEM
    assert tokens.check(f"bearer {value}", tenant_id=TENANT) == SYSTEM


def test_no_token() -> None:
    error = reason(tokens_at(0), None)
    assert error.code == "AuthenticationFailed"
    assert error.message == "Authentication failed. The 'Authorization' header is missing."


@pytest.mark.parametrize("authorization", ["Bearer", "Bearer ", "Basic YTpi", "eyJ0eXAi"])
def test_a_header_of_another_form(authorization: str) -> None:
    assert reason(tokens_at(0), authorization).code == "AuthenticationFailedInvalidHeader"


def forged(**header: Any) -> str:
    now = int(time.time())
    body = {"aud": ARM, "iss": "x", "exp": now + 60, "tid": TENANT, "oid": "o", "appid": "a"}
    return jwt.encode(body, rsa_key("somebody"), algorithm="RS256", headers=header)


def unsigned() -> str:
    return jwt.encode(claims(tokens_at(time.time()).issue(SYSTEM, ARM).value), "", algorithm="none")


@pytest.mark.parametrize(
    "value",
    ["nonsense", "a.b.c", forged(), forged(kid=tokens_at(0).key_id), unsigned()],
    ids=["nonsense", "parts", "forged", "forged-kid", "unsigned"],
)
def test_a_token_that_is_none_of_ours(value: str) -> None:
    error = reason(tokens_at(time.time()), f"Bearer {value}")
    assert (error.code, error.message) == ("InvalidAuthenticationToken", "The access token is invalid.")


def test_a_changed_token() -> None:
    tokens = tokens_at(time.time())
    head, _, signature = tokens.issue(SYSTEM, ARM).value.split(".")
    _, other, _ = tokens.issue(USER, ARM).value.split(".")
    assert reason(tokens, f"Bearer {head}.{other}.{signature}").code == "InvalidAuthenticationToken"


def test_an_expired_token() -> None:
    old = tokens_at(1684071906).issue(SYSTEM, ARM, lifetime=300).value  # 2023-05-14 13:45:06
    error = reason(tokens_at(1684072506), f"Bearer {old}")
    assert error.code == "ExpiredAuthenticationToken"
    assert error.message == (
        "The access token expiry UTC time '5/14/2023 1:50:06 PM' is earlier than current UTC time "
        "'5/14/2023 1:55:06 PM'."
    )


def test_a_token_for_something_else() -> None:
    tokens = tokens_at(time.time())
    error = reason(tokens, f"Bearer {tokens.issue(SYSTEM, 'https://datalake.azure.net/').value}")
    assert error.code == "InvalidAuthenticationTokenAudience"
    assert error.message == (
        "The access token has been obtained for wrong audience or resource 'https://datalake.azure.net/'. It should "
        "exactly match with one of the allowed audiences 'https://management.core.windows.net/',"
        "'https://management.core.windows.net','https://management.azure.com/','https://management.azure.com'."
    )


def test_a_token_of_another_tenant() -> None:
    tokens = tokens_at(time.time())
    stranger = Principal(OTHER_TENANT, CLIENT, CLIENT)
    error = reason(tokens, f"Bearer {tokens.issue(stranger, ARM).value}")
    assert error.code == "InvalidAuthenticationTokenTenant"
    assert error.message.startswith(
        f"The access token is from the wrong issuer 'https://sts.windows.net/{OTHER_TENANT}/'. It must match the tenant "
        f"'https://sts.windows.net/{TENANT}/' associated with this subscription."
    )


def test_tokens_outlive_the_process(tmp_path: Path) -> None:
    value = Tokens.kept(tmp_path).issue(SYSTEM, ARM).value
    assert Tokens.kept(tmp_path).check(f"Bearer {value}", tenant_id=TENANT) == SYSTEM
    assert (tmp_path / "tokens-key.pem").stat().st_mode & 0o777 == 0o600


# -- managed identities, by the real library


@pytest.fixture
def imds(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", served.url)
    return served


def test_the_system_assigned_identity(imds: Served) -> None:
    token = ManagedIdentityCredential().get_token(SCOPE)
    assert claims(token.token)["xms_mirid"] == VM_ID and token.expires_on > time.time() + 86000


@pytest.mark.parametrize(
    "options",
    [
        {"client_id": USER.client_id},
        {"identity_config": {"object_id": USER.object_id}},
        {"identity_config": {"resource_id": USER_ID}},
    ],
)
def test_user_assigned_identities(imds: Served, options: dict[str, Any]) -> None:
    token = ManagedIdentityCredential(**options).get_token(SCOPE)
    assert claims(token.token)["appid"] == USER.client_id


def test_an_identity_that_is_not_assigned(imds: Served) -> None:
    with pytest.raises(CredentialUnavailableError, match="Identity not found"):
        ManagedIdentityCredential(client_id=OTHER_USER.client_id).get_token(SCOPE)


def test_the_default_chain_finds_the_identity(imds: Served) -> None:
    credential = DefaultAzureCredential(exclude_cli_credential=True, exclude_powershell_credential=True)
    assert claims(credential.get_token(SCOPE).token)["oid"] == SYSTEM.object_id


def test_the_default_chain_that_is_told(imds: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.setenv("AZURE_CLIENT_ID", USER.client_id)
    assert claims(DefaultAzureCredential().get_token(SCOPE).token)["oid"] == USER.object_id


@pytest.mark.root
def test_a_credential_that_is_told_nothing(azure: Azure) -> None:
    """Its probe, which is without the header, is answered, too."""
    with serving(azure.answer, azure.authority, address=(ADDRESS, 80)) as served:
        chain = ChainedTokenCredential(EnvironmentCredential(), ManagedIdentityCredential())
        assert claims(chain.get_token(SCOPE).token)["oid"] == SYSTEM.object_id
    assert served.requests[-1].header("metadata") == "true"


def test_the_library_waits_when_there_were_too_many(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 is one of those that it tries again, without a pause the first time."""
    busy = Azure(azure.directory, limits=Limits(identity_per_second=0))
    answers = [busy.answer, azure.answer]

    def answer(request: Request) -> Response:
        return answers.pop(0)(request)

    with serving(answer, azure.authority) as served:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", served.url)
        assert ManagedIdentityCredential().get_token(SCOPE).token
    assert len(served.requests) == 2
