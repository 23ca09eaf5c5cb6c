"""Who can log in, and what others are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulator.azure import CLIENT, OTHER_USER, SECRET, TENANT, federated

from .cli import Cli

pytestmark = pytest.mark.root

APPLICATION = f"login --service-principal --username {CLIENT} --tenant {TENANT}"


def test_the_machines_identity(az: Cli) -> None:
    found = az("account show")
    assert (found["user"]["name"], found["tenantId"]) == ("systemAssignedIdentity", TENANT)


def test_an_identity_assigned_to_it(az: Cli) -> None:
    builder = az.as_("builder")
    builder(f"login --identity --client-id {OTHER_USER.client_id}")
    assert [each["name"] for each in builder("vm list")] == ["vm1"]


def test_an_application_by_its_secret(az: Cli) -> None:
    application = az.as_("secret")
    application(f"{APPLICATION} --password {SECRET}")
    assert application("account get-access-token")["tenant"] == TENANT
    assert [each["name"] for each in application("vm list")] == ["vm1"]


def test_an_application_by_its_certificate(az: Cli, certificate: Path) -> None:
    application = az.as_("certificate")
    application(f"{APPLICATION} --certificate", certificate)
    assert application("group exists --name rg1") is True


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{APPLICATION} --password wrong", "AADSTS7000215: Invalid client secret provided."),
        (f"{APPLICATION.replace(CLIENT, TENANT)} --password x", "AADSTS700016: Application with identifier"),
        (f"{APPLICATION.replace(TENANT, CLIENT)} --password x", "not found"),
        (f"login --identity --client-id {CLIENT}", "Identity not found"),
    ],
)
def test_who_is_refused(az: Cli, line: str, said: str) -> None:
    assert said in az.as_("refused").mistake(line)


def test_a_federated_assertion_of_nobody_known(az: Cli) -> None:
    assert "AADSTS7002" in az.as_("refused").mistake(f"{APPLICATION} --federated-token", federated())
