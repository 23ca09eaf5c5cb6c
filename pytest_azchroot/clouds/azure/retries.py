"""What is asked again where Azure stumbles: at once, then after a moment, a few times."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.core.pipeline.policies import HTTPPolicy
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError, SSLError

from pytest_azchroot.clouds.azure.pace import LONGEST, retry_after

PAUSES = (0.2, 1.0, 2.0, 4.0)
"""Seconds before each attempt after the first, where Azure does not say."""
PATIENCE = LONGEST
"""Seconds that are waited because Azure asks for it; if it asks for more, the request has failed."""
ASK_ONCE = "azchroot_once"
"""The option of a request that is not to be asked again here: who sends it does that."""

_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_NOT_DONE = frozenset({429, 500, 503, 504})
"""After these a POST is sent again, too; as the SDK's own policy does (azure.core.pipeline.policies.RetryPolicy)."""
_WORTH_TELLING = 5.0


def pause(
    *, method: str, attempt: int, status: int | None, sent: bool = True, asked: float | None = None
) -> float | None:
    """Seconds until a request is sent again; None if it is not. Pure.

    Not after a 409, or a 400, even where Azure says when to come back: what to do then depends on what was asked.

    :param attempt: how often it has failed before.
    :param status: None where nobody answered.
    :param sent: False if Azure cannot have got it.
    :param asked: what Azure asks to wait.
    """
    if attempt >= len(PAUSES):
        return None
    if status is None:
        again = not sent or method in _REPEATABLE
    else:
        again = status in (_TRANSIENT if method in _REPEATABLE else _NOT_DONE)
    if not again:
        return None
    if asked is None:
        return PAUSES[attempt]
    return asked if asked <= PATIENCE else None


class Retries(HTTPPolicy[Any, Any]):
    """Sends requests again; in place of the SDK's policy, which does so after any refusal that has Retry-After.

    :param say: hears of long waits.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def send(self, request: Any) -> Any:
        """Of the SDK's protocol."""
        once = request.context.options.pop(ASK_ONCE, False)
        method, transport = request.http_request.method, request.context.transport
        for attempt in _counting():
            request.context["retry_count"] = attempt
            response, error = None, None
            try:
                response = self.next.send(request)
                answer = response.http_response
                asked = retry_after(answer.headers)
                wait = pause(method=method, attempt=attempt, status=answer.status_code, asked=asked)
            except (ServiceRequestError, ServiceResponseError) as failure:
                error, asked = failure, None
                wait = pause(method=method, attempt=attempt, status=None, sent=was_sent(failure))
                if _is_distrusted(failure):
                    wait = None
            if once or wait is None:
                if error is not None:
                    raise error
                return response
            if asked is not None and asked >= _WORTH_TELLING:
                self._say(f"Azure asks to wait {asked:.0f} s")
            transport.sleep(wait)
        raise AssertionError  # attempts end by a pause of None


def was_sent(error: ServiceRequestError | ServiceResponseError) -> bool:
    """Whether somebody may have got a request that was not answered."""
    return not isinstance(_cause(error), (NewConnectionError, ConnectTimeoutError))


def _is_distrusted(error: ServiceRequestError | ServiceResponseError) -> bool:
    """Whether the certificate is not one that we trust, and so will not be later."""
    cause = _cause(error)
    return isinstance(cause, SSLError) and isinstance(cause.args[0], ssl.SSLCertVerificationError)


def _cause(error: ServiceRequestError | ServiceResponseError) -> Any:
    """What urllib3 met. The classes of the libraries above do not say whether a request was sent: where a connection
    ends before the answer, that is a ServiceRequestError over TLS, and a ProxyError through a proxy."""
    inner = error.inner_exception
    cause = inner.args[0] if inner is not None and inner.args else inner
    reason = getattr(cause, "reason", cause)
    return reason.original_error if isinstance(reason, ProxyError) else reason


def _counting() -> Iterator[int]:
    yield from range(len(PAUSES) + 1)
