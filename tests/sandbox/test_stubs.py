"""Services that are not started, and an initramfs that is made once, both without a trace in the image."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_azchroot.sandbox import CommandError, Sandbox, stubs

from .machine import run

POLICY = "/usr/sbin/policy-rc.d"
APT = "/etc/apt/apt.conf.d/00azchroot"

INVOKE = f"""
# what invoke-rc.d(8) asks, and what it does then
if [ -x {POLICY} ]; then {POLICY} nginx start || [ $? != 101 ] || exit 0; fi
start-stop-daemon --start --exec /usr/sbin/nginx
"""


def test_each_command_is_made_up_for_once() -> None:
    text = "dracut|-f\nupdate-initramfs|-u\nupdate-initramfs|-c|-k|6.1 x\nupdate-initramfs|-u\ndracut\n"
    assert stubs.deferred(text.replace("|", "\037")) == [
        ["dracut", "-f"],
        ["update-initramfs", "-c", "-k", "6.1 x"],
        ["update-initramfs", "-u"],
        ["dracut"],
    ]


def test_the_stubs_are_scripts_of_a_posix_shell(tmp_path: Path) -> None:
    for name, content in stubs.programs(deny_services=True, defer_initramfs=True).items():
        (tmp_path / name).write_text(content)
        run("sh", "-n", tmp_path / name)


@pytest.fixture
def debian(bare: Sandbox) -> Sandbox:
    """The image with Debian's directories, and programs that say when they run."""
    bare.mount(bare.partition(1))
    program = "#!/bin/sh\\necho \\${0##*/} \\$* >> /opt/ran\\n"
    # busybox's shell runs its own applets whatever PATH says, so the image's shell is another
    libraries = re.findall(r"(/\S+) \(0x", run("ldd", "/bin/dash"))
    bare.outside(
        ["sh", "-ec", 'cp --parents "$@" "$0"; ln -sf dash "$0/bin/sh"', bare.mount_path, "/bin/dash", *libraries]
    )
    names = "start-stop-daemon service rc-service update-initramfs"
    script = (
        "mkdir -p usr/sbin var/lib/dpkg etc/apt/apt.conf.d; rm -f bin/start-stop-daemon\n"
        f'for each in {names}; do printf "{program}" > usr/sbin/$each; chmod 755 usr/sbin/$each; done'
    )
    bare.outside(script, cwd=bare.mount_path)
    return bare


def _lent(sandbox: Sandbox, *, deny_services: bool = True, defer_initramfs: bool = False) -> Sandbox:
    sandbox.lend(None)
    sandbox.lend_stubs(deny_services=deny_services, defer_initramfs=defer_initramfs)
    return sandbox


def _tree(sandbox: Sandbox) -> str:
    return sandbox.outside("find . -mindepth 1 | sort", cwd=sandbox.mount_path).stdout


@pytest.mark.root
@pytest.mark.parametrize(
    "command",
    [
        "start-stop-daemon --start --quiet --exec /bin/sleep -- 1000",
        "start-stop-daemon -q -S -x /bin/sleep",
        "start-stop-daemon -qSx /bin/sleep",
        "service nginx start",
        "service nginx force-reload",
        "rc-service nginx restart",
        "initctl start nginx",
        INVOKE,
    ],
)
def test_no_service_is_started(debian: Sandbox, command: str) -> None:
    _lent(debian).inside(command)
    assert debian.inside("cat /opt/ran", check=False).stdout == ""
    assert debian.survivors() == ()


@pytest.mark.root
@pytest.mark.parametrize("command", ["start-stop-daemon --stop --exec /bin/x", "service nginx status"])
def test_what_starts_nothing_runs(debian: Sandbox, command: str) -> None:
    _lent(debian).inside(command)
    assert debian.read("/opt/ran").decode() == f"{command}\n"


@pytest.mark.root
def test_a_command_that_the_image_lacks_is_missing(debian: Sandbox) -> None:
    with pytest.raises(CommandError, match="exited with 127"):
        _lent(debian).inside("initctl list")


@pytest.mark.root
def test_services_may_be_started_if_wanted(debian: Sandbox) -> None:
    _lent(debian, deny_services=False).inside(INVOKE)
    assert "start-stop-daemon --start" in debian.read("/opt/ran").decode()


@pytest.mark.root
@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("end", [Sandbox.unmount, Sandbox.overlay, Sandbox.seal])
def test_nothing_of_it_ships(debian: Sandbox, end: Callable[[Sandbox], object], literal: bool) -> None:
    before = _tree(debian)
    debian.lend([] if literal else None, resolv_conf="image")
    debian.lend_stubs(deny_services=True, defer_initramfs=True)
    assert debian.inside(f"cat {POLICY} {APT}; command -v start-stop-daemon").stdout.endswith(
        f"{stubs.DIRECTORY}/start-stop-daemon\n"
    )
    end(debian)
    if end is Sandbox.unmount:
        debian.mount(debian.partition(1))
        assert _tree(debian) == before
        return
    path = "echo $PATH; command -v start-stop-daemon; ls /usr/sbin /etc/apt/apt.conf.d; ls -d /run/azchroot*"
    assert "azchroot" not in debian.inside(path, check=False).stdout
    assert debian.inside(f"test -e {POLICY}", check=False).code == 1
    assert debian.writes() == ()


@pytest.mark.root
def test_the_images_own_policy_is_left_alone(debian: Sandbox) -> None:
    debian.write(POLICY, b"#!/bin/sh\nexit 0\n", mode=0o711)
    _lent(debian)
    assert debian.inside(POLICY).code == 0
    debian.unmount()
    debian.mount(debian.partition(1))
    assert debian.inside(f"cat {POLICY}; stat -c %a {POLICY}").stdout == "#!/bin/sh\nexit 0\n711\n"


@pytest.mark.root
@pytest.mark.parametrize("link", ["/etc/alternatives/policy", "nowhere"])
def test_a_policy_that_is_a_link_is_the_images(debian: Sandbox, link: str) -> None:
    debian.inside(["ln", "-s", link, POLICY])
    _lent(debian)
    debian.unmount()
    debian.mount(debian.partition(1))
    assert debian.inside(["readlink", POLICY]).stdout == f"{link}\n"


@pytest.mark.root
def test_packages_replace_what_is_lent(debian: Sandbox) -> None:
    # as dpkg unpacks: beside it, then renamed over it
    _lent(debian)
    unpack = "echo theirs > {0}.dpkg-new; chmod 755 {0}.dpkg-new; mv -f {0}.dpkg-new {0}"
    debian.inside("; ".join(unpack.format(path) for path in (POLICY, "/usr/sbin/start-stop-daemon")))
    debian.unmount()
    debian.mount(debian.partition(1))
    assert debian.inside(f"cat {POLICY} /usr/sbin/start-stop-daemon").stdout == "theirs\ntheirs\n"


@pytest.mark.root
def test_an_initramfs_is_made_once(debian: Sandbox) -> None:
    _lent(debian, defer_initramfs=True)
    debian.inside('update-initramfs -u; update-initramfs -c -k "it\'s"; update-initramfs -u; update-initramfs -u')
    assert debian.inside("cat /opt/ran", check=False).stdout == ""
    debian.make_up()
    debian.make_up()
    assert debian.read("/opt/ran").decode() == "update-initramfs -c -k it's\nupdate-initramfs -u\n"


@pytest.mark.root
def test_an_initramfs_is_removed_at_once(debian: Sandbox) -> None:
    _lent(debian, defer_initramfs=True).inside("update-initramfs -d -k 6.1")
    assert debian.read("/opt/ran").decode() == "update-initramfs -d -k 6.1\n"


@pytest.mark.root
def test_an_initramfs_that_cannot_be_made_says_why(debian: Sandbox) -> None:
    debian.write("/usr/sbin/update-initramfs", b"#!/bin/sh\necho no space; exit 3\n", mode=0o755)
    _lent(debian, defer_initramfs=True).inside("update-initramfs -u")
    with pytest.raises(CommandError, match=r"(?s)update-initramfs -u.*exited with 3.*no space"):
        debian.make_up()


@pytest.mark.root
def test_nothing_is_put_off_unasked(debian: Sandbox) -> None:
    _lent(debian).inside("update-initramfs -u")
    debian.make_up()
    assert debian.read("/opt/ran").decode() == "update-initramfs -u\n"


@pytest.mark.root
def test_a_directory_of_the_build_machine_gets_no_stubs(debian: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    debian.lend([("bind", str(tmp_path / "run"), "/run")], resolv_conf="image")
    debian.lend_stubs(deny_services=True, defer_initramfs=False)
    assert list((tmp_path / "run").iterdir()) == []
    debian.inside(INVOKE)
    assert debian.inside("cat /opt/ran", check=False).stdout == "", "the policy is there all the same"
