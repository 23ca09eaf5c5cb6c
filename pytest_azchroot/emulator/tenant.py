"""A tenant of Microsoft Entra ID: its names and applications, and its refusals in their words."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from .http import Response

DEFAULT_AUDIENCE = "api://AzureADTokenExchange"
"""What a federated assertion is for, unless its credential says otherwise."""


@dataclass(frozen=True)
class FederatedCredential:
    """Trust in assertions of somebody else's.

    :param key: the issuer's public key. The service fetches it from the issuer; the emulator asks nobody.
    """

    issuer: str
    subject: str
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    audience: str = DEFAULT_AUDIENCE


@dataclass(frozen=True)
class Application:
    """An application registered in a tenant, and what it proves itself with.

    :param client_id: its application id.
    :param object_id: its service principal's.
    """

    client_id: str
    object_id: str
    secrets: Sequence[str] = field(default=(), repr=False)
    certificates: Sequence[x509.Certificate] = ()
    federated: Sequence[FederatedCredential] = ()


@dataclass(frozen=True)
class Tenant:
    """A directory.

    :param domains: names by which it may be asked for, beside its id.
    """

    id: str
    domains: Sequence[str] = ("emulator.onmicrosoft.com",)
    applications: Sequence[Application] = ()

    def is_called(self, name: str) -> bool:
        """Whether this is the tenant that a path names."""
        return name.lower() in {each.lower() for each in (self.id, *self.domains)}

    def application(self, client_id: str) -> Application | None:
        """The application with an id, which is compared without case."""
        return next((each for each in self.applications if each.client_id.lower() == client_id.lower()), None)


@dataclass
class EntraError(Exception):
    """A refusal: ``{"error", "error_description": "AADSTS…: …", "error_codes", …}``.

    :param error: the code of OAuth 2.0 (RFC 6749, 5.2).
    """

    number: int
    error: str
    message: str
    status: int = 400

    def response(self, correlation_id: str | None = None) -> Response:
        """The answer, which names the request by the id that the client gave it."""
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
        trace, correlation = str(uuid.uuid4()), correlation_id or str(uuid.uuid4())
        lines = (
            f"AADSTS{self.number}: {self.message}",
            f"Trace ID: {trace}",
            f"Correlation ID: {correlation}",
            f"Timestamp: {now}",
        )
        body = {
            "error": self.error,
            "error_description": " ".join(lines),
            "error_codes": [self.number],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={self.number}",
        }
        return Response.of_json(self.status, body)


# Where a text was seen stands beside it; "unsure" where it is a guess.


def no_tenant(name: str) -> EntraError:
    """azure-cli#22145."""
    text = (
        f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into the "
        "correct cloud. Check with your subscription administrator, this may happen if there are no active "
        "subscriptions for the tenant."
    )
    return EntraError(90002, "invalid_tenant", text)


def no_tenant_named() -> EntraError:
    """An application must be asked for in its tenant (identity platform, error codes)."""
    text = "No tenant-identifying information found in either the request or implied by any provided credentials."
    return EntraError(50059, "invalid_request", text)


def unknown_instance() -> EntraError:
    """What msal looks for is the error's code."""
    return EntraError(50049, "invalid_instance", "Unknown or invalid instance.")


def missing(parameter: str) -> EntraError:
    """Identity platform, error codes."""
    return EntraError(
        900144, "invalid_request", f"The request body must contain the following parameter: '{parameter}'."
    )


def unsupported_grant(grant: str) -> EntraError:
    """Identity platform, error codes."""
    return EntraError(70003, "unsupported_grant_type", f"The app requested an unsupported grant type '{grant}'.")


def no_application(client_id: str, tenant: str) -> EntraError:
    """Identity platform, error codes."""
    text = (
        f"Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can happen if the "
        "application has not been installed by the administrator of the tenant or consented to by any user in the "
        "tenant. You may have sent your authentication request to the wrong tenant."
    )
    return EntraError(700016, "unauthorized_client", text)


def no_credential() -> EntraError:
    """azure-docs#25959."""
    text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
    return EntraError(7000218, "invalid_client", text, 401)


def wrong_secret(client_id: str) -> EntraError:
    """sap-automation#418."""
    text = (
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not "
        f"the client secret ID, for a secret added to app '{client_id}'."
    )
    return EntraError(7000215, "invalid_client", text, 401)


def bad_scope(scope: str) -> EntraError:
    """msgraph-sdk-python#181."""
    text = (
        f"The provided value for scope {scope} is not valid. Client credential flows must have a scope value with "
        "/.default suffixed to the resource identifier (application ID URI)."
    )
    return EntraError(1002012, "invalid_scope", text)


def no_resource(resource: str, tenant: str) -> EntraError:
    """Identity platform, error codes."""
    text = (
        f"The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the "
        "application has not been installed by the administrator of the tenant or consented to by any user in the "
        "tenant. You might have sent your authentication request to the wrong tenant."
    )
    return EntraError(500011, "invalid_resource", text)


def bad_refresh_token() -> EntraError:
    """Identity platform, error codes; none is ever given out here."""
    return EntraError(9002313, "invalid_grant", "Invalid request. Request is malformed or invalid.")


def wrong_password() -> EntraError:
    """Identity platform, error codes; there are no users here."""
    return EntraError(50126, "invalid_grant", "Error validating credentials due to invalid username or password.")


def bad_assertion() -> EntraError:
    """Identity platform, error codes."""
    return EntraError(50027, "invalid_client", "JWT token is invalid or malformed.", 401)


def other_client() -> EntraError:
    """Identity platform, error codes; the second sentence is that of its kin."""
    text = f"Client assertion application identifier doesn't match 'client_id' parameter. {_CERTIFICATES}"
    return EntraError(700021, "invalid_client", text, 401)


def other_audience() -> EntraError:
    """Identity platform, error codes; the second sentence is that of its kin."""
    text = f"Client assertion audience claim does not match Realm issuer. {_CERTIFICATES}"
    return EntraError(700023, "invalid_client", text, 401)


def untimely(*, now: float, start: float, end: float) -> EntraError:
    """microsoft-authentication-library-for-java#984. Seconds since the epoch."""
    text = (
        f"Client assertion is not within its valid time range. Current time: {_instant(now)}, assertion valid from "
        f"{_instant(start)}, expiry time of assertion {_instant(end)}. {_CERTIFICATES}"
    )
    return EntraError(700024, "invalid_client", text, 401)


def no_certificate(client_id: str, thumbprint: str) -> EntraError:
    """Dynamics365Commerce.ScaleUnit#18, microsoft-authentication-library-for-js#8339."""
    text = (
        "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - "
        f"The key was not found., {_key_advice(client_id, thumbprint)}]."
    )
    return EntraError(700027, "invalid_client", text, 401)


def bad_signature(client_id: str, thumbprint: str, certificate: x509.Certificate) -> EntraError:
    """passport-azure-ad#453."""
    times = f"Start={_day(certificate.not_valid_before_utc)}, End={_day(certificate.not_valid_after_utc)}"
    text = (
        "Client assertion contains an invalid signature. [Reason - The key was found, but use of the key to verify the "
        f"signature failed., Thumbprint of key used by client: '{thumbprint}', Found key '{times}', "
        f"{_key_advice(client_id)}]."
    )
    return EntraError(700027, "invalid_client", text, 401)


def expired_certificate(client_id: str, thumbprint: str, certificate: x509.Certificate) -> EntraError:
    """The form is that of its kin."""
    times = f"Start={_day(certificate.not_valid_before_utc)}, End={_day(certificate.not_valid_after_utc)}"
    text = (
        "Client assertion contains an invalid signature. [Reason - The key used is expired., Thumbprint of key used by "
        f"client: '{thumbprint}', Found key '{times}', {_key_advice(client_id)}]."
    )
    return EntraError(700027, "invalid_client", text, 401)


def no_federation(number: int, part: str, value: str) -> EntraError:
    """azure-workload-identity#1200 and login#482 (700211 issuer, 700212 audience, 700213 subject)."""
    text = (
        f"No matching federated identity record found for presented assertion {part} '{value}'. Check your federated "
        "identity credential Subject, Audience and Issuer against the presented assertion. "
        "https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
    )
    return EntraError(number, "invalid_client", text, 401)


def bad_federated_signature() -> EntraError:
    """Identity platform, error codes; whether a federated one is answered so is unsure."""
    text = (
        "Assertion failed signature validation. [Reason - The provided signature value did not match the expected "
        "signature value.]."
    )
    return EntraError(50013, "invalid_client", text, 401)


_CERTIFICATES = (
    "Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."
)


def _key_advice(client_id: str, thumbprint: str = "") -> str:
    known = f"Thumbprint of key used by client: '{thumbprint}', " if thumbprint else ""
    return (
        f"{known}Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see configured keys for app "
        f"Id '{client_id}'. Review the documentation at https://docs.microsoft.com/en-us/graph/deployments to "
        "determine the corresponding service endpoint and "
        "https://docs.microsoft.com/en-us/graph/api/application-get?view=graph-rest-1.0&tabs=http to build a query "
        f"request URL, such as 'https://graph.microsoft.com/beta/applications/{client_id}'"
    )


def _instant(seconds: float) -> str:
    """2024-10-02T22:05:03.6755165Z: .NET's round-trip form, with its seventh digit."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"


def _day(moment: datetime) -> str:
    return f"{moment.month:02}/{moment.day:02}/{moment.year} {moment:%H:%M:%S}"
