"""Steps: another page, and a web server that forgets who read it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.provision

FILES = Path(__file__).parent / "files"


def test_put_page(chroot):
    chroot.put(FILES / "index.html", "/srv/www/index.html", mode=0o644)


def test_log_anonymously(chroot):
    chroot.put(FILES / "access-log.conf", "/etc/nginx/conf.d/access-log.conf", mode=0o644)
    chroot.run("sed -i 's/^\\s*access_log .*//' /etc/nginx/nginx.conf")
    chroot.run("nginx -t")


def test_clear_mind_of_this_build(chroot):
    chroot.run("find /var/log -type f -delete")
