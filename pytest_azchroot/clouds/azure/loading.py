"""Loading Azure's SDKs, and what needs them: half a second that only builds on Azure pay, once."""

from __future__ import annotations

import sys
from importlib import import_module

from pytest_azchroot.loading import for_good

_SDKS = ("azure.mgmt.compute", "azure.identity")
_OURS = tuple(f"pytest_azchroot.clouds.azure.{name}" for name in ("credentials", "pending", "preflight", "transport"))


def load() -> None:
    """Load them all, if they are not there yet."""
    if all(name in sys.modules for name in _SDKS):
        return
    with for_good():
        for name in (*_SDKS, *_OURS):
            import_module(name)
