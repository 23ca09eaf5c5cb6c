"""Tokens for a machine's identities, as the metadata service gives them."""

from __future__ import annotations

import jwt
import pytest

from pytest_azchroot.emulator.imds import Imds

from .azure import ARM, OTHER_USER, SYSTEM, TENANT, USER, USER_ID, VM_ID, Azure
from .metadata import TOKEN_PATH, ask, imds_of


@pytest.fixture
def imds(azure: Azure) -> Imds:
    return azure.imds


# -- identities


def test_a_token_for_the_machine(azure: Azure) -> None:
    status, found = ask(azure.imds, TOKEN_PATH, ("resource", f"{ARM}/"))
    claims = jwt.decode(found["access_token"], options={"verify_signature": False})
    assert status == 200 and {type(value) for value in found.values()} == {str}
    assert found["token_type"] == "Bearer" and found["resource"] == f"{ARM}/" and found["client_id"] == SYSTEM.client_id
    assert int(found["expires_on"]) - int(found["not_before"]) == int(found["expires_in"]) == 86400
    assert claims["xms_mirid"] == VM_ID and claims["oid"] == SYSTEM.object_id and claims["tid"] == TENANT
    assert claims["aud"] == f"{ARM}/" and claims["exp"] == int(found["expires_on"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("client_id", USER.client_id), ("object_id", USER.object_id)),
        *(("msi_res_id", USER_ID), ("mi_res_id", USER_ID), ("msi_res_id", USER_ID.upper())),
    ],
)
def test_a_token_for_an_assigned_identity(imds: Imds, name: str, value: str) -> None:
    status, found = ask(imds, TOKEN_PATH, ("resource", ARM), (name, value))
    assert status == 200 and found["client_id"] == USER.client_id


def test_the_systems_own_by_its_name(imds: Imds) -> None:
    assert ask(imds, TOKEN_PATH, ("resource", ARM), ("client_id", SYSTEM.client_id))[1]["client_id"] == SYSTEM.client_id


def test_the_systems_own_has_no_resource(imds: Imds) -> None:
    assert ask(imds, TOKEN_PATH, ("resource", ARM), ("msi_res_id", VM_ID)) == refused("Identity not found")


def refused(description: str) -> tuple[int, dict[str, str]]:
    return 400, {"error": "invalid_request", "error_description": description}


@pytest.mark.parametrize("name", ["client_id", "object_id", "msi_res_id"])
def test_an_identity_that_is_not_assigned(imds: Imds, name: str) -> None:
    assert ask(imds, TOKEN_PATH, ("resource", ARM), (name, "0" * 8)) == refused("Identity not found")


def test_a_machine_without_identities(azure: Azure) -> None:
    imds = imds_of(azure)
    assert ask(imds, TOKEN_PATH, ("resource", ARM)) == refused("Identity not found")
    assert ask(imds, "/metadata/identity/info") == refused("Identity not found")


def test_the_only_assigned_identity_is_meant(azure: Azure) -> None:
    assert ask(imds_of(azure, USER), TOKEN_PATH, ("resource", ARM))[1]["client_id"] == USER.client_id


def test_of_several_assigned_identities_none_is_meant(azure: Azure) -> None:
    wanted = (
        "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the "
        "token request"
    )
    assert ask(imds_of(azure, USER, OTHER_USER), TOKEN_PATH, ("resource", ARM)) == refused(wanted)


def test_ids_exclude_each_other(imds: Imds) -> None:
    query = (("resource", ARM), ("client_id", USER.client_id), ("object_id", USER.object_id))
    assert ask(imds, TOKEN_PATH, *query)[0] == 400


def test_what_a_token_request_must_have(imds: Imds) -> None:
    assert ask(imds, TOKEN_PATH) == refused("Required query variable 'resource' is missing")
    missing = refused("Required query variable 'api-version' is missing")
    assert ask(imds, TOKEN_PATH, ("resource", ARM), ("api-version", "")) == missing
    no_header = refused("Required metadata header not specified")
    assert ask(imds, TOKEN_PATH, ("resource", ARM), metadata="") == no_header


def test_the_tenant(imds: Imds) -> None:
    assert ask(imds, "/metadata/identity/info") == (200, {"tenantId": TENANT})
