"""The authority's token endpoints, as any client may ask them, and what it publishes."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest

from pytest_azchroot.emulator.errors import ArmError
from pytest_azchroot.emulator.http import Request
from pytest_azchroot.emulator.tenant import Application

from .azure import ARM, CLIENT, LOGIN, OTHER_TENANT, SCOPE, SECRET, SYSTEM, TENANT, Azure, claims, post

# -- other grants, and the forms of version 1


@pytest.mark.parametrize(
    ("form", "number", "error"),
    [
        ({"grant_type": ""}, 900144, "invalid_request"),
        ({"client_id": ""}, 900144, "invalid_request"),
        ({"scope": "", "client_secret": SECRET}, 900144, "invalid_request"),
        ({"grant_type": "authorization_code"}, 70003, "unsupported_grant_type"),
        ({"grant_type": "refresh_token", "refresh_token": "0.AX"}, 9002313, "invalid_grant"),
        ({"grant_type": "password", "username": "u", "password": "p"}, 50126, "invalid_grant"),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "c"}, 7000218, "invalid_client"),
        ({}, 7000218, "invalid_client"),
        ({"client_secret": ""}, 7000218, "invalid_client"),
        ({"client_secret": "wrong"}, 7000215, "invalid_client"),
        ({"client_secret": SECRET[:-1]}, 7000215, "invalid_client"),
        ({"client_secret": f"{SECRET}s"}, 7000215, "invalid_client"),
        ({"client_assertion": "x"}, 900144, "invalid_request"),
        ({"client_id": OTHER_TENANT}, 700016, "unauthorized_client"),
    ],
)
def test_refusals(azure: Azure, form: dict[str, str], number: int, error: str) -> None:
    status, found = post(azure, **form)
    assert found["error_codes"] == [number] and found["error"] == error
    assert found["error_description"].startswith(f"AADSTS{number}: ")
    assert status == (401 if error == "invalid_client" else 400)


def test_the_form_of_a_refusal(azure: Azure) -> None:
    body = urlencode({"grant_type": "client_credentials", "client_id": CLIENT, "scope": SCOPE}).encode()
    request = Request(
        "POST", "https", LOGIN, f"/{TENANT}/oauth2/v2.0/token", headers={"client-request-id": "me"}, body=body
    )
    answer = azure.login.answer(request)
    assert isinstance(answer.body, bytes)
    found = json.loads(answer.body)
    assert set(found) == {
        *("error", "error_description", "error_codes", "timestamp", "trace_id", "correlation_id", "error_uri"),
    }
    assert found["correlation_id"] == "me" and found["error_uri"] == f"https://{LOGIN}/error?code=7000218"


@pytest.mark.parametrize(
    ("tenant", "number"),
    [(OTHER_TENANT, 90002), ("fabrikam.example", 90002), ("common", 50059), ("organizations", 50059)],
)
def test_tenants(azure: Azure, tenant: str, number: int) -> None:
    assert post(azure, f"/{tenant}/oauth2/v2.0/token", client_secret=SECRET)[1]["error_codes"] == [number]


def test_version_2_answers_with_numbers(azure: Azure) -> None:
    status, found = post(azure, client_secret=SECRET)
    assert status == 200 and set(found) == {"token_type", "expires_in", "ext_expires_in", "access_token"}
    assert found["expires_in"] == found["ext_expires_in"] == 3599


def test_version_1_as_packer_sends_it(azure: Azure) -> None:
    """autorest adds api-version to the address, and reads texts."""
    status, found = post(azure, f"/{TENANT}/oauth2/token", client_secret=SECRET, resource=f"{ARM}/")
    assert status == 200 and {type(value) for value in found.values()} == {str}
    assert found["resource"] == claims(found["access_token"])["aud"] == f"{ARM}/"
    assert int(found["expires_on"]) - int(found["not_before"]) == int(found["expires_in"]) == 3599


def test_version_1_without_a_resource_is_for_the_graph(azure: Azure) -> None:
    _, found = post(azure, f"/{TENANT}/oauth2/token", client_secret=SECRET)
    with pytest.raises(ArmError) as refused:
        azure.tokens.check(f"Bearer {found['access_token']}", tenant_id=TENANT)
    assert refused.value.code == "InvalidAuthenticationTokenAudience"


def test_a_slash_of_the_audience_is_kept(azure: Azure) -> None:
    """azure-cli asks for `https://management.core.windows.net//.default`."""
    _, found = post(azure, client_secret=SECRET, scope="https://management.core.windows.net//.default")
    assert claims(found["access_token"])["aud"] == "https://management.core.windows.net/"


def test_a_secret_in_the_header(azure: Azure) -> None:
    body = urlencode({"grant_type": "client_credentials", "scope": SCOPE}).encode()
    headers = {
        "authorization": "Basic NTU1NTU1NTUtNTU1NS01NTU1LTU1NTUtNTU1NTU1NTU1NTU1OnMzY3JldH5vZi50aGUtYXBwbGljYXRpb24="
    }
    answer = azure.login.answer(
        Request("POST", "https", LOGIN, f"/{TENANT}/oauth2/v2.0/token", headers=headers, body=body)
    )
    assert answer.status == 200


def test_secrets_do_not_show(azure: Azure) -> None:
    assert SECRET not in repr(Application(CLIENT, CLIENT, [SECRET]))


# -- discovery


def get(azure: Azure, path: str, *query: tuple[str, str], host: str = LOGIN) -> tuple[int, Any]:
    answer = azure.login.answer(Request("GET", "https", host, path, list(query)))
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body or b"null")


def test_endpoints_are_where_the_client_asked(azure: Azure) -> None:
    path = f"/{TENANT}/v2.0/.well-known/openid-configuration"
    for host in (LOGIN, "127.0.0.1:8443"):
        _, found = get(azure, path, host=host)
        assert found["token_endpoint"] == f"https://{host}/{TENANT}/oauth2/v2.0/token"
        assert found["issuer"] == f"https://{LOGIN}/{TENANT}/v2.0"


def test_the_published_key_checks_tokens(azure: Azure) -> None:
    _, configuration = get(azure, f"/{TENANT}/.well-known/openid-configuration")
    _, keys = get(azure, configuration["jwks_uri"].removeprefix(f"https://{LOGIN}"))
    token = azure.tokens.issue(SYSTEM, ARM).value
    key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, key, algorithms=["RS256"], audience=ARM, issuer=configuration["issuer"])["tid"] == TENANT


def test_what_stands_for_any_tenant(azure: Azure) -> None:
    _, found = get(azure, "/common/v2.0/.well-known/openid-configuration")
    assert found["issuer"] == f"https://{LOGIN}/{{tenantid}}/v2.0"
    assert found["token_endpoint"] == f"https://{LOGIN}/common/oauth2/v2.0/token"


def test_instances(azure: Azure) -> None:
    query = ("authorization_endpoint", f"https://login.windows.net/{TENANT}/oauth2/v2.0/authorize")
    status, found = get(azure, "/common/discovery/instance", query, ("api-version", "1.0"))
    assert status == 200 and LOGIN in found["metadata"][0]["aliases"]
    assert (
        found["tenant_discovery_endpoint"]
        == f"https://login.windows.net/{TENANT}/v2.0/.well-known/openid-configuration"
    )


def test_a_discovery_of_no_tenant(azure: Azure) -> None:
    status, found = get(azure, f"/{OTHER_TENANT}/v2.0/.well-known/openid-configuration")
    assert (status, found["error"], found["error_codes"]) == (400, "invalid_tenant", [90002])


@pytest.mark.parametrize("path", ["/", f"/{TENANT}", f"/{TENANT}/nothing"])
def test_what_does_not_exist(azure: Azure, path: str) -> None:
    assert get(azure, path)[0] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", f"/{TENANT}/oauth2/v2.0/token"), ("POST", f"/{TENANT}/v2.0/.well-known/openid-configuration")],
)
def test_methods(azure: Azure, method: str, path: str) -> None:
    assert azure.login.answer(Request(method, "https", LOGIN, path)).status == 405
