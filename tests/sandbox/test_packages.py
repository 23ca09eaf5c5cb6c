"""The packages of a mounted image, also of one that lies."""

from __future__ import annotations

import pytest

from pytest_azchroot.report import packages
from pytest_azchroot.report.packages import Package, read_packages
from pytest_azchroot.sandbox import Sandbox

pytestmark = pytest.mark.root

STATUS = b"Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"
QUERY = r"%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\n"


def rpm(sandbox: Sandbox, script: str) -> None:
    sandbox.write("/var/lib/rpm/rpmdb.sqlite", b"database")
    sandbox.write("/usr/bin/rpm", f"#!/bin/sh\n{script}\n".encode(), mode=0o755)


def test_an_image_without_a_package_manager_says_so(sandbox: Sandbox) -> None:
    found = read_packages(sandbox)
    assert (found.packages, found.managers) == ((), ())
    assert found.notes == ("no package manager was found (dpkg, apk, rpm)",)


def test_every_manager_is_heard(sandbox: Sandbox) -> None:
    sandbox.write("/var/lib/dpkg/status", STATUS)
    sandbox.write("/usr/lib/apk/db/installed", b"P:b\nV:2\nA:x86_64\n")
    rpm(sandbox, f"[ \"$*\" = '-qa --qf {QUERY}' ] && printf 'c\\t3-1\\tnoarch\\n'; echo grumble >&2")
    found = read_packages(sandbox)
    assert found.packages == (
        Package("a", "1", "all", "dpkg"),
        Package("b", "2", "x86_64", "apk"),
        Package("c", "3-1", "noarch", "rpm"),
    )
    assert (found.managers, found.notes) == (("dpkg", "apk", "rpm"), ())


def test_packages_that_are_half_there_are_named(sandbox: Sandbox) -> None:
    sandbox.write("/var/lib/dpkg/status", STATUS.replace(b"ok installed", b"ok unpacked"))
    found = read_packages(sandbox)
    assert (found.packages, found.notes) == ((), ("dpkg: not fully installed: a (unpacked)",))


def test_rpm_is_not_asked_without_a_database(sandbox: Sandbox) -> None:
    """It would make one."""
    rpm(sandbox, "echo asked >/asked")
    sandbox.write("/var/lib/rpm/rpmdb.sqlite", b"")
    assert read_packages(sandbox).managers == ()
    assert sandbox.inside("test -e /asked", check=False).code == 1


@pytest.mark.parametrize(
    ("script", "note"),
    [
        ("echo no such luck >&2; exit 3", "no such luck"),
        ("exec yes", "which is no list of packages"),
        ("sleep 1000", "timed out"),
        (None, "there is no such command"),
    ],
)
def test_an_rpm_that_fails_is_a_note(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, script: str | None, note: str
) -> None:
    monkeypatch.setattr(packages, "LIMIT", 1 << 20)
    if script == "sleep 1000":
        monkeypatch.setattr(packages, "PATIENCE", 0.5)
    rpm(sandbox, script or "")
    if script is None:
        sandbox.inside("rm /usr/bin/rpm /bin/rpm")  # busybox has one too
    sandbox.write("/var/lib/dpkg/status", STATUS)
    found = read_packages(sandbox)
    assert found.managers == ("dpkg",)
    assert len(found.notes) == 1
    assert found.notes[0].startswith("rpm: ")
    assert note in found.notes[0]
    assert sandbox.survivors() == ()


@pytest.mark.parametrize(
    ("make", "note"),
    [
        ("truncate -s 4G status", "has more than 64 MiB, which is no list of packages"),
        ("mkfifo status", "a FIFO"),
        ("mkdir status", "a directory"),
        ("ln -s /dev/zero status", "a character device"),
        ("ln -s status status", "ymbolic link"),
    ],
)
def test_a_list_that_is_none_is_a_note(sandbox: Sandbox, make: str, note: str) -> None:
    sandbox.inside(f"mkdir -p /var/lib/dpkg; cd /var/lib/dpkg; {make}")
    found = read_packages(sandbox)
    assert (found.packages, found.managers) == ((), ())
    assert len(found.notes) == 1
    assert note in found.notes[0]
