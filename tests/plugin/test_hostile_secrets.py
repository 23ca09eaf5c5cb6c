"""Less travelled ways by which a secret could come out."""

from __future__ import annotations

import pytest

from .conftest import CHECKS, STEPS, Workshop

pytestmark = pytest.mark.root

SECRET = "correct horse battery staple"

FINISHED = (
    "import json, pathlib\n"
    "def pytest_azchroot_finished(image, result): pathlib.Path('out.json').write_text(json.dumps(result.as_json()))\n"
)


def said(workshop: Workshop, *, subprocess: bool = False) -> str:
    """Run with a secret; all that was written."""
    args = ("-rA", "--junitxml=out.xml", "--azchroot-var", f"password={SECRET}")
    result = workshop.run(*args, subprocess=subprocess)
    files = [
        path.read_text() for path in map(workshop.pytester.path.joinpath, ("out.xml", "out.json")) if path.exists()
    ]
    return "\n".join([str(result.stdout), str(result.stderr), *files])


BROKEN_CLOUD = """
from pytest_azchroot.clouds.local import LocalCloud
class Broken(LocalCloud):
    def preflight(self, order): raise ValueError(order.configuration.variables["password"])
def pytest_azchroot_clouds(config): return [Broken()]
"""


SENSITIVE = "variables:\n  password: {sensitive: true}\n"


@pytest.mark.parametrize(
    "check",
    [
        "import warnings; warnings.warn(image.variables['password'])",
        "\n  with subtests.test('a'): print(image.variables['password']); assert 0",
        "\n  with subtests.test('a'): logging.warning(image.variables['password']); assert 0",
        "\n  with subtests.test(image.variables['password']): assert 0",
        "\n  with subtests.test('a', password=image.variables['password']): assert 0",
    ],
    ids=["warning", "printed", "logged", "message", "context"],
)
def test_what_a_test_says(workshop: Workshop, check: str) -> None:
    workshop.image(yaml=SENSITIVE, test_10=STEPS, test_90=f"import logging\ndef test_a(host, image, subtests): {check}")
    text = said(workshop)
    assert "***" in text and "horse" not in text


@pytest.mark.parametrize(
    "conftest",
    [
        FINISHED + "def pytest_azchroot_verdict(image): return image.variables['password']",
        "def pytest_azchroot_finished(image): raise ValueError(image.variables['password'])",
        "def pytest_azchroot_spec(image): raise ValueError(image.variables['password'])",
        BROKEN_CLOUD,
    ],
    ids=["verdict", "finished", "spec", "preflight"],
)
def test_what_a_hook_says(workshop: Workshop, conftest: str) -> None:
    (workshop.image(yaml=SENSITIVE) / "conftest.py").write_text(conftest)
    text = said(workshop)
    assert "***" in text and "horse" not in text


def test_the_reason_of_a_skipped_file(workshop: Workshop) -> None:
    skip = f"import pytest\npytest.skip('{SECRET}', allow_module_level=True)"
    (workshop.image(yaml=SENSITIVE, test_10=STEPS, test_90=CHECKS, test_91=skip) / "conftest.py").write_text(FINISHED)
    text = said(workshop)
    assert "***" in text and "horse" not in text


def test_a_command_that_takes_long(workshop: Workshop) -> None:
    """A log is told of it after five seconds."""
    workshop.image(yaml=SENSITIVE + "pre_mount_commands: ['sleep 6; : {{ var.password }}']\n")
    text = said(workshop, subprocess=True)
    assert "pre_mount_commands: sleep 6; : {{ var.password }}, 5.0 s so far" in text
    assert "horse" not in text


def test_a_report_of_another_plugins_kind(workshop: Workshop) -> None:
    """pytest cannot restore it from its serialized form."""
    (workshop.image(yaml=SENSITIVE) / "conftest.py").write_text(
        "import pytest\n"
        "class Odd(pytest.TestReport): pass\n"
        "@pytest.hookimpl(wrapper=True)\n"
        "def pytest_runtest_makereport(item, call):\n"
        "  report = yield\n"
        "  report.__class__ = Odd\n"
        f"  report.sections.append(('odd', '{SECRET}'))\n"
        "  return report\n"
    )
    text = said(workshop)
    assert "***" in text and "horse" not in text
    assert workshop.published()
