"""Checks: does the image carry anything of this build, or anything that every machine would share?"""

from __future__ import annotations


def test_packages_are_whole(host):
    assert host.check_output("dpkg --audit") == ""
    states = host.check_output("dpkg-query --show --showformat='${db:Status-Abbrev}\n'").split("\n")
    assert {state.strip() for state in states} == {"ii"}


def test_packages_come_from_debian(host):
    # Whatever mirror and proxy this build used.
    sources = host.check_output("cat /etc/apt/sources.list.d/*.sources")
    uris = {line for line in sources.splitlines() if line.startswith("URIs:")}
    assert uris == {"URIs: http://deb.debian.org/debian", "URIs: http://deb.debian.org/debian-security"}
    assert not host.file("/etc/apt/sources.list").exists
    assert host.check_output("find /etc/apt/preferences.d /etc/apt/auth.conf.d -type f") == ""


def test_apt_has_no_settings_of_the_build_machine(host):
    # A proxy would break the machine's updates; Check-Valid-Until "false" would let it be fed old ones.
    assert host.check_output("apt-config dump | grep -iE '^Acquire::.*(proxy|valid-until|check-date)' || true") == ""
    unowned = "for file in /etc/apt/apt.conf.d/*; do dpkg-query --search $file >/dev/null || echo $file; done"
    assert host.check_output(unowned) == ""


def test_services_may_start(host):
    # Builders deny it while packages are installed; left behind, every later installation would be mute.
    assert not host.file("/usr/sbin/policy-rc.d").exists


def test_nobody_can_log_in_yet(host):
    # No default credentials: who starts the machine brings a key or a password.
    accounts = [line.split(":") for line in host.file("/etc/shadow").content_string.splitlines()]
    assert [name for name, password, *_ in accounts if password[:1] not in ("*", "!")] == []
    keys = "find / -xdev -name authorized_keys -o -xdev -path '/etc/ssh/ssh_host_*'"
    assert host.check_output(keys) == ""


def test_machine_has_no_identity_yet(host):
    assert host.file("/etc/machine-id").size == 0
    assert not host.file("/var/lib/dbus/machine-id").exists
    assert not host.file("/var/lib/systemd/random-seed").exists


def test_name_is_not_the_build_machines(host, image):
    name = image.variables["hostname"]
    assert host.file("/etc/hostname").content_string == f"{name}\n"
    assert name in host.file("/etc/hosts").content_string.split()


def test_no_caches_or_logs(host):
    assert host.check_output("find /var/lib/apt/lists /var/cache/apt/archives /var/log -type f -size +0") == ""


def test_resolver_is_asked_by_stub(host):
    # Not the build machine's name servers.
    assert host.check_output("readlink /etc/resolv.conf").endswith("/run/systemd/resolve/stub-resolv.conf")


def test_disk_has_room(host):
    # Updates, above all of the kernel, need about as much again as /boot and its modules hold.
    free = int(host.check_output("df --output=avail --block-size=1M / | tail -1"))
    assert free > 500
