"""Ways to lose a test, or a failure, without anybody's noticing. None of them publishes an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import STEPS, Workshop

pytestmark = pytest.mark.root

CHECK = "def test_check(host): host.run('true')\n"
FAILS = "def test_lost(): assert False\n"


def refused(workshop: Workshop, *args: str) -> str:
    """Run; say why nothing was published."""
    result = workshop.run("-rs", *args)
    assert not workshop.published()
    return str(result.stdout)


def test_a_test_that_another_of_its_name_replaces_is_missed(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90="def test_a(host): assert False\ndef test_a(host): host.run('true')")
    result = workshop.run()
    assert (result.ret, workshop.published()) == (1, False)
    result.stdout.fnmatch_lines(["*more than one test*test_90.py::test_a*"])


@pytest.mark.parametrize(
    ("lost", "args"),
    [
        ("import unittest\nclass NginxCase(unittest.TestCase):\n  def test_lost(self): assert False", ["-p", "no:unittest"]),
        ("class TestA:\n  class TestB:\n    def __init__(self): pass\n    def test_lost(self): assert False", []),
        ("import pytest\n@pytest.mark.usefixtures('host')\ndef test_lost(): assert False", ["-o", "python_functions=test_c*"]),
    ],
    ids=["unittest", "nested class", "usefixtures"],
)  # fmt: skip
def test_a_lost_test_is_missed_wherever_it_stands(workshop: Workshop, lost: str, args: list[str]) -> None:
    workshop.image(test_10=STEPS.replace("test_step", "test_change"), test_90=CHECK + lost)
    assert "test_lost" in refused(workshop, *args)


def test_a_lost_file_with_a_byte_order_mark_is_missed(workshop: Workshop) -> None:
    (workshop.image() / "test_91.py").write_bytes(b"\xef\xbb\xbf" + FAILS.encode())
    assert "test_lost" in refused(workshop, "--ignore=images/x/test_91.py")


def test_a_lost_file_of_a_project_with_names_of_its_own_is_missed(workshop: Workshop) -> None:
    (workshop.image() / "check_91.py").write_text(FAILS)
    workshop.pytester.makeini("[pytest]\npython_files = test_*.py check_*.py\n")
    assert "test_lost" in refused(workshop, "--ignore=images/x/check_91.py")


def test_lost_tests_behind_a_link_are_missed(workshop: Workshop) -> None:
    common = workshop.pytester.mkdir("common")
    (common / "test_common.py").write_text(FAILS)
    (common / "circle").symlink_to(common)
    (workshop.image() / "common").symlink_to(common)
    assert "test_lost" in refused(workshop, "--ignore=images/x/common")


def test_an_image_is_not_published_without_its_conftest(workshop: Workshop) -> None:
    (workshop.image() / "conftest.py").write_text("def pytest_azchroot_verdict(image): return 'never'")
    assert "conftest.py was not loaded" in refused(workshop, "--noconftest")


def test_a_test_that_is_added_while_the_run_begins_counts(workshop: Workshop) -> None:
    (workshop.image() / "conftest.py").write_text(
        "import pytest\n"
        "def test_added(): assert False\n"
        "def pytest_runtestloop(session):\n"
        "  parent = session.items[0].parent\n"
        "  session.items.insert(-1, pytest.Function.from_parent(parent, name='test_added', callobj=test_added))\n"
    )
    assert "1 failed (test_10_steps.py::test_added)" in refused(workshop)


def test_an_xfail_does_not_hide_a_failed_teardown(workshop: Workshop) -> None:
    workshop.image(
        test_10=STEPS,
        test_90=CHECK + "import pytest\n@pytest.fixture(scope='package')\ndef bad(host):\n  yield\n  assert False\n"
        "@pytest.mark.xfail\ndef test_z(bad): assert False",
    )
    result = workshop.run()
    assert (result.ret, workshop.published()) == (1, False)
    result.stdout.fnmatch_lines(["*1 teardown failed behind an xfail*"])


def test_a_cloud_that_makes_nothing_fails_the_publish_item(workshop: Workshop) -> None:
    (workshop.image() / "conftest.py").write_text(
        "from pytest_azchroot.clouds.local import LocalCloud\n"
        "class Lazy(LocalCloud):\n"
        "  def publish(self, order, disk): return ()\n"
        "def pytest_azchroot_clouds(config): return [Lazy()]\n"
    )
    result = workshop.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["PublishError: the cloud 'local' returned no artifact"])


def test_a_forked_process_publishes_nothing(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90="import os\ndef test_a(host):\n  if pid := os.fork(): os.waitpid(pid, 0)\n")
    result = workshop.run(subprocess=True)
    assert not workshop.published()
    result.stdout.fnmatch_lines(["*not published: this is a forked process*"])


def test_a_signal_that_a_test_swallows_still_ends_the_run(workshop: Workshop) -> None:
    workshop.image(
        test_10=STEPS,
        test_90="import os, signal\ndef test_a(host):\n  host.run('true')\n"
        "  try: os.kill(os.getpid(), signal.SIGTERM); host.run('true')\n  except Exception: pass\n",
    )
    assert (workshop.run(subprocess=True).ret, workshop.published()) == (143, False)


def test_the_publish_item_has_no_time_limit(workshop: Workshop) -> None:
    directory = workshop.image()
    (directory / "conftest.py").write_text("import time\ndef pytest_azchroot_verdict(image): time.sleep(4)")
    assert (workshop.run("--timeout=3", subprocess=True).ret, workshop.published()) == (0, True)


def test_a_hook_that_breaks_has_its_place_in_the_summary(workshop: Workshop) -> None:
    (workshop.image() / "conftest.py").write_text("def pytest_azchroot_verdict(image): raise ValueError('boom')")
    result = workshop.run()
    assert (result.ret, workshop.published()) == (1, False)
    result.stdout.fnmatch_lines(["x  not published: its publish item failed before it had a verdict*"])


def test_the_image_is_released_when_another_teardown_fails_at_the_end(workshop: Workshop) -> None:
    (
        workshop.image(test_10=STEPS, test_90="def test_a(host, bad): raise KeyboardInterrupt") / "conftest.py"
    ).write_text(
        "import pytest\n@pytest.fixture(scope='session')\ndef bad():\n  yield\n  raise ValueError('boom')\n"
        "def pytest_azchroot_finished(image, result): open('finished', 'w').close()\n"
    )
    workshop.run(subprocess=True)
    assert Path("finished").exists()


def test_an_error_of_the_last_hook_fails_the_run_and_spares_the_others(workshop: Workshop) -> None:
    (workshop.image("x") / "conftest.py").write_text("def pytest_azchroot_finished(image): raise ValueError('boom')")
    (workshop.image("y") / "conftest.py").write_text("def pytest_azchroot_finished(image): open('y', 'w').close()")
    result = workshop.run()
    assert (result.ret, Path("y").exists()) == (1, True)
    result.stdout.fnmatch_lines(["x: ValueError: boom (in pytest_azchroot_finished, *conftest.py:1)"])


def test_an_error_in_the_preflight_of_a_cloud_is_told(workshop: Workshop) -> None:
    (workshop.image() / "conftest.py").write_text(
        "from pytest_azchroot.clouds.local import LocalCloud\n"
        "class Broken(LocalCloud):\n"
        "  def preflight(self, order): raise ValueError('boom')\n"
        "def pytest_azchroot_clouds(config): return [Broken()]\n"
    )
    result = workshop.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["x: the cloud 'local' could not tell whether it can build: ValueError: boom"])
