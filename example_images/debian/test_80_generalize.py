"""Steps: take out what belongs to this build, or would be the same on every machine made of the image."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.provision

FILES = Path(__file__).parent / "files"


def test_public_sources(chroot):
    chroot.put(FILES / "debian.sources", "/etc/apt/sources.list.d/debian.sources", mode=0o644)
    chroot.run("rm /etc/apt/sources.list")


def test_drop_caches_and_logs(chroot):
    chroot.run("apt-get clean && rm -rf /var/lib/apt/lists/*")
    chroot.run("find /var/log -type f -delete")


def test_drop_identity(chroot):
    # An empty machine-id, not an absent one: systemd fills it in at each machine's first start.
    chroot.run("rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /var/lib/systemd/random-seed")
    chroot.write_text("/etc/machine-id", "", mode=0o444)
