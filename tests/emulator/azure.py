"""A small Azure for tests: one machine with identities, one tenant with applications, no disks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pytest_azchroot.emulator import assertions
from pytest_azchroot.emulator.errors import ArmError
from pytest_azchroot.emulator.http import Request, Response
from pytest_azchroot.emulator.imds import NO_LIMITS, Imds, Limits
from pytest_azchroot.emulator.login import Login
from pytest_azchroot.emulator.proxy import is_known
from pytest_azchroot.emulator.tenant import Application, FederatedCredential, Tenant
from pytest_azchroot.emulator.tls import Authority
from pytest_azchroot.emulator.tokens import ManagedIdentities, Principal, Tokens

SUBSCRIPTION = "22222222-2222-2222-2222-222222222222"
TENANT = "33333333-3333-3333-3333-333333333333"
LOGIN = "login.microsoftonline.com"
OTHER_TENANT = "33333333-0000-0000-0000-333333333333"
CLIENT = "55555555-5555-5555-5555-555555555555"
SECRET = "s3cret~of.the-application"
ARM = "https://management.azure.com"
SCOPE = f"{ARM}/.default"

GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1"
VM_ID = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/vm1"
DISK_ID = f"{GROUP}/providers/Microsoft.Compute/disks/data1"
USER_ID = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/builder"

SYSTEM = Principal(TENANT, "66666666-0000-0000-0000-000000000001", "66666666-0000-0000-0000-000000000002", VM_ID)
USER = Principal(TENANT, "77777777-0000-0000-0000-000000000001", "77777777-0000-0000-0000-000000000002", USER_ID)
OTHER_USER = Principal(TENANT, "88888888-0000-0000-0000-000000000001", "88888888-0000-0000-0000-000000000002", "/other")


def machine() -> dict[str, Any]:
    """A virtual machine as Resource Manager shows it."""
    disk = {"id": DISK_ID, "storageAccountType": "Premium_LRS"}
    return {
        "id": VM_ID,
        "name": "vm1",
        "location": "westus2",
        "tags": {"team": "images", "purpose": "build"},
        "zones": ["3"],
        "properties": {
            "vmId": "44444444-4444-4444-4444-444444444444",
            "hardwareProfile": {"vmSize": "Standard_D4s_v5"},
            "securityProfile": {
                "securityType": "TrustedLaunch",
                "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True},
            },
            "storageProfile": {
                "imageReference": {
                    "publisher": "Debian",
                    "offer": "debian-12",
                    "sku": "12-gen2",
                    "version": "latest",
                    "exactVersion": "0.20250101.1",
                },
                "osDisk": {"name": "os", "osType": "Linux", "caching": "ReadWrite", "diskSizeGB": 30},
                "dataDisks": [
                    {
                        "lun": 0,
                        "name": "data1",
                        "caching": "ReadOnly",
                        "createOption": "Attach",
                        "diskSizeGB": 1024,
                        "toBeDetached": False,
                        "managedDisk": disk,
                    }
                ],
            },
            "osProfile": {
                "computerName": "vm1",
                "adminUsername": "azureuser",
                "linuxConfiguration": {
                    "disablePasswordAuthentication": True,
                    "ssh": {
                        "publicKeys": [{"path": "/home/azureuser/.ssh/authorized_keys", "keyData": "ssh-rsa AAAA"}]
                    },
                },
            },
        },
    }


@cache
def rsa_key(_: str = "one") -> rsa.RSAPrivateKey:
    """A key for each name: they are slow to make."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(key: rsa.RSAPrivateKey, *, days: int = 30) -> x509.Certificate:
    """A self-signed certificate, as applications have them; with negative days one that has expired."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "application")])
    end = datetime.now(timezone.utc) + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(end - timedelta(days=100))
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )


def pem(key: rsa.RSAPrivateKey, *certificates: x509.Certificate) -> bytes:
    """A private key and certificates in one file, as azure-identity wants them."""
    first = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return first + b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


FEDERATED = FederatedCredential("https://issuer.example", "repo:team/images:ref:main", rsa_key("issuer").public_key())


KEY = rsa_key("application")
REGISTERED = certificate(KEY)
"""The application's certificate, and its key."""


@dataclass
class Azure:
    """The parts of the emulator, wired together."""

    directory: Path
    vm: Callable[[], dict[str, Any]] = machine
    system: Principal | None = SYSTEM
    users: Sequence[Principal] = (USER,)
    limits: Limits = NO_LIMITS
    secrets: Sequence[str] = (SECRET,)
    certificates: Sequence[x509.Certificate] = (REGISTERED,)
    federated: Sequence[FederatedCredential] = (FEDERATED,)
    authority: Authority = field(init=False)
    tokens: Tokens = field(init=False)
    imds: Imds = field(init=False)
    login: Login = field(init=False)

    def __post_init__(self) -> None:
        self.authority = Authority(self.directory)
        self.tokens = Tokens.kept(self.directory)
        identities = ManagedIdentities(self.tokens, system=self.system, users=self.users)
        sign = lambda content: self.authority.sign(content, name="westus2.metadata.azure.com")  # noqa: E731
        self.imds = Imds(self.vm, identities, limits=self.limits, sign=sign)
        application = Application(
            CLIENT, "99999999-9999-9999-9999-999999999999", self.secrets, self.certificates, self.federated
        )
        self.login = Login([Tenant(TENANT, ["contoso.example"], [application])], self.tokens, own=is_known)

    def answer(self, request: Request) -> Response:
        """As the emulator hands requests on, with a Resource Manager that only says who asks."""
        answer = self.imds.handle(request) or self.login.handle(request)
        if answer is not None:
            return answer
        try:
            principal = self.tokens.check(request.header("authorization"), tenant_id=TENANT)
        except ArmError as error:
            return error.response
        return Response.of_json(200, {"oid": principal.object_id, "xms_mirid": principal.resource_id})


def claims(token: str) -> dict[str, Any]:
    """What a token says."""
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def federated(*, key: rsa.RSAPrivateKey | None = None, **changes: Any) -> str:
    """An assertion that FEDERATED trusts, but for the changes."""
    now = time.time()
    body = {"iss": FEDERATED.issuer, "sub": FEDERATED.subject, "aud": FEDERATED.audience, "iat": now, "exp": now + 600}
    return jwt.encode({**body, **changes}, key or rsa_key("issuer"), algorithm="RS256")


def own(*, key: rsa.RSAPrivateKey = KEY, headers: dict[str, str] | None = None, **changes: Any) -> str:
    """An assertion as the application issues it, but for the changes."""
    now = int(time.time())
    audience = f"https://{LOGIN}/{TENANT}/oauth2/v2.0/token"
    body = {"iss": CLIENT, "sub": CLIENT, "aud": audience, "nbf": now, "exp": now + 600, "jti": "1"}
    thumbprint = assertions.thumbprints(REGISTERED)[0]
    return jwt.encode({**body, **changes}, key, algorithm="RS256", headers=headers or {"x5t": thumbprint})


def post(azure: Azure, path: str = f"/{TENANT}/oauth2/v2.0/token", **form: str) -> tuple[int, dict[str, Any]]:
    """Status and content of the answer to a token request."""
    body = urlencode({"grant_type": "client_credentials", "client_id": CLIENT, "scope": SCOPE, **form}).encode()
    answer = azure.login.answer(Request("POST", "https", LOGIN, path, body=body))
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body)
