"""Client assertions: JWTs with which an application proves itself instead of a secret (RFC 7523, 2.2)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from . import tenant as words
from .tenant import Application, Tenant

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
LEEWAY = 300.0
"""Seconds by which clocks may differ, as the service allows."""

Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def check(
    assertion: str, *, tenant: Tenant, application: Application, hosts: Callable[[str], bool], now: float
) -> None:
    """Take an assertion for an application's, or refuse it.

    One that the application issued itself is signed with a certificate's key; any other is a federated one.

    :param hosts: whether an authority host is one of ours, for the assertion's audience.
    :param now: seconds since the epoch.
    :raises words.EntraError: why not.
    """
    try:
        header = jwt.get_unverified_header(assertion)
        claims: dict[str, Any] = jwt.decode(assertion, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        raise words.bad_assertion() from None
    if header.get("alg") not in ALGORITHMS or not {"iss", "sub", "aud", "exp"} <= claims.keys():
        raise words.bad_assertion()
    if claims["iss"] == application.client_id:
        _own(assertion, header, claims, tenant=tenant, application=application, hosts=hosts, now=now)
    else:
        _federated(assertion, claims, application)
    _timely(claims, now)


def thumbprints(certificate: x509.Certificate) -> tuple[str, str]:
    """SHA-1 and SHA-256 of a certificate, as `x5t` and `x5t#S256` write them (RFC 7515, 4.1.7)."""
    sha1 = certificate.fingerprint(hashes.SHA1())
    sha256 = certificate.fingerprint(hashes.SHA256())
    return _base64url(sha1), _base64url(sha256)


def _own(
    assertion: str,
    header: dict[str, Any],
    claims: dict[str, Any],
    *,
    tenant: Tenant,
    application: Application,
    hosts: Callable[[str], bool],
    now: float,
) -> None:
    if claims["sub"] != claims["iss"]:
        raise words.other_client()
    given = [str(header[name]).rstrip("=") for name in ("x5t#S256", "x5t") if name in header]
    shown = _hex(given[0]) if given else ""
    certificate = next((each for each in application.certificates if set(given) & set(thumbprints(each))), None)
    if certificate is None:
        raise words.no_certificate(application.client_id, shown)
    key = certificate.public_key()
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)) or not _signed(assertion, key):
        raise words.bad_signature(application.client_id, shown, certificate)
    if datetime.fromtimestamp(now, timezone.utc) > certificate.not_valid_after_utc:
        raise words.expired_certificate(application.client_id, shown, certificate)
    if not any(_is_authority(each, tenant, hosts) for each in _audiences(claims)):
        raise words.other_audience()


def _federated(assertion: str, claims: dict[str, Any], application: Application) -> None:
    """Issuer, subject and audience are compared exactly, with case (identity platform, breaking changes)."""
    issuer, subject, audiences = str(claims["iss"]), str(claims["sub"]), _audiences(claims)
    found = [each for each in application.federated if each.issuer == issuer]
    if not found:
        raise words.no_federation(700211, "issuer", issuer)
    found = [each for each in found if each.subject == subject]
    if not found:
        raise words.no_federation(700213, "subject", subject)
    found = [each for each in found if each.audience in audiences]
    if not found:
        raise words.no_federation(700212, "audience", " ".join(audiences))
    if not any(_signed(assertion, each.key) for each in found):
        raise words.bad_federated_signature()


def _timely(claims: dict[str, Any], now: float) -> None:
    try:
        start, end = float(claims.get("nbf", 0)), float(claims["exp"])
    except (TypeError, ValueError):
        raise words.bad_assertion() from None
    if not start - LEEWAY <= now <= end + LEEWAY:
        raise words.untimely(now=now, start=start, end=end)


def _signed(assertion: str, key: Key) -> bool:
    ours = tuple(name for name in ALGORITHMS if name.startswith("ES") == isinstance(key, ec.EllipticCurvePublicKey))
    try:
        jwt.decode(
            assertion,
            key,
            algorithms=list(ours),
            options={"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except jwt.InvalidTokenError:
        return False
    return True


def _is_authority(audience: str, tenant: Tenant, hosts: Callable[[str], bool]) -> bool:
    """An audience is the token endpoint or the authority, of this tenant: clients send either."""
    url = urlsplit(audience)
    name = url.path.strip("/").split("/")[0]
    return url.scheme == "https" and hosts(url.netloc) and tenant.is_called(name)


def _audiences(claims: dict[str, Any]) -> list[str]:
    found = claims["aud"]
    return [str(each) for each in found] if isinstance(found, list) else [str(found)]


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _hex(thumbprint: str) -> str:
    try:
        return base64.urlsafe_b64decode(thumbprint + "==").hex().upper()
    except (binascii.Error, ValueError):
        return ""
