"""What package managers write down, odd things too, and how two lists differ."""

from __future__ import annotations

import pytest

from pytest_azchroot.report.packages import Difference, Package, difference, parse_apk, parse_dpkg, parse_rpm

DPKG = """\
Package: adduser
Status: install ok installed
Architecture: all
Version: 3.134
Conffiles:
 /etc/adduser.conf cc3493ecd2d09837ffdcc3e25fdfff18
Description: add and remove users
 Package: not-a-package
 .
 Version: 9
 Status: install ok installed

Package: libc6
Status: hold ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.36-9+deb12u7

Package: libc6
Status: install ok installed
Architecture: i386
Multi-Arch: same
Version: 2.36-9+deb12u7

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: purged
Status: purge ok not-installed
Architecture: amd64

Package: broken
Status: install ok half-configured
Architecture: amd64
Version: 2

Package: torn
Status: install reinstreq half-installed
Architecture: amd64
Version: 3

Package: man-db
Status: install ok triggers-pending
Architecture: amd64
Version: 2.11.2-2
Triggers-Pending: /usr/share/man

"""


def dpkg(name: str, version: str, architecture: str = "amd64") -> Package:
    return Package(name, version, architecture, "dpkg")


def test_dpkg_lists_what_is_installed() -> None:
    listing = parse_dpkg(DPKG)
    assert listing.packages == [
        dpkg("adduser", "3.134", "all"),
        dpkg("libc6", "2.36-9+deb12u7"),
        dpkg("libc6", "2.36-9+deb12u7", "i386"),
        dpkg("man-db", "2.11.2-2"),
    ]
    assert listing.unfinished == ["broken (half-configured)", "torn (half-installed)"]


@pytest.mark.parametrize(
    "text",
    [
        "PACKAGE: a\nSTATUS: install ok installed\nVERSION: 1\nARCHITECTURE: amd64",  # names know no case, no last newline
        "\n\nPackage:a\nStatus:   install ok installed  \nVersion:\t1\nArchitecture: amd64\n\n\n",
        "Package: a\r\nStatus: install ok installed\r\nVersion: 1\r\nArchitecture: amd64\r\n\r\n",
        "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nDescription: x\n \x85\u2028y\x0cz\n",
        "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nno field at all\n",
    ],
)
def test_dpkg_texts_that_mean_the_same(text: str) -> None:
    assert parse_dpkg(text).packages == [dpkg("a", "1")]


def test_dpkg_versions_have_colons() -> None:
    listing = parse_dpkg(
        "Package: git\nStatus: install ok installed\nVersion: 1:2.39.5-0+deb12u1\nArchitecture: amd64\n"
    )
    assert listing.packages == [dpkg("git", "1:2.39.5-0+deb12u1")]


def test_dpkg_without_a_state_is_not_installed() -> None:
    listing = parse_dpkg("Package: a\nVersion: 1\n")
    assert (listing.packages, listing.unfinished) == ([], ["a (of no state)"])


APK = """\
C:Q1/se1PjO94hYXbfpNR1/61hVORIc=
P:musl
V:1.2.5-r9
A:x86_64
S:407278
T:the musl c library (libc) implementation
p:so:libc.musl-x86_64.so.1=1
F:lib
R:ld-musl-x86_64.so.1
a:0:0:755
Z:Q1u4iN2kEPTYbpCKJAQLxQPTmWpYo=

C:Q1abc=
P:.build-deps
V:20241122.070000
A:noarch

F:stray
R:file
"""


def test_apk_lists_what_is_installed() -> None:
    assert parse_apk(APK).packages == [
        Package("musl", "1.2.5-r9", "x86_64", "apk"),
        Package(".build-deps", "20241122.070000", "noarch", "apk"),
    ]


def test_rpm_answers() -> None:
    text = "bash\t5.2.26-4.el10\tx86_64\nshadow-utils\t2:4.15.0-5.el10\tx86_64\ngpg-pubkey\tfd431d51-4ae0493b\t(none)\nwarning\n"
    assert parse_rpm(text).packages == [
        Package("bash", "5.2.26-4.el10", "x86_64", "rpm"),
        Package("shadow-utils", "2:4.15.0-5.el10", "x86_64", "rpm"),
        Package("gpg-pubkey", "fd431d51-4ae0493b", "", "rpm"),
    ]


@pytest.mark.parametrize("parse", [parse_dpkg, parse_apk, parse_rpm])
def test_nothing_says_nothing(parse: object) -> None:
    assert callable(parse)
    assert parse("").packages == parse("\n\n").packages == parse("\0\xff:\n:\n").packages == []


# -- comparing


def test_a_difference() -> None:
    before = [dpkg("gone", "1"), dpkg("kept", "1"), dpkg("newer", "1"), dpkg("newer", "1", "i386")]
    after = [dpkg("came", "1"), dpkg("kept", "1"), dpkg("newer", "2"), dpkg("newer", "1", "i386")]
    assert difference(before, after) == Difference(
        added=(dpkg("came", "1"),), removed=(dpkg("gone", "1"),), changed=((dpkg("newer", "1"), dpkg("newer", "2")),)
    )


def test_no_difference() -> None:
    assert difference([dpkg("a", "1")], [dpkg("a", "1")]) == Difference()


@pytest.mark.parametrize(
    ("before", "after", "added", "removed", "changed"),
    [
        (["1"], ["1", "2"], ["2"], [], []),
        (["1", "2"], ["2", "3"], [], [], [("1", "3")]),
        (["1", "2"], ["3"], ["3"], ["1", "2"], []),
        (["1", "2"], ["2"], [], ["1"], []),
    ],
)
def test_several_versions_of_one_package(
    before: list[str], after: list[str], added: list[str], removed: list[str], changed: list[tuple[str, str]]
) -> None:
    """As kernels are, with rpm."""

    def kernels(versions: list[str]) -> tuple[Package, ...]:
        return tuple(Package("kernel", version, "x86_64", "rpm") for version in versions)

    found = difference(kernels(before), kernels(after))
    pairs = tuple((kernels([old])[0], kernels([new])[0]) for old, new in changed)
    assert found == Difference(kernels(added), kernels(removed), pairs)


def test_another_architecture_is_another_package() -> None:
    found = difference([dpkg("a", "1", "all")], [dpkg("a", "1", "amd64")])
    assert (len(found.added), len(found.removed), found.changed) == (1, 1, ())
