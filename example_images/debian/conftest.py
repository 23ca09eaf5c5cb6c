"""What the steps of this image share."""

from __future__ import annotations

import subprocess

import pytest

LENT = "/run/build-machine.apt.conf"


@pytest.fixture
def install(chroot):
    """Install packages, fetched as the build machine fetches its own.

    Its proxy and the like are lent to apt by a file in /run, which never ships. Services stay stopped: the sandbox sees
    to that.
    """
    settings = subprocess.run(["apt-config", "dump", "Acquire"], check=True, capture_output=True, text=True).stdout
    lent = [line for line in settings.splitlines() if "::IndexTargets" not in line]
    chroot.write_text(LENT, "\n".join([*lent, ""]))

    def run(*packages):
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
        chroot.run(command, env={"APT_CONFIG": LENT})

    return run
