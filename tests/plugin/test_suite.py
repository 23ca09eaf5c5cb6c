"""An image as a suite: its nodes, its fixtures, who may use them, and how images live side by side."""

from __future__ import annotations

import pytest

from .conftest import STEPS, Workshop

pytestmark = pytest.mark.root


def test_the_tree(workshop: Workshop) -> None:
    workshop.image()
    result = workshop.run("--collect-only")
    result.stdout.fnmatch_lines(
        [
            "*<Dir images>",
            "*<ImageDirectory x>",
            "*<Module test_10_steps.py>",
            "*<Function test_step>",
            "*<Module test_90_checks.py>",
            "*<Function test_check>",
            "*<ImageFile x/image.yaml>",
            "*<PublishItem publish>",
        ]
    )


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan"])
def test_looking_touches_nothing(workshop: Workshop, option: str) -> None:
    directory = workshop.image()
    before = sorted(path.name for path in directory.iterdir())
    assert workshop.run(option, "-p", "no:cacheprovider").ret == 0
    assert sorted(path.name for path in directory.iterdir() if path.name != "__pycache__") == before


def test_images_with_the_same_file_names_stand_side_by_side(workshop: Workshop) -> None:
    for name in ("x", "y", "z"):
        workshop.image(name)
    result = workshop.run()
    result.assert_outcomes(passed=9)
    assert all(map(workshop.published, ("x", "y", "z")))


def test_an_image_is_released_before_it_is_published_and_before_the_next_one_starts(workshop: Workshop) -> None:
    workshop.image("x")
    workshop.image("y")
    result = workshop.run("--setup-show", "-s")
    text = [line.strip() for line in result.outlines]
    events = [line.split()[0] + " " + line.split()[2] for line in text if line.startswith(("SETUP", "TEARDOWN"))]
    one = ["SETUP image", "SETUP disk", "SETUP _mounted_image", "SETUP chroot", "SETUP host"]
    assert [event for event in events if "azchroot" not in event] == [
        *one, *(e.replace("SETUP", "TEARDOWN") for e in reversed(one)),
        *one, *(e.replace("SETUP", "TEARDOWN") for e in reversed(one)),
    ]  # fmt: skip


def test_the_directory_itself_may_be_where_pytest_starts(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = workshop.image()
    monkeypatch.chdir(directory)
    result = workshop.run(".", "--rootdir", str(directory))
    assert (result.ret, workshop.published()) == (0, True)


@pytest.mark.parametrize("init", [False, True])
def test_tests_in_folders_and_classes(workshop: Workshop, init: bool) -> None:
    directory = workshop.image(test_10=STEPS)
    (directory / "verify").mkdir()
    (directory / "verify" / "test_deep.py").write_text(
        "import unittest\n"
        "class TestMotd:\n  def test_motd(self, host): assert host.file('/etc/motd').exists\n"
        "class Old(unittest.TestCase):\n  def test_old(self): pass\n"
    )
    if init:
        (directory / "__init__.py").touch()
        (directory / "verify" / "__init__.py").touch()
    result = workshop.run("--doctest-modules")
    result.assert_outcomes(passed=4)
    assert (result.ret, workshop.published()) == (0, True)


# -- fixtures


def test_fixtures_are_listed_with_their_docs(workshop: Workshop) -> None:
    workshop.image()
    result = workshop.run("--fixtures")
    result.stdout.fnmatch_lines(["image*", "disk*", "chroot*", "host*"])


def test_fixtures_do_not_exist_elsewhere(workshop: Workshop) -> None:
    workshop.pytester.makepyfile(test_plain="def test_plain(chroot): pass")
    result = workshop.pytester.runpytest_inprocess("test_plain.py")
    result.stdout.fnmatch_lines(["*fixture 'chroot' not found*"])


def test_a_conftest_of_the_image_overrides_and_asks_for_the_original(workshop: Workshop) -> None:
    directory = workshop.image()
    (directory / "conftest.py").write_text(
        "import pytest\n"
        "@pytest.fixture(scope='package')\ndef chroot(chroot):\n  chroot.write_text('/etc/mine', 'mine')\n  return chroot\n"
        "@pytest.fixture\ndef host(host):\n  host.mine = True\n  return host\n"
    )
    (directory / "test_90_checks.py").write_text("def test_a(host): assert host.mine and host.file('/etc/mine').exists")
    assert workshop.run().ret == 0


def test_a_conftest_above_the_image_does_not_replace_its_host(workshop: Workshop) -> None:
    directory = workshop.image()
    (directory.parent / "conftest.py").write_text(
        "import pytest\n@pytest.fixture\ndef host(): return 'the build machine'"
    )
    assert (workshop.run().ret, workshop.published()) == (0, True)


def test_the_image_knows_itself(workshop: Workshop) -> None:
    workshop.image(
        yaml="variables: {motd: hello}",
        test_10="""
            import pytest

            @pytest.mark.provision
            def test_step(image, disk, chroot):
                assert image.name == "x" and (image.path / "image.yaml").exists()
                assert image.variables == {"motd": "hello"} and image.spec.cloud == "local"
                assert image.device == disk.device == chroot.device and disk.device.startswith("/dev/")
                assert image.mount_path == chroot.mount_path
                assert chroot.run("echo $AZCHROOT_IMAGE $AZCHROOT_DEVICE").stdout.split() == ["x", image.device]
        """,
        test_90="def test_a(host): assert host.file('/etc/passwd').exists",
    )
    assert workshop.run().ret == 0


# -- who may use what


def test_a_check_may_not_use_chroot(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90="def test_a(chroot): chroot.run('true')")
    result = workshop.run()
    result.stdout.fnmatch_lines(["*test_a is a check*", "*mark it `@pytest.mark.provision`*"])
    assert (result.ret, workshop.published()) == (1, False)


def test_testinfras_own_host_is_refused_at_collection(workshop: Workshop) -> None:
    workshop.image(test_90="def test_a(_testinfra_host): pass")
    result = workshop.run()
    result.stdout.fnmatch_lines(["*would be the build machine*ask for the fixture `host`*"])
    assert result.ret == 2


def test_testinfras_own_host_is_refused_when_asked_for_late(workshop: Workshop) -> None:
    workshop.image(test_90="def test_a(request): request.getfixturevalue('_testinfra_host')")
    result = workshop.run()
    result.stdout.fnmatch_lines(["*would be the build machine*"])
    assert result.ret == 1


def test_an_existing_testinfra_suite_runs_unchanged(workshop: Workshop) -> None:
    """Module-level hosts, classes, parametrization, a module-scoped fixture on host; beside it a plain suite."""
    workshop.image(
        test_10=STEPS,
        test_90="""
            import pytest

            testinfra_hosts = ["local://"]

            @pytest.fixture(scope="module")
            def motd(host):
                return host.file("/etc/motd")

            class TestMotd:
                @pytest.fixture(autouse=True)
                def setup(self, host):
                    self.host = host

                def test_content(self, motd):
                    assert motd.content_string == "hello\\n" and motd.user == "root" and motd.mode == 0o644

                @pytest.mark.parametrize("name", ["cat", "sh"])
                def test_tools(self, name):
                    assert self.host.find_command(name)
        """,
    )
    workshop.pytester.makepyfile(test_plain="def test_plain(host): assert host.file('/usr').exists")
    result = workshop.run("images", "test_plain.py", "-v")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["*::TestMotd::test_content PASSED*", "*test_plain*local* PASSED*"])


@pytest.mark.parametrize("first", ["testinfra", "azchroot"])
def test_host_is_the_image_whatever_the_plugin_order(workshop: Workshop, first: str) -> None:
    workshop.image()
    order = ["pytest_azchroot.plugin", "testinfra.plugin"]
    if first == "testinfra":
        order.reverse()
    args = [part for name in order for part in ("-p", name)]
    result = workshop.pytester.runpytest_subprocess("-p", "no:azchroot", "-p", "no:pytest11.testinfra", *args, "images")
    assert (result.ret, workshop.published()) == (0, True)


# -- what steps leave behind


def test_a_daemon_is_named_and_ended(workshop: Workshop) -> None:
    workshop.image(
        test_10="import pytest\n@pytest.mark.provision\ndef test_step(chroot): chroot.run('sleep 1234 &')",
        test_90="def test_a(host): assert '1234' not in host.check_output('ps') and host.file('/etc').exists",
    )
    result = workshop.run()
    result.stdout.fnmatch_lines(["*.py:*: AzchrootWarning: test_step left running, now ended: *sleep 1234*"])
    result.stdout.no_fnmatch_line("*contextlib.py*")
    assert (result.ret, workshop.published()) == (0, True)


def test_a_daemon_fails_the_step_where_warnings_are_errors(workshop: Workshop) -> None:
    workshop.image(test_10="import pytest\n@pytest.mark.provision\ndef test_step(chroot): chroot.run('sleep 1234 &')")
    assert workshop.run("-W", "error").ret == 1


def test_what_a_fixture_started_lives_until_the_fixture_ends(workshop: Workshop) -> None:
    workshop.image(
        test_10="""
            import pytest
            pytestmark = pytest.mark.provision

            @pytest.fixture(scope="module")
            def daemon(chroot):
                chroot.run("sleep 1234 & echo $! >/run/pid")
                yield
                chroot.run("kill $(cat /run/pid)")

            def test_one(daemon): pass
            def test_two(chroot, daemon): assert "sleep 1234" in chroot.run("ps").stdout
        """,
        test_90="def test_a(host): assert host.file('/etc').exists",
    )
    result = workshop.run("-W", "error")
    assert (result.ret, workshop.published()) == (0, True)
