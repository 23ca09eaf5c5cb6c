"""What was checked is what ships: no check changes the image, and none goes unnoticed that tried."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from .conftest import STEPS, Workshop

pytestmark = pytest.mark.root

WRITES = """
    def test_a(host):
        host.check_output("echo changed >/etc/motd; rm /etc/passwd; echo x >/tmp/x; echo x >/var/log/x")

    def test_b(host):
        assert host.file("/etc/motd").content_string == "changed\\n"
        host.check_output("echo more >/root/b")
"""


def test_what_a_check_wrote_does_not_ship_and_is_not_overlooked(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90=WRITES)
    result = workshop.run()
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*not published: a check wrote /etc/motd, deleted /etc/passwd (test_90.py::test_a)*",
            "*a check wrote /root/b (test_90.py::test_b): mark it provision if it*",
        ]
    )
    assert not workshop.published()


def test_writes_may_be_discarded(workshop: Workshop) -> None:
    again = "def test_c(host):\n    assert host.file('/etc/motd').content_string == 'hello\\n' and host.file('/etc/passwd').exists"
    workshop.image(yaml="verify_writes: discard", test_10=STEPS, test_90=WRITES, test_91=again)
    result = workshop.run()
    assert (result.ret, workshop.published()) == (0, True)
    assert workshop.read("/etc/motd") == "hello\n"
    assert "x" not in workshop.read("/root/b")


def test_volatile_directories_do_not_count(workshop: Workshop) -> None:
    check = "def test_a(host):\n    host.check_output('echo x >/tmp/x; mkdir -p /var/cache/x; echo x >/run/x; touch /root/y; rm /root/y')"
    workshop.image(test_10=STEPS, test_90=check)
    assert (workshop.run().ret, workshop.published()) == (0, True)


def test_the_payload_is_the_one_of_the_seal(workshop: Workshop) -> None:
    hostile = """
        import hashlib, pathlib

        def test_hostile(host, disk, image):
            digest = hashlib.sha256(pathlib.Path(image.device).read_bytes()).hexdigest()
            (image.path / "digest").write_text(digest)
            host.run("rm -rf /etc /root /bin/cat; mkdir /etc; echo >/etc/x; sleep 1000 &")
            done = disk.run(f"dd if=/dev/zero of={image.device} bs=4096 count=1 conv=notrunc", check=False)
            assert "Operation not permitted" in done.output
    """
    directory = workshop.image(yaml="verify_writes: discard", test_10=STEPS, test_90=hostile)
    result = workshop.run()
    assert (result.ret, workshop.published()) == (0, True)
    assert hashlib.sha256((directory / "x.raw").read_bytes()).hexdigest() == (directory / "digest").read_text()


def test_steps_and_checks_in_any_order(workshop: Workshop) -> None:
    workshop.image(
        yaml="verify_writes: discard",
        test_10="""
            import pytest

            def read(host):
                return host.run("cat /etc/motd /etc/check").stdout.split()

            def test_from_the_start(host, image):
                assert read(host) == []
                host.check_output("echo check >/etc/check; rm -r /bin/mv")

            @pytest.mark.provision
            def test_first(chroot, host):
                assert read(host) == [] and chroot.run("test -e /bin/mv")
                chroot.run("echo first >/etc/motd")

            def test_between(host):
                assert read(host) == ["first"]
                host.check_output("echo check >>/etc/motd")

            def test_beside(host):
                assert read(host) == ["first", "check"]

            @pytest.mark.provision
            def test_second(chroot):
                chroot.run("echo second >>/etc/motd")

            def test_at_the_end(host):
                assert read(host) == ["first", "second"]
        """,
    )
    result = workshop.run()
    assert (result.ret, workshop.published()) == (0, True)
    assert workshop.read("/etc/motd") == "first\nsecond\n"


def test_a_check_before_a_step_is_held_to_the_same(workshop: Workshop) -> None:
    workshop.image(test_10="def test_early(host): host.check_output('echo x >/etc/early')", test_20=STEPS)
    result = workshop.run()
    result.stdout.fnmatch_lines(["*a check wrote /etc/early (test_10.py::test_early)*"])
    assert not workshop.published()


def test_an_image_without_steps_is_sealed_from_the_start(workshop: Workshop) -> None:
    workshop.image(
        test_90="""
            from pathlib import Path

            def test_a(host, image):
                assert Path(f"/sys/block/{image.device[5:]}/ro").read_text() == "1\\n"
        """
    )
    assert (workshop.run().ret, workshop.published()) == (0, True)


def test_the_seal_is_a_stage_and_comes_once(workshop: Workshop) -> None:
    workshop.image(test_90="def test_a(host): pass\ndef test_b(host): pass", test_10=STEPS)
    workshop.pytester.makeconftest(
        "import json\n"
        "def pytest_azchroot_finished(image, result):\n"
        "    (image.path / 'stages').write_text(json.dumps(list(result.stages)))\n"
    )
    workshop.run("--rootdir", str(workshop.pytester.path), "-c", "/dev/null")
    stages = json.loads((workshop.pytester.path / "images/x/stages").read_text())
    order = [stage for stage in stages if stage in ("mount", "steps", "seal", "checks", "close")]
    assert order == ["mount", "steps", "seal", "checks", "close"]


def test_checks_see_the_name_resolution_that_ships(workshop: Workshop) -> None:
    resolver = Path("/etc/resolv.conf").read_text()
    check = "def test_a(host): assert host.file('/etc/resolv.conf').content_string == {!r}"
    workshop.image("x", test_10=STEPS, test_90=check.format("nameserver 192.0.2.1\n"))
    workshop.image("y", yaml="verify_network: true", test_10=STEPS, test_90=check.format(resolver))
    workshop.image("z", test_05=check.format("nameserver 192.0.2.1\n"), test_10=STEPS)
    assert workshop.run().ret == 0


def test_a_host_kept_by_a_fixture_works_across_the_seal(workshop: Workshop) -> None:
    workshop.image(
        conftest="""
            import pytest

            @pytest.fixture(scope="package")
            def motd(host):
                return host.file("/etc/motd")
        """,
        test_10="""
            import pytest

            @pytest.mark.provision
            def test_step(chroot, motd):
                assert not motd.exists
                chroot.write_text("/etc/motd", "hello")

            def test_check(motd):
                assert motd.content_string == "hello"
        """,
    )
    assert (workshop.run().ret, workshop.published()) == (0, True)


def test_what_still_runs_at_the_seal_is_named_and_ended(workshop: Workshop) -> None:
    workshop.image(
        conftest="""
            import pytest

            @pytest.fixture(scope="package")
            def daemon(chroot):
                chroot.run("sleep 1234 >/dev/null 2>&1 &")
        """,
        test_10="import pytest\n@pytest.mark.provision\ndef test_step(daemon): pass",
        test_90="def test_a(host): assert '1234' not in host.check_output('ps')",
    )
    result = workshop.run()
    result.stdout.fnmatch_lines(["*still running before test_a, ended: sleep 1234*"])
    assert (result.ret, workshop.published()) == (0, True)


def test_a_daemon_of_a_check_does_not_keep_the_image_busy(workshop: Workshop) -> None:
    check = "def test_a(host): host.run('cd /etc; sleep 1234 >/dev/null 2>&1 &')\ndef test_b(host): pass"
    workshop.image(yaml="verify_writes: discard", test_10=STEPS, test_90=check, test_91=check)
    assert (workshop.run().ret, workshop.published()) == (0, True)


# -- a seal that fails


DAMAGE = """
    import pytest

    @pytest.mark.provision
    def test_step(chroot, disk):
        chroot.write_text("/root/file", "x" * 5000)
        chroot.run_outside("umount -R {mount} && debugfs -w -R 'clri /root/file' {node} && mount {node} {mount}".format(
            mount=chroot.mount_path, node=disk.partition(0)
        ))
"""


def test_an_image_that_does_not_seal_ends_there(workshop: Workshop) -> None:
    workshop.image(test_10=DAMAGE, test_90="def test_a(host): pass\ndef test_b(host): pass")
    result = workshop.run("-rs")
    result.assert_outcomes(passed=1, errors=1, skipped=2)
    result.stdout.fnmatch_lines(["*is not clean*", "*the image did not close: the file system on * is not clean*"])
    assert not workshop.published()


def test_an_image_that_does_not_seal_before_its_only_check(workshop: Workshop) -> None:
    workshop.image(
        yaml="pre_mount_commands: [\"debugfs -w -R 'clri /etc/group' {{ device }}\"]", test_90="def test_a(host): pass"
    )
    result = workshop.run("-rs")
    result.assert_outcomes(errors=1, skipped=1)
    assert not workshop.published()


def test_a_step_after_the_seal_is_refused(workshop: Workshop) -> None:
    workshop.image(test_10=STEPS, test_90="def test_a(host): pass\ndef test_b(chroot): chroot.run('true')")
    workshop.pytester.makeconftest(
        "def pytest_runtest_teardown(item, nextitem):\n"
        "    if nextitem and nextitem.name == 'test_b': nextitem.add_marker('provision')\n"
    )
    result = workshop.run("--rootdir", str(workshop.pytester.path), ".")
    result.stdout.fnmatch_lines(["*the image is sealed, so no step can change it any more*"])
    result.assert_outcomes(passed=2, errors=1, skipped=1)
