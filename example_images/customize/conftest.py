"""What this image changes in the way images are built.

`image`, `disk`, `chroot` and `host` are ordinary fixtures: one of the same name here is used in their place.
"""

from __future__ import annotations

import pytest


@pytest.fixture(scope="package")
def chroot(chroot):
    """The mounted image, once it is known to be what the steps were written for."""
    release = chroot.read_text("/etc/os-release")
    if "VERSION_CODENAME=bookworm" not in release:
        pytest.fail(f"source is not Debian 12, for which these steps are written:\n{release}", pytrace=False)
    return chroot
