"""Access tokens: real JWTs, signed with the emulator's own key, given to identities and checked on the way back."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from . import errors
from .keys import rsa_key

ARM_AUDIENCES = (
    "https://management.core.windows.net/",
    "https://management.core.windows.net",
    "https://management.azure.com/",
    "https://management.azure.com",
)
"""What a token for Resource Manager may be for, in the order in which its refusal lists them."""

APPLICATION_LIFETIME = 3599
"""Seconds that a token of an application is good for."""

IDENTITY_LIFETIME = 86_400
"""Seconds that a token of a managed identity is good for."""


@dataclass(frozen=True)
class Principal:
    """Who a token speaks for: an application's service principal, or a managed identity.

    :param client_id: the application's id.
    :param object_id: the service principal's.
    :param resource_id: of a managed identity, its resource; for the one that the system assigned, the machine.
    """

    tenant_id: str
    client_id: str
    object_id: str
    resource_id: str = ""


@dataclass(frozen=True)
class Token:
    """A token as issued; times are seconds since the epoch."""

    value: str
    resource: str
    not_before: int
    expires_on: int


class Tokens:
    """Issues tokens and knows its own again.

    :param key: an RSA key; see :meth:`kept`.
    :param clock: the time, in seconds since the epoch.
    """

    def __init__(self, key: rsa.RSAPrivateKey, *, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key_id = _base64url(hashlib.sha256(spki).digest())

    @classmethod
    def kept(cls, directory: Path, *, clock: Callable[[], float] = time.time) -> Tokens:
        """With the key in a directory, made at the first start: tokens outlive the emulator's process."""
        return cls(rsa_key(directory / "tokens-key.pem"), clock=clock)

    def issue(self, principal: Principal, resource: str, *, lifetime: int = APPLICATION_LIFETIME) -> Token:
        """A token for a resource, in the form of version 1.0, which is what Resource Manager asks for.

        :param resource: its audience, as the client wrote it.
        :param lifetime: seconds.
        """
        now = int(self._clock())
        claims: dict[str, Any] = {
            "aud": resource,
            "iss": issuer(principal.tenant_id),
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "appid": principal.client_id,
            "idp": issuer(principal.tenant_id),
            "idtyp": "app",
            "oid": principal.object_id,
            "sub": principal.object_id,
            "tid": principal.tenant_id,
            "uti": _base64url(uuid.uuid4().bytes),
            "ver": "1.0",
        }
        if principal.resource_id:
            claims["xms_mirid"] = principal.resource_id
        value = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self.key_id, "x5t": self.key_id})
        return Token(value, resource, not_before=now, expires_on=now + lifetime)

    def key_set(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set, for those who check tokens themselves."""
        numbers = self._key.public_key().public_numbers()
        key = {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.key_id,
            "x5t": self.key_id,
            "n": _base64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
            "e": _base64url(numbers.e.to_bytes(3, "big")),
        }
        return {"keys": [key]}

    def check(
        self, authorization: str | None, *, tenant_id: str, audiences: Collection[str] = ARM_AUDIENCES
    ) -> Principal:
        """Who sent a request.

        :param authorization: the request's header.
        :param tenant_id: the tenant of the subscription that is asked for.
        :raises errors.ArmError: 401, with the reason and the authority to ask.
        """
        if not authorization:
            raise errors.no_token(tenant_id)
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != "bearer" or not value.strip():
            text = "Authentication failed. The 'Authorization' header is provided in an invalid format."
            raise _refused(tenant_id, "AuthenticationFailedInvalidHeader", text)
        claims = self._claims(value.strip())
        if claims is None:
            raise errors.bad_token(tenant_id)
        now = self._clock()
        if claims["exp"] <= now:
            raise _expired(tenant_id, at=claims["exp"], now=now)
        if claims["aud"] not in audiences:
            raise _wrong_audience(tenant_id, claims["aud"], audiences)
        if claims["tid"] != tenant_id:
            raise _wrong_tenant(tenant_id, claims["iss"])
        return Principal(claims["tid"], claims["appid"], claims["oid"], claims.get("xms_mirid", ""))

    def _claims(self, value: str) -> dict[str, Any] | None:
        """What a token says if it is one of ours, good or not any more."""
        try:
            found: dict[str, Any] = jwt.decode(
                value,
                self._key.public_key(),
                algorithms=["RS256"],
                options={
                    "verify_aud": False,  # what is checked here is the signature; the rest has messages of its own
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "require": ["aud", "iss", "exp", "tid", "oid", "appid"],
                },
            )
        except jwt.InvalidTokenError:
            return None
        return found


def _refused(tenant_id: str, code: str, message: str) -> errors.ArmError:
    challenge = (
        f'Bearer authorization_uri="https://login.windows.net/{tenant_id}", error="invalid_token", '
        f'error_description="{message}"'
    )
    return errors.ArmError(401, code, message, headers={"WWW-Authenticate": challenge})


def _expired(tenant_id: str, *, at: float, now: float) -> errors.ArmError:
    """vscode-azureappservice#2483."""
    text = f"The access token expiry UTC time '{_moment(at)}' is earlier than current UTC time '{_moment(now)}'."
    return _refused(tenant_id, "ExpiredAuthenticationToken", text)


def _wrong_audience(tenant_id: str, audience: str, allowed: Collection[str]) -> errors.ArmError:
    """azure-tools-for-java#2077."""
    text = (
        f"The access token has been obtained for wrong audience or resource '{audience}'. It should exactly match with "
        f"one of the allowed audiences {','.join(repr(each) for each in allowed)}."
    )
    return _refused(tenant_id, "InvalidAuthenticationTokenAudience", text)


def _wrong_tenant(tenant_id: str, found: str) -> errors.ArmError:
    """azure-tools-vscode#44, LogicAppsUX#9068."""
    text = (
        f"The access token is from the wrong issuer '{found}'. It must match the tenant '{issuer(tenant_id)}' "
        f"associated with this subscription. Please use the authority (URL) 'https://login.windows.net/{tenant_id}' to "
        "get the token. Note, if the subscription is transferred to another tenant there is no impact to the "
        "services, but information about new tenant could take time to propagate (up to an hour). If you just "
        "transferred your subscription and see this error message, please try back later."
    )
    return _refused(tenant_id, "InvalidAuthenticationTokenTenant", text)


class IdentityError(Exception):
    """A machine has not the identity that was asked for. Its text is the service's."""


class ManagedIdentities:
    """The identities of a machine.

    :param system: the one that the system assigned, if any.
    :param users: those that users assigned.
    """

    def __init__(self, tokens: Tokens, *, system: Principal | None = None, users: Sequence[Principal] = ()) -> None:
        self._tokens = tokens
        self._system = system
        self._users = tuple(users)

    @property
    def tenant_id(self) -> str | None:
        """The tenant of the machine's identities, None without any."""
        return next((each.tenant_id for each in (self._system, *self._users) if each), None)

    def token(
        self,
        resource: str,
        *,
        client_id: str | None = None,
        object_id: str | None = None,
        resource_id: str | None = None,
    ) -> tuple[Principal, Token]:
        """A token for the identity that is named, or for the one that is meant where none is.

        :raises IdentityError: it is not assigned, or several could be meant.
        """
        principal = self._chosen(client_id, object_id, resource_id)
        return principal, self._tokens.issue(principal, resource, lifetime=IDENTITY_LIFETIME)

    def _chosen(self, client_id: str | None, object_id: str | None, resource_id: str | None) -> Principal:
        if client_id or object_id or resource_id:
            # the system's own has no resource id to be asked by: that one is the machine's
            own = [self._system] if self._system and not resource_id else []
            for each in [*self._users, *own]:
                named = ((client_id, each.client_id), (object_id, each.object_id), (resource_id, each.resource_id))
                if all(wanted.lower() == has.lower() for wanted, has in named if wanted):
                    return each
            raise IdentityError("Identity not found")
        if self._system:
            return self._system
        if len(self._users) > 1:
            raise IdentityError(
                "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in "
                "the token request"
            )
        if not self._users:
            raise IdentityError("Identity not found")
        return self._users[0]


def issuer(tenant_id: str) -> str:
    """The issuer of a tenant's tokens of version 1.0."""
    return f"https://sts.windows.net/{tenant_id}/"


def _moment(seconds: float) -> str:
    """A time as Resource Manager writes it: 5/14/2023 1:45:06 PM."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    hour = moment.hour % 12 or 12
    return f"{moment.month}/{moment.day}/{moment.year} {hour}:{moment:%M:%S %p}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
