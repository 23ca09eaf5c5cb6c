"""The how-to pages whose examples need no network, followed on a small image."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import markdown, shell, userland

pytestmark = pytest.mark.root

HOW_TO = markdown.ROOT / "docs" / "how-to"

IMAGE = "cloud: local\nsource: base.qcow2\noutput: web.vhd\n"

PAGE_STEP = """
import pytest

@pytest.mark.provision
def test_page(chroot):
    chroot.write_text("/srv/www/index.html", "Hello, world\\n")
"""

MOTD_STEP = """
import pytest

@pytest.mark.provision
def test_motd(chroot):
    chroot.write_text("/etc/motd", "hello\\n")
"""

MOTD_CHECKS = """
def test_root(host):
    assert host.user("root").exists

def test_motd(host):
    assert host.file("/etc/motd").content_string == "hello\\n"
"""


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """The directory of an image that has a source and no tests."""
    userland.busybox(tmp_path / "root")
    directory = tmp_path / "work" / "images" / "web"
    directory.mkdir(parents=True)
    userland.disk(tmp_path / "root", directory / "base.qcow2", size="64M")
    (directory / "image.yaml").write_text(IMAGE)
    return directory


def follow(name: str, web: Path) -> None:
    shell.follow(markdown.blocks(HOW_TO / name), web.parents[1])


def test_testinfra(web: Path) -> None:
    (web / "test_10_page.py").write_text(PAGE_STEP)
    follow("testinfra.md", web)


def test_a_suite_skips_what_needs_a_machine(web: Path) -> None:
    follow_files("testinfra.md", web)
    (web / "test_10_page.py").write_text(PAGE_STEP)
    (web / "test_90.py").write_text("def test_root(host): assert host.user('root').exists\n")
    (web / "test_91.py").symlink_to("../../specs/test_running.py")
    code, printed = shell.run("pytest images/web -rs", web.parents[1])
    assert code == 0 and "nothing runs in an image" in printed and "web  published" in printed


def test_secrets_and_variables(web: Path) -> None:
    follow("secrets-and-variables.md", web)


def test_verify(web: Path) -> None:
    (web / "test_10_motd.py").write_text(MOTD_STEP)
    (web / "test_90_checks.py").write_text(MOTD_CHECKS.partition("\ndef test_motd")[0])
    code, _ = shell.run("pytest images/web", web.parents[1])
    assert code == 0
    follow("verify.md", web)


def test_ci(web: Path) -> None:
    (web / "test_10_motd.py").write_text(MOTD_STEP)
    (web / "test_90_checks.py").write_text(MOTD_CHECKS)
    follow("ci.md", web)


def test_debug(web: Path) -> None:
    (web / "test_10_motd.py").write_text(MOTD_STEP)
    (web / "test_90_checks.py").write_text(MOTD_CHECKS)
    code, printed = shell.run("pytest images/web -q", web.parents[1])
    assert code == 0, printed
    follow("debug.md", web)


def test_from_packer(tmp_path: Path) -> None:
    shell.follow(markdown.blocks(HOW_TO / "from-packer.md"), tmp_path)


OVERRIDES = {
    "Refuse the wrong source": "def test_a(host): assert host.file('/etc/motd').exists",
    "Work on the bare disk": "def test_a(host): assert int(host.check_output('stat -f -c %b /')) > 300 * 1024**2 / 4096",
    "Give checks another host": "def test_a(host): assert host.release == 'VERSION_CODENAME=bookworm\\n'",
}
"""Headings, and a check that tells whether the example below has acted."""

DEBIAN = "post_mount_commands: ['echo VERSION_CODENAME=bookworm >{{ mount_path }}/etc/os-release']\n"


def override_below(heading: str) -> markdown.Block:
    page = HOW_TO / "override-fixtures.md"
    text = page.read_text()
    line = text.count("\n", 0, text.index(f"## {heading}"))
    return next(block for block in markdown.blocks(page) if block.line > line)


@pytest.mark.parametrize("heading", OVERRIDES)
def test_override_fixtures(web: Path, heading: str) -> None:
    (web / "conftest.py").write_text(override_below(heading).content)
    (web / "image.yaml").write_text(f"{IMAGE}os_disk_size_gb: 1\n{DEBIAN}")
    (web / "test_10.py").write_text(MOTD_STEP)
    (web / "test_90.py").write_text(OVERRIDES[heading])
    code, printed = shell.run("pytest images/web", web.parents[1])
    assert code == 0, printed


def test_the_wrong_source_is_refused(web: Path) -> None:
    (web / "conftest.py").write_text(override_below("Refuse the wrong source").content)
    (web / "image.yaml").write_text(IMAGE + DEBIAN.replace("bookworm", "trixie"))
    (web / "test_10.py").write_text(MOTD_STEP)
    code, printed = shell.run("pytest images/web", web.parents[1])
    assert code == 1 and "these steps are for Debian 12" in printed


def test_more_of_the_image_is_mounted_by_an_override(web: Path) -> None:
    """The page's disk has partitions; here memory stands for them."""
    block = override_below("Do something before the first step")
    text = block.content.replace(
        '"mount", chroot.partition(number), ', '"mount", "-t", "tmpfs", "some", "-o", "X-mount.mkdir", '
    )
    assert text != block.content
    (web / "conftest.py").write_text(text)
    (web / "test_10.py").write_text(MOTD_STEP + "    chroot.run('grep /boot/efi /proc/mounts')\n")
    (web / "test_90.py").write_text(MOTD_CHECKS)
    code, printed = shell.run("pytest images/web", web.parents[1])
    assert code == 0, printed


def follow_files(name: str, web: Path) -> None:
    shell.follow([block for block in markdown.blocks(HOW_TO / name) if block.file], web.parents[1])
