"""What can go wrong with a call, or with an operation."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_azchroot.emulator.errors import ArmError
from pytest_azchroot.emulator.hooks import OperationFault, Reset
from pytest_azchroot.emulator.http import Response

ENDLESS = "endless"


@dataclass(frozen=True)
class CallFault:
    """What becomes of a call."""

    status: int | None = None
    """None: the connection is reset."""
    retry_after: int | None = None
    always: bool = False
    """Of all later calls of the name, too."""
    done: bool = False
    """It has been carried out."""

    @property
    def answer(self) -> Response | Reset:
        """What is answered."""
        if self.status is None:
            return Reset()
        codes = {409: "Conflict", 429: "TooManyRequests"}
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        code = codes.get(self.status, "InternalServerError")
        return ArmError(self.status, code, "A fault, as planned.", headers=headers).response


OF_CALLS = {
    "500": CallFault(500),
    "500 always": CallFault(500, always=True),
    "429": CallFault(429, retry_after=1),
    "429 always": CallFault(429, retry_after=1, always=True),
    "409": CallFault(409),
    "409 always": CallFault(409, always=True),
    "reset": CallFault(),
    "reset always": CallFault(always=True),
    "lost": CallFault(done=True),
    "lost always": CallFault(done=True, always=True),
}
"""By name. ``lost`` are those whose answer does not arrive."""
OF_OPERATIONS = {
    "failed": OperationFault(ArmError(500, "InternalExecutionError", "A fault, as planned.")),
    "conflict": OperationFault(
        ArmError(409, "Conflict", "The request failed due to conflict with a concurrent request.")
    ),
    "late": OperationFault(delay=4.0),
    ENDLESS: OperationFault(endless=True),
    "no device": OperationFault(no_device=True),
}
"""By name. What is late ends when the build has given it up; what is endless ends when the test says so."""
