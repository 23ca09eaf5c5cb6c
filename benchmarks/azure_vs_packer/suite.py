"""Our side: a suite that does what Packer's template does, and pytest on a stage."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from importlib.metadata import distribution, entry_points
from pathlib import Path
from typing import Any

import yaml

from tests.clients.packer import LATEST, Build, target
from tests.clients.stage import Stage

_STEP = """\
from pathlib import Path

import pytest

pytestmark = pytest.mark.provision


def test_leave_a_marker(chroot):
    chroot.run("echo {name} > /etc/marker")


def test_put_a_file(chroot):
    chroot.put(Path(__file__).parent / "content", "/root/content")
"""
_CHECK = """\
def test_marker_is_there(host):
    assert host.file("/etc/marker").exists
"""


def build(stage: Stage, name: str, published: str, number: int, *, timeout: float = 120) -> Build:
    """Run ``pytest`` on a suite like the template of :func:`tests.clients.packer.build`."""
    suite = stage.directory / name
    suite.mkdir()
    content = name.encode() * 9_999
    (suite / "content").write_bytes(content)
    options = {"cloud": "azure", "source": LATEST, "image_hyperv_generation": "V1", **target(published, number)}
    _write(suite, {"image.yaml": yaml.safe_dump(options), "test_10.py": _STEP.format(name=name), "test_90.py": _CHECK})
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(suite),
        "TMPDIR": "/mnt",
        "AZCHROOT_STATE_DIR": str(stage.directory / "state"),
        "REQUESTS_CA_BUNDLE": str(stage.directory / "azure/keys/ca.pem"),
    }
    others = [f"-pno:{plugin}" for plugin in strangers()]
    reports = ["-p", "no:cacheprovider", f"--azchroot-output={stage.directory / 'manifests'}"]
    command = [sys.executable, "-m", "pytest", str(suite), *reports, *others]
    return Build(stage, name, stage.run(command, environment=environment, timeout=timeout), content)


def stages(made: Build) -> Mapping[str, float]:
    """Where its time went, by its manifest; empty where there is none."""
    try:
        text = (made.stage.directory / "manifests" / made.name / "manifest.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    found: dict[str, Any] = json.loads(text)
    return dict(found["stages"])


def strangers() -> list[str]:
    """The pytest plugins that only our own tests need: who builds an image has none of them."""
    ours = distribution("pytest-azchroot")
    extra = {_plain(each) for each in ours.requires or () if "extra ==" in each}
    return sorted(
        point.name for point in entry_points(group="pytest11") if point.dist and _plain(point.dist.name) in extra
    )


def _plain(requirement: str) -> str:
    """The name in a requirement, as PEP 503 compares them."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def _write(directory: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
