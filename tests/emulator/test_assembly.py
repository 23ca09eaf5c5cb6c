"""The parts together: a client with nothing but the proxy's variables has its identity, its token and its resources."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential, ManagedIdentityCredential
from azure.mgmt.compute import ComputeManagementClient

from pytest_azchroot.emulator.assembly import Accounts, Assembly, assembled
from pytest_azchroot.emulator.imds import NO_LIMITS
from pytest_azchroot.emulator.settings import Settings
from pytest_azchroot.emulator.tenant import Application

from .azure import CLIENT, OTHER_USER, SCOPE, SECRET, claims

DISK = {"location": "westus2", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 4}}


@pytest.fixture
def whole(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Assembly]:
    accounts = Accounts(applications=[Application(CLIENT, CLIENT, [SECRET])], users=[OTHER_USER])
    found = assembled(settings, accounts=accounts, limits=NO_LIMITS)
    with found.emulator:
        monkeypatch.setenv("HTTP_PROXY", found.emulator.url)
        monkeypatch.setenv("HTTPS_PROXY", found.emulator.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(found.authority.certificate_file))
        yield found


def test_a_machine_makes_a_disk(whole: Assembly, settings: Settings) -> None:
    with ComputeManagementClient(ManagedIdentityCredential(), settings.subscription, polling_interval=0.05) as client:
        made = client.disks.begin_create_or_update("rg1", "d1", DISK).result()  # type: ignore[call-overload]
        assert made.disk_size_gb == 4
        assert [disk.name for disk in client.disks.list_by_resource_group("rg1")] == ["d1"]


def test_an_application_reads_the_machine(whole: Assembly, settings: Settings) -> None:
    credential = ClientSecretCredential(settings.tenant, CLIENT, SECRET)
    with ComputeManagementClient(credential, settings.subscription) as client:
        assert client.virtual_machines.get("rg1", settings.machine.name).id == settings.machine_id


def test_the_machines_token_names_it(whole: Assembly, settings: Settings) -> None:
    found = claims(ManagedIdentityCredential().get_token(SCOPE).token)
    assert found["xms_mirid"] == settings.machine_id and found["tid"] == settings.tenant


def test_a_token_for_something_else_is_refused(whole: Assembly, settings: Settings) -> None:
    with (
        ComputeManagementClient(
            ManagedIdentityCredential(), settings.subscription, credential_scopes=["https://vault.azure.net/.default"]
        ) as client,
        pytest.raises(HttpResponseError) as refused,
    ):
        client.disks.get("rg1", "d1")
    assert refused.value.status_code == 401 and "InvalidAuthenticationTokenAudience" in str(refused.value)


def test_the_metadata_is_that_of_the_machine(whole: Assembly, settings: Settings) -> None:
    url = "http://169.254.169.254/metadata/instance/compute?api-version=2021-02-01"
    found = requests.get(url, headers={"Metadata": "true"}, timeout=10).json()
    assert found["resourceId"] == settings.machine_id and found["vmId"] == settings.vm_id


def test_it_speaks_tls_too(whole: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = f"https://127.0.0.1:{whole.emulator.ports[1]}/metadata/versions"
    assert requests.get(url, headers={"Metadata": "true"}, timeout=10).status_code == 200


def test_a_web_page_with_a_name_for_this_machine(whole: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    headers = {"Metadata": "true", "Host": "page.example"}
    assert requests.get(f"{whole.emulator.url}/metadata/versions", headers=headers, timeout=10).status_code == 403
