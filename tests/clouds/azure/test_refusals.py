"""What people are told when Azure refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, DecodeError, HttpResponseError, ServiceRequestError

from pytest_azchroot.clouds.azure.client import Azure
from pytest_azchroot.clouds.azure.credentials import credential
from pytest_azchroot.clouds.azure.environments import PUBLIC, Environment
from pytest_azchroot.clouds.azure.refusals import AzureError, CredentialError, OperationTimeoutError, clean, explained
from pytest_azchroot.emulator.http import Response
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.spec.model import ImageSpec
from tests.emulator.serving import serving

Refused = Callable[..., AzureError]
SCOPE = "/subscriptions/s/resourceGroups/rg1/providers/Microsoft.Compute/disks/x"


@pytest.fixture
def refused(azure_emulator: AzureEmulator) -> Refused:
    """The error that an answer becomes."""

    def ask(status: int, body: Any, headers: dict[str, str] | None = None) -> AzureError:
        answer = Response.of_json(status, body, headers)
        with serving(lambda _: answer, azure_emulator.assembly.authority, tls=True) as served:
            here = Environment("here", PUBLIC.authority, served.url, PUBLIC.audience)
            azure = Azure(credential(ImageSpec(), None, PUBLIC), environment=here)
            with pytest.raises(AzureError) as error, explained("looking at disk x"):
                azure.compute("s").disks.get("rg1", "x")
            azure.close()
        return error.value

    return ask


def body(code: str, message: str, **more: Any) -> dict[str, Any]:
    """As Resource Manager writes it."""
    return {"error": {"code": code, "message": message, **more}}


@pytest.mark.root
class TestAnswers:
    def test_azures_own_words(self, refused: Refused) -> None:
        error = refused(404, body("ResourceNotFound", "The Resource 'x' was not found."))
        assert str(error) == "looking at disk x failed: ResourceNotFound: The Resource 'x' was not found."
        assert (error.status, error.code) == (404, "ResourceNotFound")

    def test_details(self, refused: Refused) -> None:
        details = [{"code": "TooManyRequests", "message": '{"operationGroup":"GetVM30Min"}'}, {"message": "more"}]
        answer = body("OperationNotAllowed", "too many requests", details=details)
        assert str(refused(429, answer, {"Retry-After": "303"})).splitlines() == [
            "looking at disk x failed: OperationNotAllowed: too many requests",
            'TooManyRequests: {"operationGroup":"GetVM30Min"}',
            "more",
            "hint: Azure's rate limit is reached: try again in 303 s, or build fewer images at once",
        ]

    def test_a_missing_role(self, refused: Refused) -> None:
        message = (
            "The client 'c' with object id 'o' does not have authorization to perform action "
            f"'Microsoft.Compute/disks/read' over scope '{SCOPE}' or the scope is invalid."
        )
        assert str(refused(403, body("AuthorizationFailed", message))).splitlines()[-1] == (
            f"hint: give the identity a role that allows Microsoft.Compute/disks/read on {SCOPE}; "
            "a new role takes some minutes to work"
        )

    def test_a_token_of_another_tenant(self, refused: Refused) -> None:
        error = refused(401, body("InvalidAuthenticationTokenTenant", "The access token is from the wrong issuer"))
        assert error.code == "InvalidAuthenticationTokenTenant" and "hint: the token was refused" in str(error)

    @pytest.mark.parametrize("answer", [{}, [], {"error": "no"}, {"hello": "world"}])
    def test_something_that_is_no_error(self, refused: Refused, answer: Any) -> None:
        error = refused(418, answer)
        assert str(error).startswith("looking at disk x failed: HTTP 418: ")
        assert (error.status, error.code) == (418, None)

    def test_signatures_stay_secret(self, refused: Refused) -> None:
        told = str(refused(400, body("Bad", "cannot read https://md-1.blob.core.windows.net/x/abcd?sv=1&sig=SECRET=")))
        assert "https://md-1.blob.core.windows.net/x/abcd" in told and "SECRET" not in told


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("see https://x.example/a?b=c&sig=d%3D.", "see https://x.example/a"),
        ("'https://x.example/a?sig=d' is", "'https://x.example/a' is"),
        ("Max retries exceeded with url: /a/b?api-version=1 (Caused by …)", "Max retries exceeded with url: /a/b (Caused by …)"),
        ("Bearer eyJ0eXAi.eyJhdWQi.c2ln and more", "Bearer (token) and more"),
        ("What? x=1", "What? x=1"),
        ("no URL at all", "no URL at all"),
    ],
)  # fmt: skip
def test_what_opens_doors_is_left_out(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def told(error: Exception) -> AzureError:
    """What an exception of the libraries becomes."""
    with pytest.raises(AzureError) as found, explained("doing it"):
        raise error
    assert found.value.__cause__ is error
    return found.value


def test_no_answer() -> None:
    error = told(ServiceRequestError("connection to /a?b=c refused"))
    assert str(error).startswith("doing it failed: no answer: connection to /a refused\nhint: is Azure's endpoint")
    assert (error.status, error.code) == (None, None)


def test_no_token() -> None:
    error = told(ClientAuthenticationError("DefaultAzureCredential failed\nEnvironmentCredential: no"))
    assert isinstance(error, CredentialError)
    assert "no credential works\nDefaultAzureCredential failed\nEnvironmentCredential: no\nhint: " in str(error)


@pytest.mark.parametrize("error", [HttpResponseError("a"), DecodeError("a")])
def test_no_response_at_all(error: Exception) -> None:
    assert str(told(error)).startswith("doing it failed: a\nhint: it is Azure that has failed: run again")


def test_ours_pass() -> None:
    with pytest.raises(ValueError, match=r"^x$"), explained("doing it"):
        raise ValueError("x")
    with pytest.raises(OperationTimeoutError, match=r"^x$"), explained("doing it"):
        raise OperationTimeoutError("x")


def test_their_family() -> None:
    assert issubclass(OperationTimeoutError, AzureError) and issubclass(AzureError, AzchrootError)
    assert issubclass(CredentialError, AzureError) and AzureError.__module__ == "pytest_azchroot"
