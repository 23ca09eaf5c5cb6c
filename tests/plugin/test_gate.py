"""The gate, end to end: every way in which a test can be lost or go wrong, and what becomes of the image."""

from __future__ import annotations

import pytest

from .conftest import CHECKS, STEPS, Workshop

pytestmark = pytest.mark.root


def test_an_image_whose_tests_pass_is_published(workshop: Workshop) -> None:
    workshop.image()
    result = workshop.run("-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "images/x/test_10_steps.py::test_step PASSED*",
            "images/x/test_90_checks.py::test_check PASSED*",
            "images/x/image.yaml::publish PASSED*",
            "x  published  images/x/x.raw*",
        ]
    )
    assert result.ret == 0
    assert workshop.read("/etc/motd") == "hello\n"


def test_a_failing_check_blocks_and_stops_nothing(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90="def test_a(host): assert False\ndef test_b(host): pass")
    result = workshop.run("-rs")
    result.assert_outcomes(passed=2, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*not published: 1 failed (test_90.py::test_a)*"])
    assert (result.ret, workshop.published()) == (1, False)


def test_a_failing_step_skips_the_rest_of_its_image(workshop: Workshop) -> None:
    workshop.image(
        test_10="import pytest\n@pytest.mark.provision\ndef test_install(chroot): chroot.run('false')",
        test_20=STEPS,
        test_90=CHECKS,
    )
    workshop.image("y")
    result = workshop.run("-rs")
    result.assert_outcomes(failed=1, skipped=3, passed=3)
    result.stdout.fnmatch_lines(["*step test_10.py::test_install failed*"])
    assert (workshop.published("x"), workshop.published("y")) == (False, True)


# -- ways of dropping a test


@pytest.mark.parametrize(
    "args",
    [
        ("-m", "not slow"),
        ("--deselect", "images/x/test_90.py::test_slow"),
        ("-k", "publish or not slow"),
        ("--ignore", "images/x/test_95.py"),
        ("--ignore-glob", "*/test_95.py"),
        ("-o", "python_files=test_[0-8]*.py test_90.py"),
        ("-o", "python_functions=test_s* test_c*"),
        ("-o", "norecursedirs=more"),
        ("images/x/test_10.py", "images/x/test_90.py", "images/x/image.yaml::publish"),
    ],
    ids=lambda args: args[0] if len(args) < 3 else "paths",
)
def test_a_dropped_test_keeps_the_image_from_being_published(workshop: Workshop, args: tuple[str, ...]) -> None:
    directory = workshop.image(
        test_10=STEPS,
        test_90=CHECKS + "\n    import pytest\n    @pytest.mark.slow\n    def test_slow(host): pass\n",
        test_95="import pytest\n@pytest.mark.slow\ndef test_extra(host): pass",
    )
    (directory / "more").mkdir()
    (directory / "more" / "test_99.py").write_text("def test_more(host): pass")
    workshop.pytester.makeini("[pytest]\nmarkers = slow: takes long")
    result = workshop.run("-rs", *args)
    assert result.parseoutcomes().get("failed") is None
    result.stdout.fnmatch_lines(["*not published: *"])
    assert (result.ret, workshop.published()) == (0, False)


@pytest.mark.parametrize(
    ("conftest", "reason"),
    [
        ("collect_ignore = ['test_90.py']", "1 test of its directory was not collected (test_90.py::test_check)"),
        ("def pytest_ignore_collect(collection_path): return '90' in collection_path.name or None", "not collected"),
        ("def pytest_collect_file(file_path): pass\ndef pytest_pycollect_makeitem(name): return [] if name == 'test_check' else None", "not collected"),
        ("def pytest_collection_modifyitems(items): items[:] = [i for i in items if i.name != 'test_check']", "1 deselected"),
        ("def pytest_collection_finish(session): session.items[:] = [i for i in session.items if i.name != 'test_check']", "1 deselected"),
    ],
)  # fmt: skip
def test_a_test_dropped_by_a_plugin_counts_as_deselected(workshop: Workshop, conftest: str, reason: str) -> None:
    directory = workshop.image(test_10=STEPS, test_80="def test_other(host): pass", test_90=CHECKS)
    (directory / "conftest.py").write_text(conftest)
    result = workshop.run("-rs")
    result.stdout.fnmatch_lines([f"*not published: *{reason.replace('[', '[[]')}*"])
    assert (result.ret, workshop.published()) == (0, False)


@pytest.mark.parametrize(
    "skip",
    [
        "import pytest\npytest.skip('no docker here', allow_module_level=True)\ndef test_z(host): pass",
        "import pytest\npytest.importorskip('no_such_module', reason='no docker here')\ndef test_z(host): pass",
    ],
)
def test_a_file_skipped_at_collection_counts_as_deselected(workshop: Workshop, skip: str) -> None:
    workshop.image(test_10=STEPS, test_90=CHECKS, test_95=skip)
    result = workshop.run("-rs")
    result.stdout.fnmatch_lines(["*not published: test_95.py was skipped at collection: no docker here*"])
    assert (result.ret, workshop.published()) == (0, False)


def test_selecting_by_name_leaves_the_publish_item_out(workshop: Workshop) -> None:
    workshop.image()
    result = workshop.run("-k", "test_step")
    result.assert_outcomes(passed=1, deselected=2)
    assert (result.ret, workshop.published()) == (0, False)


@pytest.mark.parametrize("path", ["images/x/test_10_steps.py", "images/x/test_10_steps.py::test_step"])
def test_selecting_a_path_publishes_nothing(workshop: Workshop, path: str) -> None:
    workshop.image()
    result = workshop.run(path)
    result.assert_outcomes(passed=1)
    assert (result.ret, workshop.published()) == (0, False)


@pytest.mark.parametrize("option", ["--lf", "--sw"])
def test_running_only_the_last_failure_publishes_nothing(workshop: Workshop, option: str) -> None:
    directory = workshop.image(test_10=STEPS, test_90="def test_a(host): assert False\ndef test_b(host): pass")
    workshop.run("--sw" if option == "--sw" else "-q")
    (directory / "test_90.py").write_text("def test_a(host): pass\ndef test_b(host): pass\n")
    workshop.run(option)
    assert not workshop.published()


def test_lf_after_a_failed_publication_does_not_publish_an_unchecked_image(workshop: Workshop) -> None:
    directory = workshop.image()
    (directory / "conftest.py").write_text("def pytest_azchroot_verdict(image): return 'not today'")
    assert workshop.run().ret == 1
    (directory / "conftest.py").unlink()
    workshop.run("--lf")
    assert not workshop.published()


@pytest.mark.parametrize("option", ["--ff", "--nf"])
def test_failed_or_new_first_does_not_reorder_steps(workshop: Workshop, option: str) -> None:
    workshop.image(test_10=STEPS, test_90=CHECKS + "\n    def test_b(host): assert False\n")
    workshop.run()
    result = workshop.run("-v", option)
    result.stdout.fnmatch_lines(["*test_step PASSED*", "*test_check PASSED*", "*test_b FAILED*", "*publish SKIPPED*"])


# -- ways of going wrong


@pytest.mark.parametrize("option", ["-x", "--maxfail=1"])
def test_stopping_at_the_first_failure_releases_everything(workshop: Workshop, option: str) -> None:
    workshop.image(test_10=STEPS, test_90="def test_a(host): assert False")
    result = workshop.run(option)
    result.assert_outcomes(passed=1, failed=1)
    assert not workshop.published()


def test_a_collection_error_builds_nothing(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90="import no_such_module")
    result = workshop.run()
    assert (result.ret, workshop.published()) == (2, False)
    result.stdout.no_fnmatch_line("*Captured*")


def test_a_collection_error_skips_its_image_when_the_rest_continues(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90="import no_such_module")
    workshop.image("y")
    result = workshop.run("--continue-on-collection-errors", "-rs")
    result.assert_outcomes(errors=1, skipped=2, passed=3)
    assert (workshop.published("x"), workshop.published("y")) == (False, True)


def test_a_disk_that_cannot_be_mounted_is_one_error(workshop: Workshop) -> None:
    workshop.image(yaml="mount_options: [no_such_option]")
    result = workshop.run("-rs")
    result.assert_outcomes(errors=1, skipped=2)
    result.stdout.fnmatch_lines(["*no_such_option*", "*step test_10_steps.py::test_step failed*"])
    assert (result.ret, workshop.published()) == (1, False)


def test_an_image_that_does_not_close_is_not_published(workshop: Workshop) -> None:
    """Its file system is not clean: a tool wrote beside the mount."""
    workshop.image(
        test_10="""
            import pytest

            @pytest.mark.provision
            def test_step(chroot):
                chroot.write_text("/etc/motd", "hello\\n")
                chroot.run("sync")
                chroot.run_outside("debugfs -w -R 'clri /etc/group' $AZCHROOT_DEVICE")
        """,
        test_90=CHECKS,
    )
    result = workshop.run("-rs")
    assert (result.ret, workshop.published()) == (1, False)
    result.stdout.fnmatch_lines(["*not published: *did not close*"])


def test_subtests_count(workshop: Workshop) -> None:
    workshop.image(
        test_10=STEPS,
        test_90="def test_a(host, subtests):\n  with subtests.test('one'):\n    assert False\n  assert host.file('/etc/motd').exists",
    )
    result = workshop.run("-rs")
    assert (result.ret, workshop.published()) == (1, False)
    result.stdout.fnmatch_lines(["*not published: 1 failed*"])


def test_strict_xpass_counts_as_failed(workshop: Workshop) -> None:
    workshop.image(
        test_10=STEPS,
        test_90=CHECKS + "\n    import pytest\n    @pytest.mark.xfail(strict=True)\n    def test_b(host): pass\n",
    )
    assert (workshop.run().ret, workshop.published()) == (1, False)


SOFT = CHECKS + (
    "\n    import pytest\n    @pytest.mark.skip(reason='later')\n    def test_b(host): pass\n"
    "    @pytest.mark.xfail\n    def test_c(host): assert False\n"
)


def test_skips_and_xfails_do_not_block(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90=SOFT)
    result = workshop.run()
    result.assert_outcomes(passed=3, skipped=1, xfailed=1)
    assert (result.ret, workshop.published()) == (0, True)


def test_skips_and_xfails_block_when_strict(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90=SOFT)
    result = workshop.run("-o", "azchroot_strict=true")
    result.stdout.fnmatch_lines(["*azchroot_strict is set and 2 tests did not pass*"])
    assert (result.ret, workshop.published()) == (1, False)


def test_warnings_count_only_as_errors(workshop: Workshop) -> None:
    workshop.image(
        test_10=STEPS,
        test_90="import warnings\ndef test_a(host): warnings.warn('old'); assert host.file('/etc').exists",
    )
    assert (workshop.run("-W", "error").ret, workshop.published()) == (1, False)
    assert (workshop.run().ret, workshop.published()) == (0, True)


@pytest.mark.parametrize(
    ("files", "yaml", "reason"),
    [
        ({"test_10": STEPS}, "", "no check passed"),
        ({"test_90": "def test_a(): pass"}, "", "no test used the image"),
        ({"test_90": "import pytest\n@pytest.mark.skip\ndef test_a(host): pass"}, "", "no check passed"),
        ({"helper": ""}, "", "no check passed"),
    ],
)
def test_a_green_run_without_a_checked_image_fails(
    workshop: Workshop, files: dict[str, str], yaml: str, reason: str
) -> None:
    workshop.image(yaml=yaml, **files)
    result = workshop.run()
    result.stdout.fnmatch_lines([f"*not published: *{reason}*"])
    assert (result.ret, workshop.published()) == (1, False)


@pytest.mark.parametrize("files", [{"test_10": STEPS}, {"helper": ""}])
def test_an_image_may_want_no_checks(workshop: Workshop, files: dict[str, str]) -> None:
    workshop.image(yaml="checks: none", **files)
    assert (workshop.run().ret, workshop.published()) == (0, True)


def test_tests_collected_twice_block(workshop: Workshop) -> None:
    workshop.image()
    result = workshop.run("--keep-duplicates", "images/x", "images/x/test_90_checks.py")
    assert (result.ret == 0, workshop.published()) == (False, False)


# -- publishing on and off


def test_no_publish_skips(workshop: Workshop) -> None:
    workshop.image()
    result = workshop.run("--azchroot-no-publish", "-rs")
    result.stdout.fnmatch_lines(["azchroot: *publishing off (--azchroot-no-publish)", "*publishing is off*"])
    assert (result.ret, workshop.published()) == (0, False)


def test_require_publish_fails_instead_of_skipping(workshop: Workshop) -> None:
    workshop.image()
    workshop.pytester.makeini("[pytest]\nmarkers = slow: takes long")
    result = workshop.run("--azchroot-require-publish", "--deselect", "images/x/test_90_checks.py")
    result.assert_outcomes(passed=1, failed=1, deselected=1)
    assert result.ret == 1


def test_require_publish_refuses_a_run_without_the_publish_item(workshop: Workshop) -> None:
    workshop.image()
    result = workshop.run("--azchroot-require-publish", "-k", "test_step")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*its publish item is not selected*"])


def test_require_publish_and_no_publish_contradict(workshop: Workshop) -> None:
    workshop.image()
    result = workshop.run("--azchroot-require-publish", "--azchroot-no-publish")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*contradict*"])


def test_skip_create_image_is_told_truly(workshop: Workshop) -> None:
    workshop.image(yaml="skip_create_image: true")
    result = workshop.run("-rs")
    result.stdout.fnmatch_lines(["*publishing is off (skip_create_image)*"])
    assert (result.ret, workshop.published()) == (0, False)


def test_an_artifact_is_never_overwritten_unasked(workshop: Workshop) -> None:
    directory = workshop.image()
    (directory / "x.raw").write_text("precious")
    result = workshop.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*x.raw exists; --azchroot-overwrite*"])
    assert (directory / "x.raw").read_text() == "precious"
    assert workshop.run("--azchroot-overwrite").ret == 0
    assert workshop.read("/etc/motd") == "hello\n"


# -- other plugins


def test_reruns_do_not_make_another_disk_or_publish_twice(workshop: Workshop) -> None:
    directory = workshop.image(
        test_10=STEPS,
        test_90="tries = []\ndef test_a(host):\n  tries.append(1)\n  assert len(tries) == 2 and host.file('/etc/motd').exists",
    )
    (directory / "conftest.py").write_text(
        "told = []\ndef pytest_azchroot_published(image, artifacts):\n  told.append(1)\n  print(f'told {len(told)} times')\n"
        "  assert len(told) > 1"
    )
    result = workshop.run("--reruns", "2", "-rR", "-s")
    assert (result.ret, workshop.published()) == (0, True)
    result.stdout.fnmatch_lines(["*told 2 times*"])


def test_pytest_timeout_fails_the_test_and_releases_everything(workshop: Workshop) -> None:
    workshop.image(
        test_10="import pytest\n@pytest.mark.provision\n@pytest.mark.timeout(2, func_only=True)\n"
        "def test_hang(chroot): chroot.run('sleep 600')"
    )
    result = workshop.run("-rs")
    result.assert_outcomes(failed=1, skipped=1)
    assert not workshop.published()


def test_pytest_timeout_by_thread_leaves_nothing(workshop: Workshop) -> None:
    """It ends the process at once, without any teardown: the kernel cleans. The fixture checks that."""
    workshop.image(test_10="import pytest\n@pytest.mark.provision\ndef test_hang(chroot): chroot.run('sleep 600')")
    result = workshop.run("--timeout", "3", "--timeout-method", "thread", subprocess=True)
    assert result.ret == 1
    assert not workshop.published()


WRITTEN = {
    "test_10": "import pytest\npytestmark = pytest.mark.provision\n"
    + "".join(
        f"@pytest.mark.order({9 - n})\ndef test_{n}(chroot): chroot.run('echo {n} >>/order')\n" for n in range(6)
    ),
    "test_90": "def test_a(host): assert host.file('/order').content_string.split() == list('012345')",
}


@pytest.mark.parametrize(
    "args",
    [
        ("--randomly-seed=1",),
        ("--randomly-seed=2",),
        ("--random-order-bucket=global", "--random-order-seed=1"),
        ("--order-scope=session",),
    ],
    ids=lambda args: args[0],
)
def test_steps_run_in_written_order_whatever_plugin_reorders(workshop: Workshop, args: tuple[str, ...]) -> None:
    workshop.image(**WRITTEN)
    workshop.image("y", **WRITTEN)
    result = workshop.pytester.runpytest_inprocess(*args, "images")
    assert (result.ret, workshop.published("x"), workshop.published("y")) == (0, True, True)


def test_steps_run_in_written_order_whatever_a_conftest_reorders(workshop: Workshop) -> None:
    directory = workshop.image(**WRITTEN)
    (directory / "conftest.py").write_text(
        "import pytest\n@pytest.hookimpl(wrapper=True, tryfirst=True)\ndef pytest_collection_modifyitems(items):\n"
        "  yield\n  items.reverse()\n"
    )
    assert (workshop.run().ret, workshop.published()) == (0, True)
