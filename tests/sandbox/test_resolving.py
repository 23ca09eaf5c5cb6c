"""Name resolution is lent, and /etc/resolv.conf is afterwards what it was, or what a step made of it on purpose."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import Sandbox

pytestmark = pytest.mark.root

STUB = "../run/systemd/resolve/stub-resolv.conf"
FORMS = {
    "absent": "",
    "a file": "echo 'nameserver 192.0.2.1' > etc/resolv.conf; chown 5:6 etc/resolv.conf; chmod 640 etc/resolv.conf",
    "an empty file": ": > etc/resolv.conf",
    "a hard link": "echo old > etc/twin; ln etc/twin etc/resolv.conf",
    "a link into /run": f"ln -s {STUB} etc/resolv.conf",
    "an absolute link into /run": "ln -s /run/systemd/resolve/resolv.conf etc/resolv.conf",
    "a link that dangles": "ln -s /etc/elsewhere/resolv.conf etc/resolv.conf",
    "a link to a file": "mkdir etc/real; echo old > etc/real/conf; ln -s real/conf etc/resolv.conf",
    "a link to a link": "echo old > etc/one; ln -s one etc/two; ln -s /etc/two etc/resolv.conf",
    "a link to itself": "ln -s resolv.conf etc/resolv.conf",
    "a link below a file": "ln -s passwd/resolv.conf etc/resolv.conf",
    "a link to a directory": "mkdir etc/real; ln -s real etc/resolv.conf",
}


def _mounted(sandbox: Sandbox) -> str:
    sandbox.mount(sandbox.partition(1))
    return sandbox.mount_path


def _listing(sandbox: Sandbox) -> str:
    """What is in /etc: names, types, modes, owners, inodes, links and content; and when files were written."""
    shown = "find . | sort | xargs stat -c '%n %f %u:%g %i %h %N'; find . ! -type d | sort | xargs stat -c %Y; "
    shown += "cat $(find . -type f | sort)"
    return sandbox.outside(shown, cwd=f"{sandbox.mount_path}/etc").stdout


@pytest.mark.parametrize("form", FORMS)
def test_what_was_there_is_there_again(bare: Sandbox, form: str) -> None:
    root = _mounted(bare)
    bare.outside(FORMS[form], cwd=root)
    before = _listing(bare)
    bare.lend(None)
    assert bare.inside("cat /etc/resolv.conf", user="worker").stdout == Path("/etc/resolv.conf").read_text()
    bare.unmount()
    _mounted(bare)
    assert _listing(bare) == before


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("rm -f /etc/resolv.conf; echo mine > /etc/resolv.conf", "file mine"),
        ("echo mine > /etc/new; mv /etc/new /etc/resolv.conf", "file mine"),
        ("echo mine > /etc/resolv.conf.dpkg-new; mv -f /etc/resolv.conf.dpkg-new /etc/resolv.conf", "file mine"),
        (f"ln -snf {STUB} /etc/resolv.conf", f"link {STUB}"),
        ("rm /etc/resolv.conf", "nothing"),
        ("rm /etc/resolv.conf; mkdir /etc/resolv.conf", "directory"),
    ],
)
def test_what_a_step_makes_of_it_stays(bare: Sandbox, form: str, step: str, expected: str) -> None:
    root = _mounted(bare)
    bare.outside(FORMS[form], cwd=root)
    bare.lend(None)
    bare.inside(step)
    bare.unmount()
    path = f"{_mounted(bare)}/etc/resolv.conf"
    found = bare.outside(
        'if [ -L "$0" ]; then echo "link $(readlink "$0")"; elif [ -d "$0" ]; then echo directory; '
        'elif [ -f "$0" ]; then echo "file $(cat "$0")"; else echo nothing; fi'.replace("$0", path)
    )
    assert found.stdout.strip() == expected
    assert "azchroot" not in bare.outside(f"ls -A {os.path.dirname(path)}").stdout


def test_a_link_of_a_step_goes_on_resolving(bare: Sandbox) -> None:
    _mounted(bare)
    bare.lend(None)
    bare.inside(f"ln -sf {STUB} /etc/resolv.conf")
    assert bare.inside("cat /etc/resolv.conf").stdout == Path("/etc/resolv.conf").read_text()


def test_a_file_that_is_written_to_keeps_its_mode_and_owner(bare: Sandbox) -> None:
    root = _mounted(bare)
    bare.outside(FORMS["a file"], cwd=root)
    bare.lend(None)
    bare.inside("echo mine > /etc/resolv.conf")
    bare.unmount()
    found = bare.outside(["stat", "-c", "%a %u:%g %s", f"{_mounted(bare)}/etc/resolv.conf"])
    assert found.stdout == "640 5:6 5\n"


@pytest.mark.parametrize(
    "step",
    [
        "mv /etc/resolv.conf /etc/x; mv /etc/x /etc/resolv.conf",
        "sed -i s/a/a/ /etc/resolv.conf",
        "cp /etc/resolv.conf /tmp/x; echo mine > /etc/resolv.conf; cat /tmp/x > /etc/resolv.conf; rm /tmp/x",
        "touch /etc/resolv.conf",
    ],
)
def test_name_servers_of_the_build_machine_do_not_ship(bare: Sandbox, step: str) -> None:
    root = _mounted(bare)
    bare.outside(FORMS["a file"], cwd=root)
    before = _listing(bare)
    bare.lend(None)
    bare.inside(step)
    bare.unmount()
    _mounted(bare)
    assert _listing(bare) == before


def test_a_directory_of_the_build_machine_is_left_alone(bare: Sandbox, tmp_path: Path) -> None:
    theirs = tmp_path / "resolve" / "stub-resolv.conf"
    theirs.parent.mkdir()
    theirs.write_text("of the build machine\n")
    root = _mounted(bare)
    bare.outside("ln -s ../opt/shared/stub-resolv.conf etc/resolv.conf", cwd=root)
    bare.lend([("bind", str(theirs.parent), "/opt/shared")])
    assert bare.inside("cat /etc/resolv.conf").stdout == "of the build machine\n"
    bare.unmount()
    assert (theirs.read_text(), os.listdir(theirs.parent)) == ("of the build machine\n", [theirs.name])


@pytest.mark.parametrize("cover", [Sandbox.overlay, Sandbox.seal])
def test_a_check_sees_it_as_it_ships(bare: Sandbox, cover: Callable[[Sandbox], object]) -> None:
    root = _mounted(bare)
    bare.outside(FORMS["a file"], cwd=root)
    bare.lend(None)
    cover(bare)
    assert bare.inside("cat /etc/resolv.conf; stat -c '%a %u' /etc/resolv.conf").stdout == (
        "nameserver 192.0.2.1\n640 5\n"
    )
    assert bare.inside("ls -A /etc").stdout.split() == ["group", "passwd", "resolv.conf"]
    assert bare.writes() == ()


def test_a_check_may_have_the_network(bare: Sandbox) -> None:
    root = _mounted(bare)
    bare.outside(FORMS["a file"], cwd=root)
    bare.lend(None)
    bare.seal(resolv_conf="host")
    assert bare.inside("cat /etc/resolv.conf").stdout == Path("/etc/resolv.conf").read_text()
    assert bare.writes() == ()


def test_a_directory_in_its_place_is_said(bare: Sandbox) -> None:
    root = _mounted(bare)
    bare.outside("mkdir etc/resolv.conf", cwd=root)
    with pytest.raises(SandboxError, match=r"Is a directory: /etc/resolv\.conf"):
        bare.lend(None)


@pytest.mark.parametrize("there", [True, False])
def test_an_image_that_is_mounted_read_only(bare: Sandbox, there: bool) -> None:
    root = _mounted(bare)
    if there:
        bare.outside(FORMS["a file"], cwd=root)
    bare.outside("mkdir dev proc sys run", cwd=root)
    bare.unmount()
    bare.mount(bare.partition(1), options=["ro"])
    bare.lend(None)
    found = bare.inside("cat /etc/resolv.conf", check=False)
    assert found.stdout == (Path("/etc/resolv.conf").read_text() if there else "")
    bare.unmount()
