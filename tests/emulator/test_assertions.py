"""Client assertions are checked: signature, key, audience, time."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pytest_azchroot.emulator import assertions

from .azure import (
    ARM,
    CLIENT,
    FEDERATED,
    KEY,
    LOGIN,
    OTHER_TENANT,
    REGISTERED,
    TENANT,
    Azure,
    certificate,
    federated,
    own,
    post,
    rsa_key,
)


def code(azure: Azure, assertion: str) -> int:
    """0, or the number of the refusal."""
    status, found = post(azure, client_assertion=assertion, client_assertion_type=assertions.TYPE)
    assert status == (200 if "access_token" in found else 401)
    return int(found.get("error_codes", [0])[0])


def _from_now(changes: dict[str, Any]) -> dict[str, Any]:
    """Times are given in seconds from now, and now is when the test runs."""
    now = int(time.time())
    return {
        name: now + value if name in ("exp", "nbf") and isinstance(value, int) else value
        for name, value in changes.items()
    }


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({}, 0),
        ({"aud": f"https://login.windows.net/{TENANT}/oauth2/token?api-version=1.0"}, 0),
        ({"aud": f"https://{LOGIN}/{TENANT}/v2.0"}, 0),
        ({"aud": f"https://{LOGIN}/contoso.example/oauth2/v2.0/token"}, 0),
        ({"aud": f"https://{LOGIN}/{OTHER_TENANT}/oauth2/v2.0/token"}, 700023),
        ({"aud": f"https://login.example/{TENANT}/oauth2/v2.0/token"}, 700023),
        ({"aud": f"http://{LOGIN}/{TENANT}/oauth2/v2.0/token"}, 700023),
        ({"aud": "api://AzureADTokenExchange"}, 700023),
        ({"sub": OTHER_TENANT}, 700021),
        ({"exp": -200}, 0),
        ({"exp": -400}, 700024),
        ({"nbf": 400}, 700024),
        ({"exp": "tomorrow"}, 50027),
        ({"headers": {"x5t": "AAAA"}}, 700027),
        ({"headers": {"kid": "1"}}, 700027),
        ({"key": rsa_key("somebody")}, 700027),
    ],
)
def test_an_applications_own_assertion(azure: Azure, changes: dict[str, Any], number: int) -> None:
    assert code(azure, own(**_from_now(changes))) == number


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({}, 0),
        ({"aud": ["other", FEDERATED.audience]}, 0),
        ({"iss": f"{FEDERATED.issuer}/"}, 700211),
        ({"sub": FEDERATED.subject.upper()}, 700213),
        ({"aud": ARM}, 700212),
        ({"exp": -400}, 700024),
        ({"key": rsa_key("somebody")}, 50013),
    ],
)
def test_a_federated_assertion_is_checked(azure: Azure, changes: dict[str, Any], number: int) -> None:
    assert code(azure, federated(**_from_now(changes))) == number


@pytest.mark.parametrize("assertion", ["nonsense", "a.b.c", jwt.encode({"iss": CLIENT}, "x" * 32, algorithm="HS256")])
def test_what_is_no_assertion(azure: Azure, assertion: str) -> None:
    assert code(azure, assertion) == 50027


def test_an_unsigned_assertion(azure: Azure) -> None:
    body = jwt.decode(own(), options={"verify_signature": False})
    assert code(azure, jwt.encode(body, "", algorithm="none", headers={"x5t": "AAAA"})) == 50027


def test_an_assertion_signed_with_the_public_key(azure: Azure) -> None:
    """HS256 with what everybody knows: the classic confusion of algorithms. The library would not make it."""
    _, body, _ = own().split(".")
    header = {"alg": "HS256", "typ": "JWT", "x5t": assertions.thumbprints(REGISTERED)[0]}
    signed = f"{base64url(json.dumps(header).encode())}.{body}"
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = base64url(hmac.digest(public, signed.encode(), "sha256"))
    assert code(azure, f"{signed}.{signature}") == 50027


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_an_expired_certificate(azure: Azure) -> None:
    old = certificate(KEY, days=-1)
    expired = Azure(azure.directory, certificates=[old])
    assert code(expired, own(headers={"x5t": assertions.thumbprints(old)[0]})) == 700027


def test_the_refusal_names_the_key(azure: Azure) -> None:
    _, found = post(azure, client_assertion=own(headers={"x5t": "3q2-7w"}), client_assertion_type=assertions.TYPE)
    assert "Thumbprint of key used by client: 'DEADBEEF'" in found["error_description"]


def test_somebody_elses_key(azure: Azure) -> None:
    """The certificate's thumbprint is no secret."""
    x5t = {"x5t": assertions.thumbprints(REGISTERED)[0]}
    assert code(azure, own(key=rsa_key("somebody"), headers=x5t)) == 700027
