"""Each kind of credential gets its token, or says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from pytest_azchroot.clouds.azure.calls import Calls
from pytest_azchroot.clouds.azure.client import Azure
from pytest_azchroot.clouds.azure.credentials import OPTIONS, credential
from pytest_azchroot.clouds.azure.environments import (
    CHINA,
    PUBLIC,
    US_GOVERNMENT,
    Environment,
    environment,
    named,
    parsed,
)
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.metadata import machine
from pytest_azchroot.clouds.azure.refusals import AzureError, CredentialError
from pytest_azchroot.emulator.assembly import SYSTEM_CLIENT_ID, Accounts
from pytest_azchroot.emulator.http import Request, Response
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.emulator.tenant import Application
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.spec.model import ImageSpec
from tests.emulator.azure import (
    CLIENT,
    FEDERATED,
    KEY,
    OTHER_TENANT,
    REGISTERED,
    SECRET,
    SUBSCRIPTION,
    TENANT,
    USER,
    claims,
    federated,
    pem,
)
from tests.emulator.serving import serving

TOKEN_CALL = f"POST /{TENANT}/oauth2/v2.0/token"


@pytest.fixture
def azure_emulator_accounts() -> Accounts:
    application = Application(CLIENT, "99999999-9999-9999-9999-999999999999", [SECRET], [REGISTERED], [FEDERATED])
    return Accounts(applications=[application], users=[USER])


@pytest.fixture(autouse=True)
def _no_application_in_the_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "azure_emulator" in request.fixturenames:
        request.getfixturevalue("azure_emulator")
    for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"):
        monkeypatch.delenv(name, raising=False)


def who(**options: Any) -> dict[str, Any]:
    """Whom Azure takes us for."""
    found = credential(ImageSpec(**options), machine(), PUBLIC)
    token = found.get_token(PUBLIC.scope)
    assert found.get_token_info(PUBLIC.scope).token == token.token
    return claims(token.token)


@pytest.mark.root
class TestApplications:
    def test_a_secret(self, azure_emulator: AzureEmulator) -> None:
        assert who(client_id=CLIENT, client_secret=SECRET, tenant_id=TENANT)["appid"] == CLIENT

    def test_its_tenant_is_found(self, azure_emulator: AzureEmulator) -> None:
        said = who(client_id=CLIENT, client_secret=SECRET, subscription_id=SUBSCRIPTION)
        assert (said["appid"], said["tid"]) == (CLIENT, TENANT)
        assert "GET subscriptions" in [call["name"] for call in azure_emulator.calls()]

    def test_its_tenant_is_not_found(self, azure_emulator: AzureEmulator) -> None:
        azure_emulator.fault(call="GET subscriptions", status=404, code="SubscriptionNotFound")
        with pytest.raises(
            AzureError, match=f"finding the tenant of subscription {SUBSCRIPTION} failed(.|\n)*tenant_id"
        ):
            credential(ImageSpec(client_id=CLIENT, client_secret=SECRET), machine(), PUBLIC)

    def test_a_certificate(self, azure_emulator: AzureEmulator, tmp_path: Path) -> None:
        path = tmp_path / "application.pem"
        path.write_bytes(pem(KEY, REGISTERED))
        assert who(client_id=CLIENT, client_cert_path=str(path), tenant_id=TENANT)["appid"] == CLIENT

    def test_a_certificate_with_a_password(self, azure_emulator: AzureEmulator, tmp_path: Path) -> None:
        path = tmp_path / "application.pfx"
        encryption = BestAvailableEncryption(b"open sesame")
        path.write_bytes(pkcs12.serialize_key_and_certificates(b"x", KEY, REGISTERED, None, encryption))
        options = {"client_id": CLIENT, "client_cert_path": str(path), "tenant_id": TENANT}
        assert who(**options, client_cert_password="open sesame")["appid"] == CLIENT
        with pytest.raises(
            AzureError, match=r"application.pfx cannot be used: (.|\n)*is client_cert_password right"
        ) as error:
            who(**options, client_cert_password="open sez me")
        assert "sez me" not in str(error.value)

    def test_no_certificate(self, azure_emulator: AzureEmulator, tmp_path: Path) -> None:
        with pytest.raises(AzureError, match=r"client_cert_path .*/x\.pem cannot be read: No such file or directory"):
            who(client_id=CLIENT, client_cert_path=str(tmp_path / "x.pem"), tenant_id=TENANT)

    def test_a_federated_token(self, azure_emulator: AzureEmulator) -> None:
        assert who(client_id=CLIENT, client_jwt=federated(), tenant_id=TENANT)["appid"] == CLIENT

    def test_github(self, azure_emulator: AzureEmulator) -> None:
        asked: list[Request] = []

        def github(request: Request) -> Response:
            asked.append(request)
            return Response.of_json(200, {"count": 1, "value": federated()})

        with serving(github, azure_emulator.assembly.authority) as served:
            said = who(
                client_id=CLIENT,
                tenant_id=TENANT,
                oidc_request_token="of-the-workflow",
                oidc_request_url=f"{served.url}/token?api-version=2.0",
            )
        assert said["appid"] == CLIENT and len(asked) == 1
        assert asked[0].header("Authorization") == "Bearer of-the-workflow"
        assert asked[0].value("audience") == FEDERATED.audience and asked[0].value("api-version") == "2.0"

    @pytest.mark.parametrize("answer", [Response.of_json(200, {}), Response.of_json(401, {"message": "not you"})])
    def test_github_gives_none(self, azure_emulator: AzureEmulator, answer: Response) -> None:
        with serving(lambda _: answer, azure_emulator.assembly.authority) as served:
            options = {"oidc_request_token": "of-the-workflow", "oidc_request_url": served.url}
            with pytest.raises(AzchrootError, match="oidc_request_url") as error:
                who(client_id=CLIENT, tenant_id=TENANT, **options)
        assert "of-the-workflow" not in str(error.value)

    def test_a_wrong_secret(self, azure_emulator: AzureEmulator) -> None:
        with pytest.raises(CredentialError, match="AADSTS7000215: Invalid client secret") as error:
            who(client_id=CLIENT, client_secret="wr0ng", tenant_id=TENANT)
        told = str(error.value)
        assert told.startswith(
            f"Azure gives no token to the application {CLIENT} of tenant {TENANT} (client_secret): "
        ) and told.endswith("hint: check client_id, tenant_id and client_secret")
        assert "wr0ng" not in told

    def test_a_wrong_tenant(self, azure_emulator: AzureEmulator) -> None:
        with pytest.raises(CredentialError, match=OTHER_TENANT):
            who(client_id=CLIENT, client_secret=SECRET, tenant_id=OTHER_TENANT)

    @pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429, "retry_after": 1}, {"reset": True}])
    def test_azure_stumbles(self, azure_emulator: AzureEmulator, fault: dict[str, Any]) -> None:
        azure_emulator.fault(call=TOKEN_CALL, nth=1, **fault)
        assert who(client_id=CLIENT, client_secret=SECRET, tenant_id=TENANT)["appid"] == CLIENT
        assert [call["status"] for call in azure_emulator.calls() if call["name"] == TOKEN_CALL] == [
            fault.get("status"),
            200,
        ]


@pytest.mark.root
class TestTheMachine:
    def test_its_own_identity(self, azure_emulator: AzureEmulator) -> None:
        assert who()["appid"] == SYSTEM_CLIENT_ID

    def test_one_that_is_assigned_to_it(self, azure_emulator: AzureEmulator) -> None:
        assert who(client_id=USER.client_id)["appid"] == USER.client_id

    def test_one_that_is_not(self, azure_emulator: AzureEmulator) -> None:
        with pytest.raises(CredentialError, match=r"Identity not found(.|\n)*is that identity assigned") as error:
            who(client_id=OTHER_TENANT)
        assert str(error.value).startswith(f"Azure gives no token to the managed identity {OTHER_TENANT} (client_id): ")

    def test_the_environment_goes_first(self, azure_emulator: AzureEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (("TENANT_ID", TENANT), ("CLIENT_ID", CLIENT), ("CLIENT_SECRET", SECRET)):
            monkeypatch.setenv(f"AZURE_{name}", value)
        assert who()["appid"] == CLIENT

    @pytest.mark.parametrize("options", [{}, {"client_id": USER.client_id}])
    def test_no_proxy_is_asked(
        self, azure_emulator: AzureEmulator, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
    ) -> None:
        monkeypatch.delenv("AZURE_POD_IDENTITY_AUTHORITY_HOST")
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        assert who(**options)["appid"] == options.get("client_id", SYSTEM_CLIENT_ID)

    @pytest.mark.parametrize(
        "fault", [{"status": 500}, {"status": 429, "retry_after": 1}, {"status": 404}, {"reset": True}]
    )
    @pytest.mark.parametrize("options", [{}, {"client_id": USER.client_id}])
    @pytest.mark.parametrize("is_told_where", [True, False])
    def test_it_stumbles(
        self,
        azure_emulator: AzureEmulator,
        monkeypatch: pytest.MonkeyPatch,
        fault: dict[str, Any],
        options: dict[str, str],
        is_told_where: bool,
    ) -> None:
        if not is_told_where:  # azure-identity's chain probes the usual address
            monkeypatch.delenv("AZURE_POD_IDENTITY_AUTHORITY_HOST")
        azure_emulator.fault(call="GET /metadata/identity/oauth2/token", nth=1, **fault)
        assert who(**options)["appid"] == options.get("client_id", SYSTEM_CLIENT_ID)


@pytest.mark.root
class TestTheAzureCli:
    @pytest.fixture
    def az(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A program in place of the Azure CLI."""
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        program = tmp_path / "az"
        program.touch(0o755)
        return program

    def test_its_login(self, azure_emulator: AzureEmulator, az: Path) -> None:
        answer = {"accessToken": "of the user", "expires_on": 1 << 33, "expiresOn": "2242-03-16 00:00:00.000000"}
        az.write_text(f"#!/bin/sh\necho \"$@\" > {az}.asked\necho '{json.dumps(answer)}'\n")
        found = credential(ImageSpec(use_azure_cli_auth=True, tenant_id=TENANT), None, PUBLIC)
        assert found.get_token(PUBLIC.scope).token == "of the user"
        asked = Path(f"{az}.asked").read_text()
        assert "account get-access-token" in asked and f"--tenant {TENANT}" in asked and PUBLIC.audience in asked

    def test_nobody_is_logged_in(self, azure_emulator: AzureEmulator, az: Path) -> None:
        az.write_text("#!/bin/sh\necho \"Please run 'az login' to setup account.\" >&2\nexit 1\n")
        with pytest.raises(CredentialError, match=r"no token to the Azure CLI's login: (.|\n)*hint: run `az login`"):
            credential(ImageSpec(use_azure_cli_auth=True), None, PUBLIC).get_token(PUBLIC.scope)


@pytest.mark.root
class TestAMachineWithoutIdentity:
    """The commonest mistake. What azure-identity says of it fills a screen, most of it about desktops."""

    @pytest.fixture
    def azure_emulator_accounts(self) -> Accounts:
        return Accounts(system=False)

    def test_it_is_told_in_a_line(self, azure_emulator: AzureEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(CredentialError) as error:
            credential(ImageSpec(), None, PUBLIC).get_token(PUBLIC.scope)
        told = str(error.value)
        assert told.startswith("Azure gives no token to this machine or its environment: EnvironmentCredential ")
        assert "Identity not found; Azure CLI not found" in told and "PowerShell" not in told
        assert told.count("\n") == 1 and "hint: give the virtual machine a managed identity" in told


@pytest.mark.root
def test_no_token_no_request(azure_emulator: AzureEmulator) -> None:
    azure = Azure(credential(ImageSpec(client_id=OTHER_TENANT), None, PUBLIC), calls=Calls())
    disks = azure.compute(azure_emulator.subscription_id).disks
    with pytest.raises(CredentialError, match="Azure gives no token to the managed identity"):
        azure.begin("deleting disk x", disks.begin_delete, "rg1", "x")
    azure.close()
    assert azure.calls.count == 0


@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "named_ones"),
    [
        ({"client_secret": "s", "client_jwt": "j"}, "client_secret and client_jwt"),
        ({"use_azure_cli_auth": True, "client_cert_path": "c"}, "use_azure_cli_auth and client_cert_path"),
        ({"client_secret": "s"}, "client_id is required with client_secret"),
    ],
)
def test_contradictions(azure_emulator: AzureEmulator, options: dict[str, Any], named_ones: str) -> None:
    with pytest.raises(AzureError, match=named_ones):
        credential(ImageSpec(**options), None, PUBLIC)


def test_what_a_credential_depends_on_are_options() -> None:
    assert set(OPTIONS) <= set(ImageSpec.model_fields)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Public", PUBLIC),
        ("azurepubliccloud", PUBLIC),
        ("USGovernmentCloud", US_GOVERNMENT),
        ("AzureChinaCloud", CHINA),
    ],
)
def test_the_azure_that_is_called_so(name: str, found: Environment) -> None:
    assert named(name) == found
    assert environment(ImageSpec(cloud_environment_name=name)) == found


def test_the_azure_that_the_machine_is_in() -> None:
    here = Machine("vm", "s", "rg", "usgovvirginia", "/vm", environment="AzureUSGovernmentCloud")
    assert environment(ImageSpec(), here) == US_GOVERNMENT
    assert environment(ImageSpec(cloud_environment_name="Public"), here) == environment(ImageSpec()) == PUBLIC
    assert US_GOVERNMENT.scope == "https://management.core.usgovcloudapi.net/.default"


def test_no_azure_is_called_so() -> None:
    with pytest.raises(AzchrootError, match="'Mars' is no Azure that is known"):
        named("Mars")


DESCRIBED = {
    "name": "AzureStack",
    "authentication": {
        "loginEndpoint": "https://login.stack.example/",
        "audiences": ["https://management.stack.example/1", "https://other.example"],
    },
    "resourceManager": "https://management.local.example/",
}


def test_an_azure_of_ones_own() -> None:
    public = {"name": "AzureCloud", "authentication": {}, "resourceManager": PUBLIC.resource_manager}
    found = parsed([public, DESCRIBED], "https://management.local.example")
    assert found == Environment(
        "AzureStack",
        "https://login.stack.example",
        "https://management.local.example",
        "https://management.stack.example/1",
        known=False,
    )
    assert parsed([public, DESCRIBED], "https://management.azure.com").known


@pytest.mark.parametrize("answer", [None, [], {}, "text", [{"name": "x"}]])
def test_no_description(answer: Any) -> None:
    with pytest.raises(AzchrootError, match="https://x does not describe an Azure"):
        parsed(answer, "https://x")


@pytest.mark.root
def test_who_describes_an_azure_is_asked(azure_emulator: AzureEmulator) -> None:
    with serving(lambda _: Response.of_json(200, [DESCRIBED]), azure_emulator.assembly.authority, tls=True) as served:
        found = environment(ImageSpec(metadata_host=served.authority))
    assert found.name == "AzureStack" and served.requests[0].path == "/metadata/endpoints"
