"""Asking the metadata service."""

from __future__ import annotations

import json
from typing import Any

from pytest_azchroot.emulator.http import Request, Response
from pytest_azchroot.emulator.imds import ADDRESS, NO_LIMITS, Imds
from pytest_azchroot.emulator.instance import VERSIONS
from pytest_azchroot.emulator.tokens import ManagedIdentities, Principal

from .azure import Azure, machine

TOKEN_PATH = "/metadata/identity/oauth2/token"
LATEST = VERSIONS[-1]


def ask(imds: Imds, path: str, *query: tuple[str, str], method: str = "GET", **headers: str) -> tuple[int, Any]:
    """Status and content of an answer; the version is the latest unless the query has one, `Metadata: true` is sent."""
    asked = [*query] if any(name == "api-version" for name, _ in query) else [("api-version", LATEST), *query]
    sent = {"metadata": "true", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return content(imds.answer(Request(method, "http", ADDRESS, path, asked, sent)))


def content(response: Response) -> tuple[int, Any]:
    """Status and content of an answer."""
    assert isinstance(response.body, bytes)
    is_json = response.headers["Content-Type"].startswith("application/json")
    return response.status, json.loads(response.body) if is_json else response.body.decode()


def imds_of(azure: Azure, *users: Principal, system: Principal | None = None, **options: Any) -> Imds:
    """The service of a machine with these identities."""
    return Imds(
        machine, ManagedIdentities(azure.tokens, system=system, users=users), **{"limits": NO_LIMITS, **options}
    )
