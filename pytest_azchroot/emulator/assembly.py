"""All of the emulator: Resource Manager with its disks, the metadata service, the authority, TLS and the proxy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import proxy
from .emulator import Emulator, Endpoint
from .hooks import Hook
from .imds import DOCUMENTED, Imds, Limits
from .login import Login
from .settings import Settings
from .tenant import Application, Tenant
from .tls import Authority
from .tokens import ManagedIdentities, Principal, Tokens

SYSTEM_CLIENT_ID = "66666666-6666-6666-6666-666666666661"
SYSTEM_OBJECT_ID = "66666666-6666-6666-6666-666666666662"


@dataclass(frozen=True)
class Accounts:
    """Who can have a token.

    :param users: identities assigned to the machine, by client id, object id and resource id.
    :param system: whether the machine has an identity of its own.
    """

    applications: Sequence[Application] = ()
    users: Sequence[Principal] = ()
    system: bool = True
    domains: Sequence[str] = Tenant.domains


NOBODY_ELSE = Accounts()
"""The machine alone."""


@dataclass(frozen=True)
class Assembly:
    """An emulator that is not started yet, and what its clients and its tests need of it."""

    emulator: Emulator
    authority: Authority
    tokens: Tokens
    imds: Imds
    login: Login


def assembled(
    settings: Settings,
    *,
    accounts: Accounts = NOBODY_ELSE,
    limits: Limits = DOCUMENTED,
    address: str = "127.0.0.1",
    port: int = 0,
    tls_port: int = 0,
    more: Iterable[Endpoint] = (),
    hooks: Iterable[Hook] = (),
) -> Assembly:
    """The emulator with all its parts.

    :param limits: of the metadata service.
    :param port: where it speaks plain HTTP, and is a proxy. 0: any that is free; so with the other.
    :param tls_port: where it speaks TLS.
    :param more: where it listens too; the metadata service's own address, for one.
    :raises pytest_azchroot.errors.AzchrootError: the keys in the directory cannot be used.
    """
    keys = settings.directory / "keys"
    authority, tokens = Authority(keys), Tokens.kept(keys)
    machine = Principal(settings.tenant, SYSTEM_CLIENT_ID, SYSTEM_OBJECT_ID, settings.machine_id)
    identities = ManagedIdentities(tokens, system=machine if accounts.system else None, users=accounts.users)
    imds = Imds(
        lambda: emulator.machine(),  # noqa: PLW0108 - it is made below
        identities,
        limits=limits,
        sign=lambda content: authority.sign(content, name=f"{settings.location}.metadata.azure.com"),
    )
    tenant = Tenant(settings.tenant, accounts.domains, accounts.applications)
    login = Login([tenant], tokens, own=proxy.is_known)
    emulator = Emulator(
        settings,
        endpoints=[
            Endpoint(address, port, tunnels=proxy.Proxy(authority)),
            Endpoint(address, tls_port, wrap=authority.wrap),
            *more,
        ],
        handlers=[proxy.refuse, imds.handle, login.handle],
        authorize=lambda request: tokens.check(request.header("Authorization"), tenant_id=settings.tenant),
        hooks=hooks,
    )
    return Assembly(emulator, authority, tokens, imds, login)
