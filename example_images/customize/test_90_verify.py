"""Checks: the addition is there and works, and what the source promised still holds."""

from __future__ import annotations


def test_page_is_the_new_one(host):
    assert host.file("/srv/www/index.html").contains("<title>Customized</title>")


def test_no_log_keeps_addresses(host):
    # nginx writes every log that any level of its configuration names.
    logs = host.check_output("nginx -T 2>/dev/null | grep -E '^\\s*access_log ' | sort --unique").splitlines()
    assert {line.strip() for line in logs} == {
        "access_log /var/log/nginx/access.log anonymous;",
        "access_log off;",  # that of /health
    }


def test_nginx_accepts_its_configuration(host):
    host.run_expect([0], "nginx -t")


def test_machine_has_no_identity_yet(host):
    assert host.file("/etc/machine-id").size == 0


def test_packages_are_whole(host):
    assert host.check_output("dpkg --audit") == ""
