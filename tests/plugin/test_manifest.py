"""The manifest of real builds: published, failed, interrupted, and what is in the way of writing it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pytest_azchroot.disk.digest import digest_of
from pytest_azchroot.report.manifest import json_schema

from .conftest import CHECKS, STEPS, Workshop
from .test_ending import HANG, started

pytestmark = pytest.mark.root

STATUS = "Package: {0}\\nStatus: install ok installed\\nArchitecture: all\\nVersion: {1}\\n\\n"


def read(path: Path) -> dict[str, Any]:
    """A manifest, which has to fit its schema."""
    found: dict[str, Any] = json.loads(path.read_text())
    jsonschema.Draft202012Validator(json_schema(), format_checker=jsonschema.FormatChecker()).validate(found)
    return found


def here(workshop: Workshop, name: str = "x") -> Path:
    return workshop.pytester.path / "images" / name


def test_a_published_image(workshop: Workshop) -> None:
    workshop.image(yaml="clouds: {local: {output: [x.vhd, x.qcow2]}}\nvariables: {colour: red}")
    assert workshop.run("--azchroot-var", "colour=blue").ret == 0
    found = read(here(workshop) / "x.vhd.manifest.json")
    assert found == read(here(workshop) / "x.qcow2.manifest.json")
    assert (found["image"], found["cloud"], found["published"]) == ("x", "local", True)
    assert found["verdict"] == {"answer": "publish", "reasons": [], "notes": []}
    assert found["source"] == {"id": str(workshop.source), "digest": digest_of(workshop.source), "version": None}
    digest = digest_of(here(workshop) / "x.vhd")
    assert found["disk"] == {"size": 24 << 20, "digest": digest}
    assert [(each["kind"], each["id"], each["digest"]) for each in found["artifacts"]] == [
        ("vhd", str(here(workshop) / "x.vhd"), digest),
        ("qcow2", str(here(workshop) / "x.qcow2"), digest),
    ]
    assert [(test["id"], test["step"], test["outcome"]) for test in found["tests"]] == [
        ("images/x/test_10_steps.py::test_step", True, "passed"),
        ("images/x/test_90_checks.py::test_check", False, "passed"),
    ]
    assert {"create", "mount", "steps", "checks", "close", "digest", "publish"} <= found["stages"].keys()
    assert found["variables"] == {"colour": "blue"}
    assert found["started"] < found["ended"]
    assert found["versions"]["pytest"] == pytest.__version__
    assert found["packages"]["notes"][0] == "no package manager was found (dpkg, apk, rpm)"


def test_packages_and_what_became_of_them(workshop: Workshop) -> None:
    """Before is what the source has, after is what ships: not what a step did in between."""
    workshop.image(
        "base",
        test_10=f"import pytest\n@pytest.mark.provision\ndef test_a(chroot):\n"
        f"  chroot.write_text('/var/lib/dpkg/status', '{STATUS.format('old', 1)}{STATUS.format('kept', 1)}')",
        test_90="def test_a(host): host.run('true')",
    )
    workshop.image(
        "web",
        yaml="clouds: {local: {source: ../base/base.raw}}",
        test_10=f"import pytest\n@pytest.mark.provision\ndef test_a(chroot):\n"
        f"  chroot.write_text('/var/lib/dpkg/status', '{STATUS.format('kept', 2)}{STATUS.format('new', 1)}')",
        test_90="def test_a(host): host.run('true')",
    )
    assert workshop.run().ret == 0
    base, web = (read(here(workshop, name) / f"{name}.raw.manifest.json") for name in ("base", "web"))
    assert web["source"] == {
        "id": base["artifacts"][0]["id"],
        "digest": base["artifacts"][0]["digest"],
        "version": None,
    }
    assert [(each["name"], each["version"]) for each in web["packages"]["installed"]] == [("kept", "2"), ("new", "1")]
    changes = web["packages"]["difference"]
    assert [each["name"] for each in changes["added"]] == ["new"]
    assert [each["name"] for each in changes["removed"]] == ["old"]
    assert [(each["name"], each["before"], each["after"]) for each in changes["changed"]] == [("kept", "1", "2")]


def test_an_image_that_failed(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90="def test_a(host): assert False")
    assert workshop.run("--azchroot-output", "out").ret == 1
    found = read(workshop.pytester.path / "out" / "x" / "manifest.json")
    assert (found["published"], found["artifacts"]) == (False, [])
    assert found["verdict"]["answer"] == "skip"
    assert found["verdict"]["reasons"] == ["1 failed (test_90.py::test_a)"]
    assert found["disk"]["digest"]
    assert found["packages"]
    assert [test["outcome"] for test in found["tests"]] == ["passed", "failed"]
    assert sorted(path.name for path in here(workshop).iterdir() if path.suffix == ".json") == []


def test_an_image_whose_step_failed(workshop: Workshop) -> None:
    workshop.image(
        test_10="import pytest\n@pytest.mark.provision\ndef test_a(chroot): chroot.run('false')", test_90=CHECKS
    )
    workshop.run("--azchroot-output", "out")
    found = read(workshop.pytester.path / "out" / "x" / "manifest.json")
    assert [test["outcome"] for test in found["tests"]] == ["failed", "skipped"]
    assert found["tests"][1]["reason"] == "step test_10.py::test_a failed"


def test_an_image_that_was_interrupted(workshop: Workshop) -> None:
    workshop.image(test_10=HANG, test_90=CHECKS)
    with started(workshop, "--azchroot-output", "out") as process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    found = read(workshop.pytester.path / "out" / "x" / "manifest.json")
    assert found["verdict"]["reasons"][-1] == "the run was interrupted"
    assert [test["outcome"] for test in found["tests"]] == ["not run", "not run"]
    assert found["disk"] == {"size": 24 << 20, "digest": None}
    assert found["packages"] is None


def test_an_image_that_never_began(workshop: Workshop) -> None:
    workshop.image(
        "x", test_10="import pytest\n@pytest.mark.provision\ndef test_a(chroot): chroot.run('false')", test_90=CHECKS
    )
    workshop.image("y")
    workshop.run("-x", "--azchroot-output", "out")
    found = read(workshop.pytester.path / "out" / "y" / "manifest.json")
    assert (found["started"], found["source"], found["disk"], found["packages"]) == (None, None, None, None)
    assert found["recipe"]["image_yaml_sha256"]


def test_nothing_is_written_where_nothing_was_published(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90="def test_a(host): assert False")
    before = set(workshop.pytester.path.rglob("*.json"))
    workshop.run()
    assert set(workshop.pytester.path.rglob("*.json")) == before


def test_a_manifest_stays_beside_an_artifact_that_was_not_replaced(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90=CHECKS)
    workshop.run()
    manifest = here(workshop) / "x.raw.manifest.json"
    before = manifest.read_text()
    (here(workshop) / "test_90.py").write_text("def test_a(host): assert False")
    workshop.run("--azchroot-overwrite")
    assert manifest.read_text() == before
    assert digest_of(here(workshop) / "x.raw") == read(manifest)["disk"]["digest"]


def test_a_manifest_is_replaced_with_its_artifact(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90="def test_a(host): host.run('true')")
    workshop.run()
    (here(workshop) / "test_10.py").write_text(
        "import pytest\n@pytest.mark.provision\ndef test_a(chroot): chroot.write_text('/etc/motd', 'other')"
    )
    workshop.run("--azchroot-overwrite")
    found = read(here(workshop) / "x.raw.manifest.json")
    assert found["disk"]["digest"] == digest_of(here(workshop) / "x.raw")


def test_an_artifact_never_has_the_manifest_of_another(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the machine had failed after the artifact was replaced."""
    workshop.image(test_10=STEPS, test_90=CHECKS)
    workshop.run()
    monkeypatch.setattr("pytest_azchroot.report.records.record", lambda result, **_: result)
    workshop.run("--azchroot-overwrite")
    assert workshop.published()
    assert not (here(workshop) / "x.raw.manifest.json").exists()


@pytest.mark.parametrize("args", [(), ("--azchroot-output", "x")])
def test_a_manifest_that_cannot_be_written_undoes_nothing(workshop: Workshop, args: tuple[str, ...]) -> None:
    workshop.image()
    (here(workshop) / "x.raw.manifest.json").mkdir()
    result = workshop.run(*args)
    assert (result.ret, workshop.published()) == (0, True)
    result.stdout.fnmatch_lines(
        ["x  published*", f"x: the manifest {here(workshop)}/x.raw.manifest.json was not written: Is a directory"]
    )


def test_two_images_of_one_name_and_one_directory_for_manifests(workshop: Workshop) -> None:
    workshop.image("a/x")
    workshop.image("b/x")
    for name in "ab":
        config = here(workshop, f"{name}/x") / "image.yaml"
        config.write_text(config.read_text().replace(f"{name}/x.raw", "x.raw"))
    result = workshop.run("--azchroot-output", "out")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*images/b/x and *images/a/x would both write *out/x/manifest.json*"])
    assert not (workshop.pytester.path / "out").exists()
    assert workshop.run().ret == 0


SECRET = "correct horse battery staple"


def test_no_secret_is_in_it(workshop: Workshop) -> None:
    workshop.image(
        yaml="variables:\n  password: {sensitive: true}\n  plain: 1",
        test_10="import pytest\n@pytest.mark.provision\ndef test_a(chroot, image):\n"
        "  chroot.write_text('/var/lib/dpkg/status', 'Package: ' + image.variables['password'] +\n"
        "    '\\nStatus: install ok installed\\n')",
        test_20="import pytest\n@pytest.mark.provision\ndef test_b(image): pytest.skip(image.variables['password'])",
        test_90="import pytest\n@pytest.mark.parametrize('x', ['correct horse battery staple'])\n"
        "def test_c(x, host): host.run('true')",
    )
    (here(workshop) / "conftest.py").write_text(
        "def pytest_azchroot_verdict(image): return image.variables['password']"
    )
    workshop.run("--azchroot-var", f"password={SECRET}", "--azchroot-output", "out")
    text = (workshop.pytester.path / "out" / "x" / "manifest.json").read_text()
    found = read(workshop.pytester.path / "out" / "x" / "manifest.json")
    assert (found["variables"]["password"], found["variables"]["plain"]) == ("***", "1")
    assert found["verdict"]["reasons"] == ["vetoed: ***"]
    assert found["tests"][1]["reason"] == "***"
    assert [each["name"] for each in found["packages"]["installed"]] == ["***"]
    for part in (SECRET, "correct horse", "battery staple"):
        assert part not in text


def test_the_commit(workshop: Workshop) -> None:
    directory = workshop.image(test_10=STEPS, test_90=CHECKS)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], cwd=directory, check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], cwd=directory, check=True, capture_output=True, text=True)
    workshop.run()
    workshop.run("--azchroot-overwrite")  # what the first one made does not make it dirty
    recipe = read(directory / "x.raw.manifest.json")["recipe"]
    assert (recipe["commit"], recipe["dirty"]) == (head.stdout.strip(), False)


def test_the_hook_hears_of_it(workshop: Workshop) -> None:
    directory = workshop.image()
    (directory / "conftest.py").write_text(
        "import json\ndef pytest_azchroot_finished(image, result):\n"
        "  assert all(path.is_file() for path in result.manifests)\n"
        "  (image.path / 'told').write_text(json.dumps(result.as_json()))"
    )
    assert workshop.run("--azchroot-output", "out").ret == 0
    told = json.loads((directory / "told").read_text())
    assert told["manifests"] == [
        f"{directory}/x.raw.manifest.json",
        f"{workshop.pytester.path}/out/x/manifest.json",
    ]
    assert told["digest"] == told["artifacts"][0]["digest"] == digest_of(directory / "x.raw")
    assert os.path.exists(told["manifests"][1])
