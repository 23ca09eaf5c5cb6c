"""login.microsoftonline.com: discovery documents and token endpoints of the tenants that the emulator knows.

Source: the Microsoft identity platform's documentation of the client credentials flow, and what msal and autorest ask.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from . import assertions
from . import tenant as words
from .http import Request, Response
from .tenant import Application, EntraError, Tenant
from .tokens import APPLICATION_LIFETIME, Principal, Tokens

HOSTS = (
    "login.microsoftonline.com",
    "login.windows.net",
    "login.microsoft.com",
    "sts.windows.net",
)
"""The names of the public cloud's authority."""

SHARED = ("common", "organizations", "consumers")
"""What stands for a tenant in a path and is none."""

AAD_GRAPH = "00000002-0000-0000-c000-000000000000"
"""What a token is for, if a request in the form of version 1 does not say (azure-activedirectory-library#43)."""

_RESOURCES = re.compile(
    r"https://([\w-]+\.)*(azure\.com|azure\.net|windows\.net|microsoft\.com)(:443)?(/.*)?", re.IGNORECASE
)
"""Where the resources live that every tenant has."""

_PATH = re.compile(r"/(?P<tenant>[^/]+)/(?P<rest>.+?)/?")

_OWN_PATH = re.compile(r"/[^/]+/(oauth2/(v2\.0/)?\w+|(v2\.0/)?\.well-known/.+|discovery/(v2\.0/)?\w+)/?")
"""What at an address of the emulator is for the authority."""

Form = dict[str, str]


class Login:
    """Answers an authority's requests.

    :param tenants: the directories there are.
    :param own: further hosts, "address:port" too, at which clients may ask for a token.
    :param clock: the time, in seconds since the epoch.
    """

    def __init__(
        self,
        tenants: Sequence[Tenant],
        tokens: Tokens,
        *,
        own: Callable[[str], bool] = lambda host: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tenants = tuple(tenants)
        self._tokens = tokens
        self._own = own
        self._clock = clock

    def handle(self, request: Request) -> Response | None:
        """The answer; None if the request is not for an authority, by its host or its path."""
        is_ours = is_authority(request.host) or _OWN_PATH.fullmatch(request.path.lower())
        return self.answer(request) if is_ours else None

    def answer(self, request: Request) -> Response:
        """The answer to any request."""
        correlation_id = request.header("client-request-id")
        try:
            return self._answer(request)
        except EntraError as refusal:
            return refusal.response(correlation_id)

    def _answer(self, request: Request) -> Response:
        found = _PATH.fullmatch(request.path)
        if found is None:
            return Response(404)
        name, rest = found["tenant"], found["rest"].lower()
        readable: dict[str, Callable[[], Any]] = {
            "discovery/instance": lambda: self._instance(request),
            "v2.0/.well-known/openid-configuration": lambda: self._configuration(request, name, version=2),
            ".well-known/openid-configuration": lambda: self._configuration(request, name, version=1),
            "discovery/v2.0/keys": self._tokens.key_set,
            "discovery/keys": self._tokens.key_set,
        }
        writable: dict[str, Callable[[], Any]] = {
            "oauth2/v2.0/token": lambda: self._token(request, name, version=2),
            "oauth2/token": lambda: self._token(request, name, version=1),
            "oauth2/v2.0/devicecode": lambda: self._device_code(request, name),
            "oauth2/devicecode": lambda: self._device_code(request, name),
        }
        if rest in readable:
            return Response.of_json(200, readable[rest]()) if request.method == "GET" else _only("GET")
        if rest in writable:
            if request.method != "POST":
                return _only("POST")
            return Response.of_json(
                200, writable[rest](), {"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"}
            )
        return Response(404)

    def _tenant(self, name: str) -> Tenant:
        found = next((each for each in self._tenants if each.is_called(name)), None)
        if found is None:
            raise words.no_tenant(name)
        return found

    def _is_authority(self, host: str) -> bool:
        return is_authority(host) or self._own(host)

    # -- what clients read first

    def _instance(self, request: Request) -> dict[str, Any]:
        """Which hosts are authorities, and which are the same one."""
        asked = urlsplit(request.value("authorization_endpoint") or "")
        if not self._is_authority(asked.netloc):
            raise words.unknown_instance()
        name = asked.path.strip("/").split("/")[0] or "common"
        return {
            "tenant_discovery_endpoint": f"https://{asked.netloc}/{name}/v2.0/.well-known/openid-configuration",
            "api-version": request.value("api-version") or "1.1",
            "metadata": [
                {"preferred_network": HOSTS[0], "preferred_cache": HOSTS[1], "aliases": list(HOSTS)},
            ],
        }

    def _configuration(self, request: Request, name: str, *, version: int) -> dict[str, Any]:
        """The OpenID provider's configuration. Its endpoints are where the client has asked."""
        tenant = "{tenantid}" if name.lower() in SHARED else self._tenant(name).id
        path = name.lower() if name.lower() in SHARED else tenant
        base = f"{request.base_url}/{path}"
        part = "/v2.0" if version == 2 else ""
        v2 = f"https://{HOSTS[0]}/{tenant}/v2.0"
        return {
            "token_endpoint": f"{base}/oauth2{part}/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": f"{base}/discovery{part}/keys",
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": v2 if part else f"https://sts.windows.net/{tenant}/",
            "request_uri_parameter_supported": False,
            "authorization_endpoint": f"{base}/oauth2{part}/authorize",
            "device_authorization_endpoint": f"{base}/oauth2{part}/devicecode",
            "http_logout_supported": True,
            "end_session_endpoint": f"{base}/oauth2{part}/logout",
            "tenant_region_scope": None,
            "cloud_instance_name": "microsoftonline.com",
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": "graph.microsoft.com",
        }

    # -- grants

    def _token(self, request: Request, name: str, *, version: int) -> dict[str, Any]:
        form = _form(request)
        tenant = None if name.lower() in SHARED else self._tenant(name)
        grant = _required(form, "grant_type")
        if grant == "refresh_token":
            raise words.bad_refresh_token()
        if grant == "password":
            raise words.wrong_password()
        if grant in ("device_code", "urn:ietf:params:oauth:grant-type:device_code"):
            raise words.no_credential()  # what an application is told that may not act for users
        if grant != "client_credentials":
            raise words.unsupported_grant(grant)
        client_id, secret = _client(request, form)
        if tenant is None:
            raise words.no_tenant_named()
        application = tenant.application(client_id)
        if application is None:
            raise words.no_application(client_id, tenant.id)
        resource = _scope(form) if version == 2 else form.get("resource") or AAD_GRAPH
        if not _RESOURCES.fullmatch(resource) and resource != AAD_GRAPH:
            raise words.no_resource(resource, tenant.id)
        self._prove(application, tenant, secret, form)
        principal = Principal(tenant.id, application.client_id, application.object_id)
        token = self._tokens.issue(principal, resource)
        answer = {"token_type": "Bearer", "access_token": token.value}
        if version == 2:
            return {**answer, "expires_in": APPLICATION_LIFETIME, "ext_expires_in": APPLICATION_LIFETIME}
        return {
            **answer,
            "expires_in": str(APPLICATION_LIFETIME),
            "ext_expires_in": str(APPLICATION_LIFETIME),
            "expires_on": str(token.expires_on),
            "not_before": str(token.not_before),
            "resource": resource,
        }

    def _prove(self, application: Application, tenant: Tenant, secret: str | None, form: Form) -> None:
        assertion = form.get("client_assertion")
        if assertion:
            if form.get("client_assertion_type") != assertions.TYPE:
                raise words.missing("client_assertion_type")
            assertions.check(
                assertion, tenant=tenant, application=application, hosts=self._is_authority, now=self._clock()
            )
        elif secret:
            known = [hmac.compare_digest(each.encode(), secret.encode()) for each in application.secrets]
            if not any(known):
                raise words.wrong_secret(application.client_id)
        else:
            raise words.no_credential()

    def _device_code(self, request: Request, name: str) -> dict[str, Any]:
        """There are no users who could type one in."""
        client_id = _required(_form(request), "client_id")
        tenants = self._tenants if name.lower() in SHARED else (self._tenant(name),)
        if not any(each.application(client_id) for each in tenants):
            raise words.no_application(client_id, name)
        raise words.no_credential()


def is_authority(host: str) -> bool:
    """Whether a host is one of the public cloud's authorities, whatever its port."""
    return host.lower().partition(":")[0] in HOSTS


def _form(request: Request) -> Form:
    """The fields of a body; of one that is repeated, the first."""
    try:
        fields = parse_qs(request.body.decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _required(form: Form, name: str) -> str:
    value = form.get(name)
    if not value:
        raise words.missing(name)
    return value


def _client(request: Request, form: Form) -> tuple[str, str | None]:
    """The application's id, and its secret if it sent one: in the form, or in the header (RFC 6749, 2.3.1)."""
    scheme, _, value = (request.header("authorization") or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise words.missing("client_id") from None
        decoded = parse_qs(f"name={name}&secret={secret}")
        return decoded.get("name", [""])[0] or _required(form, "client_id"), decoded.get("secret", [None])[0]
    return _required(form, "client_id"), form.get("client_secret")


def _scope(form: Form) -> str:
    """The resource that a scope names; `https://host//.default` names the one that ends in a slash."""
    scopes = _required(form, "scope").split()
    if len(scopes) != 1 or not scopes[0].endswith("/.default"):
        raise words.bad_scope(" ".join(scopes))
    return scopes[0].removesuffix("/.default")


def _only(method: str) -> Response:
    return Response(405, {"Allow": method})
