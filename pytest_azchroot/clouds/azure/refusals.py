"""Azure's refusals, told to people: its code and words, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_azchroot.clouds.azure.pace import retry_after
from pytest_azchroot.errors import AzchrootError

if TYPE_CHECKING:
    from azure.core.exceptions import HttpResponseError


class AzureError(AzchrootError):
    """Azure refused, or did not answer.

    :param status: the HTTP status; None where nobody answered, so that what was asked may have been done, and where an
        operation failed after it had been accepted.
    :param code: Azure's name for what is wrong, like ``DiskAlreadyAttached``; None where it gave none.
    """

    __module__ = "pytest_azchroot"

    def __init__(
        self,
        what: str,
        *,
        why: str | None = None,
        hint: str | None = None,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.status = status
        self.code = code

    @property
    def is_missing(self) -> bool:
        """Whether what was asked about is not there."""
        return self.status == _MISSING

    @property
    def is_busy(self) -> bool:
        """Whether the same may be taken a moment later: something else goes on with the resource."""
        return self.status == _BUSY and self.code not in _FOR_GOOD


class OperationTimeoutError(AzureError):
    """Azure did not finish in time. It may yet."""

    __module__ = "pytest_azchroot"


class CredentialError(AzureError):
    """Azure, or the machine, gives us no token."""

    __module__ = "pytest_azchroot"


_MISSING, _BUSY, _TOO_MANY = 404, 409, 429
_LOCKED = "ScopeLocked"  # terraform-provider-azurerm#17478
_FOR_GOOD = {_LOCKED, "PropertyChangeNotAllowed"}
"""Codes of 409 that no waiting changes."""
_CREDENTIAL_HINT = (
    "check client_id, client_secret and their like in image.yaml, or give the virtual machine a managed identity "
    "with a role on the resource group"
)
_LOCK_HINT = "remove the resource lock, or let builds work in a resource group that has none"
_UNREACHABLE_HINT = (
    "is Azure's endpoint reachable from here? HTTPS_PROXY and NO_PROXY say how, REQUESTS_CA_BUNDLE whom to trust"
)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Exceptions of Azure's libraries inside become errors that say what to do.

    :param doing: what is done, as in ``creating disk x``.
    :raises AzureError: Azure refused, or did not answer.
    """
    from azure.core import exceptions as azure  # noqa: PLC0415 - it is slow to import

    try:
        yield
    except azure.ClientAuthenticationError as error:
        if error.response is None or error.status_code != 401:
            raise _no_token(doing, error) from error
        raise refusal(doing, error) from error
    except azure.HttpResponseError as error:
        raise refusal(doing, error) from error
    except azure.AzureError as error:
        why = clean(str(error.message))
        raise AzureError(f"{doing} failed", why=f"no answer: {why}", hint=_UNREACHABLE_HINT) from error


def refusal(doing: str, error: HttpResponseError) -> AzureError:
    """What Azure's answer says."""
    status = error.status_code if isinstance(error.status_code, int) else None
    found = getattr(error, "error", None)
    code = getattr(found, "code", None)
    message = getattr(found, "message", None) or error.message
    details = [_detail(each) for each in getattr(found, "details", None) or ()]
    why = clean("\n".join([f"{code}: {message}" if code else str(message), *filter(None, details)]))
    if code is None and status is not None:
        why = f"HTTP {status}: {why}"
    headers: Mapping[str, str] = getattr(error.response, "headers", None) or {}
    hint = _LOCK_HINT if code == _LOCKED else _hint(status, str(message), headers)
    accepted = status is not None and status < 400
    return AzureError(f"{doing} failed", why=why, hint=hint, status=None if accepted else status, code=code)


def clean(text: str) -> str:
    """A text without what opens doors: the queries of URLs, which may be signatures, and tokens. Pure."""
    text = re.sub(r"(?<=[\w/.~%-])\?[\w.~%$-]+=[^\s\"'<>)]*", "", text)
    return re.sub(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*", "(token)", text)


def _detail(detail: Any) -> str | None:
    code, message = getattr(detail, "code", None), getattr(detail, "message", None)
    return ": ".join(str(each) for each in (code, message) if each) or None


def _hint(status: int | None, message: str, headers: Mapping[str, str]) -> str | None:
    if status == 401:
        return (
            "the token was refused: is the credential of the subscription's tenant, and is this machine's clock right?"
        )
    if status == 403:
        action = re.search(r"perform action '([^']+)'", message)
        scope = re.search(r"over scope '([^']+)'", message)
        needed = "the action" if action is None else action[1]
        where = "the resource group" if scope is None else scope[1]
        return f"give the identity a role that allows {needed} on {where}; a new role takes some minutes to work"
    if status == _TOO_MANY:
        pause = retry_after(headers)
        when = "later" if pause is None else f"in {pause:.0f} s"
        return f"Azure's rate limit is reached: try again {when}, or build fewer images at once"
    if status == _BUSY:
        return "something else goes on with it, or with what it is part of: see what, and run again"
    if status is None or status < 400 or status >= 500:
        return "it is Azure that has failed: run again, later if it says the same"
    return None


def _no_token(doing: str, error: Exception) -> CredentialError:
    lines: Sequence[str] = clean(str(getattr(error, "message", error))).strip().splitlines()
    return CredentialError(f"{doing} failed", why="\n".join(["no credential works", *lines]), hint=_CREDENTIAL_HINT)
