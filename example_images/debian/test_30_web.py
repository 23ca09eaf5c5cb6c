"""Steps: the service that this machine is for."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.provision

FILES = Path(__file__).parent / "files"


def test_install_nginx(install):
    install("nginx-light")


def test_site(chroot):
    chroot.put(FILES / "site.conf", "/etc/nginx/sites-available/site", mode=0o644)
    chroot.put(FILES / "index.html", "/srv/www/index.html", mode=0o644)
    chroot.run("ln -s ../sites-available/site /etc/nginx/sites-enabled/site")
    chroot.run("rm /etc/nginx/sites-enabled/default")
    chroot.run("nginx -t")  # also makes the directories that it will need


def test_confine_and_enable_nginx(chroot):
    chroot.put(FILES / "confine.conf", "/etc/systemd/system/nginx.service.d/confine.conf", mode=0o644)
    chroot.run("systemctl enable nginx")
