"""The how-to about Ansible: its playbooks, run over the chroot connection on real images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from . import markdown, shell, userland

pytestmark = pytest.mark.root

PAGE = markdown.ROOT / "docs" / "how-to" / "ansible.md"
ANSIBLE = Path("/usr/bin/ansible-playbook")
"""Debian's: that of PyPI's ansible-core, which may be beside our Python, has no chroot connection."""

SMALL = "cloud: local\nsource: small.raw\noutput: out.raw\n"

SMALL_CHECKS = """
def test_playbook_was_here(host):
    assert host.file("/etc/motd").content_string == "made by Ansible\\n"
    assert host.file("/srv/www/index.html").content_string == "<h1>Hello</h1>\\n"
    assert not host.file("/root/.ansible").exists
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A directory with the Ansible to use."""
    assert ANSIBLE.exists(), "Ansible is not installed: apt-get install ansible"
    directory = tmp_path / "tools"
    directory.mkdir()
    (directory / ANSIBLE.name).symlink_to(ANSIBLE)
    return directory


def examples(name: str) -> list[markdown.Block]:
    """The page's blocks about one image; those that run something go with the first."""
    return [
        block
        for block in markdown.blocks(PAGE)
        if (block.file or "").startswith(f"images/{name}/") or (name == "web" and block.language == "console")
    ]


def test_modules(tmp_path: Path, tools: Path) -> None:
    root = tmp_path / "root"
    userland.busybox(root)
    userland.python(root)
    images = tmp_path / "work" / "images" / "web"
    images.mkdir(parents=True)
    userland.disk(root, images / "python.qcow2", size="256M")
    shell.follow(examples("web"), images.parents[1], tools=tools)


def test_raw_and_script_need_no_python(tmp_path: Path, tools: Path) -> None:
    root = tmp_path / "root"
    userland.busybox(root)
    web, small = (tmp_path / "images" / name for name in ("web", "small"))
    shell.follow([block for block in markdown.blocks(PAGE) if block.file], tmp_path)
    (small / "image.yaml").write_text(SMALL)
    (small / "test_90_checks.py").write_text(SMALL_CHECKS)
    shutil.copy(web / "test_10_ansible.py", small)
    userland.disk(root, small / "small.raw", size="64M")
    code, printed = shell.run("pytest images/small", tmp_path, tools=tools)
    assert code == 0, printed


def test_a_failed_task_fails_the_step(tmp_path: Path, tools: Path) -> None:
    root = tmp_path / "root"
    userland.busybox(root)
    small = tmp_path / "images" / "small"
    shell.follow([block for block in markdown.blocks(PAGE) if block.file], tmp_path)
    (small / "image.yaml").write_text(SMALL)
    (small / "setup.sh").write_text("#!/bin/sh\nexit 7\n")
    shutil.copy(tmp_path / "images" / "web" / "test_10_ansible.py", small)
    userland.disk(root, small / "small.raw", size="64M")
    code, printed = shell.run("pytest images/small", tmp_path, tools=tools)
    assert code == 1
    assert "non-zero return code" in printed
    assert "not published: 1 failed (test_10_ansible.py::test_playbook)" in printed
