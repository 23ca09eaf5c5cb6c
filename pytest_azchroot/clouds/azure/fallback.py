"""Attaching where ``attachDetachDataDisks`` is not there yet: the machine's whole list of data disks is replaced.

That list is everybody's: who writes an old one detaches the disks of others. So it is written only if the machine is
still as it was read (its etag), entries that are not ours go back as they came, and nobody begins the next change
before this one has ended.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence

from pytest_azchroot.clouds.azure.asking import Asking, Json, Model, failure
from pytest_azchroot.clouds.azure.buckets import POLLS, Budget
from pytest_azchroot.clouds.azure.courses import Course, course
from pytest_azchroot.clouds.azure.luns import disk_key
from pytest_azchroot.clouds.azure.queue import Failure, Request
from pytest_azchroot.clouds.azure.refusals import AzureError

_FLOOR, _SHARE, _CEILING = 0.5, 0.1, 10.0
_FAILED = 409


def goal(entries: Sequence[Json], *, attach: Iterable[tuple[Request, int]], detach: Collection[str]) -> list[Json]:
    """The list as it shall be. Pure.

    :param entries: what the machine has now, of managed disks and page blobs.
    :param attach: disks, with LUNs.
    :param detach: disks, by key.
    """
    kept = [{**each, "toBeDetached": True} if disk_key(each) in detach else each for each in entries]
    return [*kept, *(_entry(request, lun) for request, lun in attach)]


def _entry(request: Request, lun: int) -> Json:
    return {
        "lun": lun,
        "name": request.disk.rsplit("/", 1)[-1],
        "createOption": "Attach",
        "caching": request.caching,
        "deleteOption": "Detach",
        "managedDisk": {"id": request.disk},
    }


def replaced(asking: Asking, budget: Budget, model: Model, data_disks: list[Json], *, timeout: float) -> None:
    """Write the list, and wait until that is done.

    :raises AzureError: it was refused, or has failed, or takes too long.
    """
    url = asking.replace(data_disks, etag=model.etag)
    began = time.monotonic()
    while url is not None:
        elapsed = time.monotonic() - began
        if elapsed > timeout:
            raise AzureError("changing the data disks takes too long", why=f"no end of it after {timeout:.0f} s")
        time.sleep(min(max(_FLOOR, _SHARE * elapsed), _CEILING))
        if not budget.take(POLLS):
            continue
        try:
            heard = asking.operation(url)
        except AzureError as error:
            if course(failure(error)) is Course.LATER:
                continue
            raise
        if heard.failure is not None:
            raise failed(heard.failure)
        if heard.ended:
            return


def failed(found: Failure) -> AzureError:
    """A failed operation, like a refusal: the change was not made."""
    return AzureError(found.what, why=found.why, hint=found.hint, status=_FAILED, code=found.code)
