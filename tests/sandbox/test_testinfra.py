"""testinfra's modules, unchanged, over a sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_azchroot.sandbox import CommandError, Sandbox
from pytest_azchroot.sandbox.testinfra import make_host

pytestmark = pytest.mark.root


@pytest.fixture
def host(sandbox: Sandbox) -> Any:
    return make_host(sandbox, None)


def test_files(host: Any, sandbox: Sandbox) -> None:
    sandbox.write("/etc/motd", b"hello\n", mode=0o640, owner="worker")
    motd = host.file("/etc/motd")
    assert (motd.is_file, motd.user, motd.mode, motd.content_string) == (True, "worker", 0o640, "hello\n")
    assert host.file("/bin/ash").is_symlink
    assert not host.file("/nosuch").exists


def test_users_and_groups(host: Any) -> None:
    assert host.user("worker").uid == 1234
    assert host.user("worker").groups == ["worker", "extra"]
    assert not host.user("nobody").exists
    assert host.user().name == "root"


def test_processes_are_the_images_own(host: Any, sandbox: Sandbox) -> None:
    sandbox.inside("setsid sleep 1000 &")
    assert "sleep 1000" in host.check_output("ps")
    assert len(host.check_output("ps").splitlines()) < 6


def test_arguments_are_quoted(host: Any) -> None:
    assert host.check_output("echo %s %s", "a  'b", "$HOME") == "a  'b $HOME"
    assert host.run("echo %s", "grüß").stdout == "grüß\n"


def test_codes_and_streams(host: Any) -> None:
    done = host.run("echo out; echo err >&2; exit 3")
    assert (done.rc, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert host.run("false; echo goes on").stdout == "goes on\n"
    assert host.run_test("test -e /nosuch").rc == 1
    with pytest.raises(AssertionError):
        host.run_expect([0], "exit 1")


def test_any_bytes_come_back(host: Any) -> None:
    done = host.run(r"printf '\377\000x'")
    assert (done.stdout, done.stdout_bytes) == ("\ufffd\x00x", b"\xff\x00x")


def test_the_environment_is_the_images(host: Any) -> None:
    assert host.environment()["SYSTEMD_OFFLINE"] == "1"


def test_a_time_limit(sandbox: Sandbox) -> None:
    with pytest.raises(CommandError, match="timed out"):
        make_host(sandbox, 0.3).run("sleep 1000")


def test_each_host_is_fresh(sandbox: Sandbox) -> None:
    assert make_host(sandbox, None) is not make_host(sandbox, None)


def test_outside_of_a_mounted_image_nothing_answers(bare: Sandbox) -> None:
    with pytest.raises(Exception, match="not mounted"):
        make_host(bare, None).file("/etc/passwd").exists  # noqa: B018
