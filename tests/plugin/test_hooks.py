"""The hooks, each implemented in the conftest of an image as its documentation shows."""

from __future__ import annotations

import json

import pytest

from .conftest import STEPS, Workshop

pytestmark = pytest.mark.root


def test_change_a_spec(workshop: Workshop) -> None:
    directory = workshop.image()
    (directory / "conftest.py").write_text(
        "def pytest_azchroot_spec(image, spec):\n  return spec.model_copy(update={'skip_create_image': True})"
    )
    result = workshop.run("-rs")
    result.stdout.fnmatch_lines(["*publishing is off (skip_create_image)*"])


def test_a_changed_spec_is_validated(workshop: Workshop) -> None:
    directory = workshop.image()
    (directory / "conftest.py").write_text(
        "def pytest_azchroot_spec(image, spec):\n  return spec.model_copy(update={'output': 'x.floppy'})"
    )
    result = workshop.run()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*x.floppy*"])


def test_mounted(workshop: Workshop) -> None:
    directory = workshop.image(test_90="def test_a(host): assert host.file('/etc/id').content_string == 'x'")
    (directory / "conftest.py").write_text(
        "def pytest_azchroot_mounted(image, chroot): chroot.write_text('/etc/id', image.name)"
    )
    assert (workshop.run().ret, workshop.published()) == (0, True)
    assert workshop.read("/etc/id") == "x"


def test_a_veto_fails_the_publish_item_with_its_reason(workshop: Workshop) -> None:
    directory = workshop.image()
    (directory / "conftest.py").write_text(
        "def pytest_azchroot_verdict(image, verdict):\n  assert verdict.publish\n  return 'no images on a Friday'"
    )
    result = workshop.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*not published: vetoed: no images on a Friday*"])
    assert not workshop.published()


def test_published(workshop: Workshop) -> None:
    directory = workshop.image()
    (directory / "conftest.py").write_text(
        "def pytest_azchroot_published(image, artifacts):\n"
        "  for a in artifacts: print('told', image.name, a.kind, a.id, a.size)"
    )
    workshop.run("-s").stdout.fnmatch_lines([f"*told x raw {directory}/x.raw {24 << 20}"])


@pytest.mark.parametrize("passes", [True, False])
def test_finished_tells_everything(workshop: Workshop, passes: bool) -> None:
    directory = workshop.image(test_10=STEPS, test_90=f"def test_a(host): assert host.file('/etc').exists is {passes}")
    (directory / "conftest.py").write_text(
        "import json\ndef pytest_azchroot_finished(image, result):\n"
        "  (image.path / 'result.json').write_text(json.dumps(result.as_json()))"
    )
    workshop.run()
    result = json.loads((directory / "result.json").read_text())
    assert (result["name"], result["cloud"], result["published"]) == ("x", "local", passes)
    assert result["source"] == str(workshop.source)
    assert [(t["nodeid"], t["step"], t["outcome"]) for t in result["tests"]] == [
        ("images/x/test_10.py::test_step", True, "passed"),
        ("images/x/test_90.py::test_a", False, "passed" if passes else "failed"),
    ]
    assert {"create", "attach", "mount", "steps", "checks", "close"} <= set(result["stages"])
    assert [a["kind"] for a in result["artifacts"]] == (["raw"] if passes else [])
    assert result["verdict"]["answer"] == ("publish" if passes else "skip")


def test_hooks_of_one_image_do_not_hear_of_another(workshop: Workshop) -> None:
    directory = workshop.image("x")
    workshop.image("y")
    (directory / "conftest.py").write_text("def pytest_azchroot_verdict(image, verdict): return 'no'")
    workshop.run()
    assert (workshop.published("x"), workshop.published("y")) == (False, True)


def test_a_strangers_cloud(workshop: Workshop) -> None:
    """A cloud of somebody else's, registered by the same hook as the local one."""
    directory = workshop.image(yaml="")
    (directory / "image.yaml").write_text(f"cloud: attic\nsource: {workshop.source}\noutput: x.raw\n")
    (directory / "conftest.py").write_text(
        """
from contextlib import contextmanager
from pytest_azchroot.clouds.local import LocalCloud

class Attic(LocalCloud):
    name = "attic"

    @contextmanager
    def attach(self, order, disk):
        with super().attach(order, disk) as attachment:
            print("carried up")
            yield attachment
        print("carried down")

def pytest_azchroot_clouds(config):
    return [Attic()]
"""
    )
    result = workshop.run("-s")
    assert (result.ret, workshop.published()) == (0, True)
    result.stdout.fnmatch_lines(["*cloud attic (image.yaml)*", "*carried up*", "*carried down*"])


def test_an_unknown_cloud_is_named(workshop: Workshop) -> None:
    workshop.image()
    result = workshop.run("--azchroot-cloud", "cellar")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*cellar*"])
