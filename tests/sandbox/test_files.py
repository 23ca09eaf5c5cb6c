"""Files in and out of the image."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import Sandbox

pytestmark = pytest.mark.root


def _status(sandbox: Sandbox, path: str) -> str:
    return sandbox.inside(["stat", "-c", "%a %u:%g", path]).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with everything that can be put into an image."""
    top = tmp_path / "tree"
    (top / "sub" / "empty").mkdir(parents=True)
    (top / "sub").chmod(0o750)
    (top / "file").write_text("text\n")
    (top / "sub" / "tool").write_bytes(os.urandom(3 << 20))
    (top / "sub" / "tool").chmod(0o4755)
    (top / "name with\nline").write_text("odd\n")
    Path(os.fsdecode(os.fsencode(top) + b"/\xff")).write_text("not UTF-8\n")
    (top / "link").symlink_to("/etc/passwd")
    return top


def test_a_file_becomes_the_target(sandbox: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("hello\n")
    source.chmod(0o640)
    os.chown(source, 1000, 1000)
    sandbox.put(source, "/opt/new/deep/motd")
    assert sandbox.inside("cat /opt/new/deep/motd").stdout == "hello\n"
    assert _status(sandbox, "/opt/new/deep/motd") == "640 0:0"
    assert _status(sandbox, "/opt/new/deep") == "755 0:0"


@pytest.mark.parametrize("target", ["/opt", "/opt/", "/new/"])
def test_a_file_keeps_its_name_in_a_directory(sandbox: Sandbox, tmp_path: Path, target: str) -> None:
    (tmp_path / "source").write_text("hello\n")
    sandbox.put(tmp_path / "source", target)
    assert sandbox.read(f"{target}/source") == b"hello\n"


@pytest.mark.parametrize(
    ("owner", "expected"),
    [("worker", "1234:1234"), ("worker:extra", "1234:77"), ("5:6", "5:6"), ("root:worker", "0:1234")],
)
def test_mode_and_owner(sandbox: Sandbox, tmp_path: Path, owner: str, expected: str) -> None:
    (tmp_path / "source").write_text("")
    sandbox.put(tmp_path / "source", "/opt/file", mode=0o4711, owner=owner)
    assert _status(sandbox, "/opt/file") == f"4711 {expected}"


def test_an_unknown_owner_says_so(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="the image has no group 'nogroup'"):
        sandbox.write("/x", b"", owner="worker:nogroup")


def test_a_tree_is_merged(sandbox: Sandbox, tree: Path) -> None:
    sandbox.inside(
        "mkdir -m 711 /opt/app; chown 5:5 /opt/app; echo kept > /opt/app/kept; ln -s /etc/passwd /opt/app/file"
    )
    sandbox.inside("rm /opt/app/file; echo old > /opt/app/file")
    sandbox.put(tree, "/opt/app", owner="worker")
    assert sandbox.read("/opt/app/kept") == b"kept\n"
    assert sandbox.read("/opt/app/file") == b"text\n"
    assert _status(sandbox, "/opt/app") == "711 5:5", "a directory that is there keeps what it has"
    assert _status(sandbox, "/opt/app/sub") == "750 1234:1234"
    assert _status(sandbox, "/opt/app/sub/tool") == "4755 1234:1234"
    assert sandbox.read("/opt/app/sub/tool") == (tree / "sub" / "tool").read_bytes()
    assert sandbox.inside("readlink /opt/app/link").stdout == "/etc/passwd\n"
    assert sandbox.read("/opt/app/name with\nline") == b"odd\n"
    assert sandbox.inside(r"cat /opt/app/$(printf '\377')").stdout == "not UTF-8\n"
    assert sandbox.inside("ls -A /opt/app/sub/empty").stdout == ""


def test_a_tree_follows_the_images_directory_links(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.inside("ln -s usr/local /local")
    (tmp_path / "tree" / "local" / "share").mkdir(parents=True)
    (tmp_path / "tree" / "local" / "share" / "file").write_text("x")
    sandbox.inside("mkdir -p /usr/local")
    sandbox.put(tmp_path / "tree", "/")
    assert sandbox.read("/usr/local/share/file") == b"x"


def test_a_tree_comes_out_as_it_went_in(sandbox: Sandbox, tree: Path, tmp_path: Path) -> None:
    sandbox.put(tree, "/opt/app", owner="worker")
    sandbox.get("/opt/app", tmp_path / "out")
    assert {path.relative_to(tree) for path in tree.rglob("*")} == {
        path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*")
    }
    assert (tmp_path / "out" / "sub" / "tool").read_bytes() == (tree / "sub" / "tool").read_bytes()
    assert (tmp_path / "out" / "link").readlink() == Path("/etc/passwd")
    assert stat.S_IMODE((tmp_path / "out" / "sub").stat().st_mode) == 0o750
    tool = (tmp_path / "out" / "sub" / "tool").stat()
    assert (stat.S_IMODE(tool.st_mode), tool.st_uid) == (0o755, 0), "no set-uid program of the image out here"


def test_a_file_comes_out(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.write("/opt/file", b"data", mode=0o600)
    sandbox.get("/opt/file", tmp_path / "deep" / "copy")
    sandbox.get("/opt/file", tmp_path / "deep")
    assert (tmp_path / "deep" / "copy").read_bytes() == (tmp_path / "deep" / "file").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "deep" / "copy").stat().st_mode) == 0o600


def test_a_tree_from_the_image_does_not_write_through_links_out_here(sandbox: Sandbox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(victim)
    (tmp_path / "out" / "file").symlink_to(victim / "file")
    sandbox.inside("mkdir -p /opt/a/sub; echo x > /opt/a/sub/x; echo y > /opt/b; mkdir /opt/c; echo z > /opt/c/file")
    with pytest.raises(SandboxError):
        sandbox.get("/opt/a", tmp_path / "out")
    sandbox.get("/opt/c", tmp_path / "out")
    assert list(victim.iterdir()) == []
    assert (tmp_path / "out" / "file").read_text() == "z\n"


def test_written_text_keeps_mode_and_owner_of_what_was_there(sandbox: Sandbox) -> None:
    sandbox.write("/opt/file", b"1")
    assert _status(sandbox, "/opt/file") == "644 0:0"
    sandbox.inside("chmod 2750 /opt/file; chown 5:6 /opt/file; chmod 2750 /opt/file")
    sandbox.write("/opt/file", b"2")
    assert _status(sandbox, "/opt/file") == "2750 5:6"
    sandbox.write("/opt/file", b"3", mode=0o600, owner="worker")
    assert _status(sandbox, "/opt/file") == "600 1234:1234"


def test_a_running_program_is_replaced(sandbox: Sandbox) -> None:
    sandbox.inside("cp /bin/busybox /opt/sleep; setsid /opt/sleep 1000 &")
    sandbox.write("/opt/sleep", b"new")
    assert sandbox.read("/opt/sleep") == b"new"
    assert sandbox.inside("ls -A /opt").stdout == "sleep\n", "nothing of the passing file stays"


def test_a_link_is_written_through_in_the_image(sandbox: Sandbox) -> None:
    sandbox.inside("mkdir /opt/real; ln -s ../../opt/real/file /etc/one; ln -s /etc/one /etc/two")
    sandbox.write("/etc/two", b"data")
    assert sandbox.read("/opt/real/file") == b"data"
    assert sandbox.inside("readlink /etc/two").stdout == "/etc/one\n"


@pytest.mark.parametrize("relative", [False, True])
def test_no_path_leads_out(sandbox: Sandbox, tmp_path: Path, relative: bool) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the build machine")
    link = "../" * 20 + str(secret)[1:] if relative else str(secret)
    sandbox.inside(["ln", "-s", link, "/etc/link"])
    sandbox.inside(["ln", "-s", os.path.dirname(link), "/etc/directory"])
    paths = ["/etc/link", "/etc/directory/secret", "../" * 20 + str(secret)[1:], str(secret), f"/proc/1/root{secret}"]
    for path in paths:
        with pytest.raises(SandboxError):
            sandbox.read(path)
        with pytest.raises(SandboxError):
            sandbox.get(path, tmp_path / "stolen")
    with pytest.raises(SandboxError):
        sandbox.write(paths[4], b"written")
    with pytest.raises(SandboxError):
        sandbox.copy_files(["/proc/1/root/etc/hostname"])
    for path in paths[:4]:
        sandbox.write(path, b"written")
        sandbox.put(tmp_path / "secret", path, mode=0o600)
        sandbox.remove(path)
    assert secret.read_text() == "of the build machine"
    assert not (tmp_path / "stolen").exists()


def test_a_file_is_read_as_far_as_wanted(sandbox: Sandbox) -> None:
    """A sparse file of the image may be larger than anything here."""
    sandbox.inside("printf 0123456789 >/odd; truncate -s 4G /odd")
    assert sandbox.read("/odd", limit=4) == b"0123"
    assert len(sandbox.read("/odd", limit=3_000_000)) == 3_000_000
    assert sandbox.read("/odd", limit=0) == b""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ("mkfifo /opt/x", "a FIFO, not a regular file"),
        ("mkdir /opt/x", "a directory, not a regular file"),
        ("ln -s /dev/zero /opt/x", "a character device, not a regular file"),
        ("ln -s x /opt/x", "Too many levels of symbolic links"),
        ("true", "No such file or directory"),
    ],
)
def test_only_regular_files_are_read(sandbox: Sandbox, make: str, words: str) -> None:
    sandbox.inside(make)
    with pytest.raises(SandboxError, match=words):
        sandbox.read("/opt/x")


@pytest.mark.parametrize(
    ("make", "words"), [("mkfifo /opt/x", "a FIFO"), ("ln -s /dev/null /opt/x", "a character dev")]
)
def test_only_regular_files_are_written(sandbox: Sandbox, tmp_path: Path, make: str, words: str) -> None:
    sandbox.inside(make)
    (tmp_path / "source").write_text("")
    with pytest.raises(SandboxError, match=words):
        sandbox.write("/opt/x", b"")
    with pytest.raises(SandboxError, match=words):
        sandbox.put(tmp_path / "source", "/opt/x")


def test_a_directory_is_not_written_as_a_file(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="Is a directory: /opt"):
        sandbox.write("/opt", b"")


def test_a_fifo_or_socket_in_a_tree_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.inside("mkdir /opt/t; mkfifo /opt/t/pipe")
    with pytest.raises(SandboxError, match="a FIFO, not a regular file: /opt/t/pipe"):
        sandbox.get("/opt/t", tmp_path / "out")
    (tmp_path / "t").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "t" / "s"))
        with pytest.raises(SandboxError, match="a socket, not a regular file"):
            sandbox.put(tmp_path / "t", "/opt/t")


def test_what_is_missing_out_here_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=f"{tmp_path}/x cannot be put into the image.*No such file"):
        sandbox.put(tmp_path / "x", "/opt/x")


def test_a_full_image_is_said_and_nothing_is_half_written(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="No space left on device"):
        sandbox.write("/opt/big", b"x" * (60 << 20))
    assert sandbox.inside("ls -A /opt").stdout == ""
