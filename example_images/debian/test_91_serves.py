"""Checks: will it do what it is for?"""

from __future__ import annotations


def test_nginx_starts_with_the_machine(host):
    assert host.package("nginx-light").is_installed
    assert host.service("nginx").is_enabled


def test_nginx_accepts_its_configuration(host):
    host.run_expect([0], "nginx -t")


def test_unit_is_sound(host):
    # A key that systemd does not know is only a warning in the journal of a machine that runs: here it is an error.
    verified = host.run("systemd-analyze verify --man=no nginx.service")
    assert (verified.rc, verified.stderr) == (0, "")


def test_unit_is_confined(host):
    # systemd's own measure, from 0 (safe) to 100; the package's unit alone has 96.
    host.run_expect([0], "systemd-analyze security --offline=yes --threshold=40 nginx.service")


def test_our_site_is_the_only_one(host):
    assert host.file("/etc/nginx/sites-enabled").listdir() == ["site"]


def test_pages_can_be_read_by_the_server(host):
    # A umask of 077 on the build machine is enough to ship a site of 403s.
    host.run_expect([0], "runuser -u www-data -- cat /srv/www/index.html")
