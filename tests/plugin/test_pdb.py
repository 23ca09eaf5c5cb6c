"""A debugger in steps and checks: everything works at its prompt, and however it is left nothing stays behind."""

from __future__ import annotations

import os
import signal

import pytest

from .conftest import CHECKS, STEPS, Workshop
from .person import PROMPT, in_front_of

pytestmark = pytest.mark.root

FAILING_STEP = """
    import pytest

    @pytest.mark.provision
    def test_step(chroot, image):
        chroot.write_text("/etc/motd", "hello\\n")
        assert chroot.run("cat /etc/motd").stdout == "goodbye\\n"
"""

FAILING_CHECK = """
    def test_check(host):
        host.check_output("echo x >/etc/by_a_check")
        assert host.file("/etc/motd").content_string == "goodbye\\n"
"""

STOPPING_STEP = """
    import pytest

    @pytest.mark.provision
    def test_step(chroot):
        chroot.write_text("/etc/motd", "hello\\n")
        breakpoint()
        chroot.write_text("/etc/after", "the prompt\\n")
"""


CAPTURING = pytest.mark.parametrize("capturing", [(), ("-s",)], ids=["captured", "uncaptured"])


def ended(workshop: Workshop) -> None:
    """Nothing is left, nothing was published."""
    workshop.wait_until_clean()
    assert not workshop.published()
    assert sorted(path.suffix for path in (workshop.pytester.path / "images/x").iterdir() if path.is_file()) == [
        ".py", ".py", ".yaml",
    ]  # fmt: skip


@pytest.mark.parametrize(("capturing", "word", "code"), [((), "c", 1), (("-s",), "q", 2)])
def test_a_failing_step(workshop: Workshop, capturing: tuple[str, ...], word: str, code: int) -> None:
    workshop.image(test_10=FAILING_STEP, test_90=CHECKS)
    with in_front_of(workshop.pytester.path, "--pdb", *capturing, "images") as person:
        person.waits_for("entering PDB")
        person.waits_for(PROMPT)
        assert "code=0" in person.asks('chroot.run("echo seen >/etc/seen")')
        assert person.asks('chroot.run("cat /etc/seen").stdout').endswith(r"'seen\n'")
        assert "hello" in person.asks('chroot.read_text("/etc/motd")')
        assert "CommandError: `false` exited with 1" in person.asks('chroot.run("false")')
        assert "/dev/loop" in person.asks("image.device")
        person.types(word)
        assert person.leaves() == code
    assert ("1 failed, 2 skipped" in person.seen) == (word == "c")
    ended(workshop)


@pytest.mark.parametrize(("capturing", "word", "code"), [((), "q", 2), (("-s",), "c", 1)])
def test_a_failing_check(workshop: Workshop, capturing: tuple[str, ...], word: str, code: int) -> None:
    workshop.image(test_10=STEPS, test_90=FAILING_CHECK)
    with in_front_of(workshop.pytester.path, "--pdb", *capturing, "images") as person:
        person.waits_for("entering PDB")
        person.waits_for(PROMPT)
        assert r"'hello\n'" in person.asks('host.file("/etc/motd").content_string')
        assert "True" in person.asks('host.file("/etc/by_a_check").exists')
        assert "root" in person.asks('host.check_output("id -un")')
        assert "Read-only" not in person.asks('host.run("echo x >/etc/at_the_prompt")')
        person.types(word)
        assert person.leaves() == code
    ended(workshop)


@CAPTURING
def test_a_breakpoint_that_is_left_by_c_changes_nothing(workshop: Workshop, capturing: tuple[str, ...]) -> None:
    workshop.image(test_10=STOPPING_STEP, test_90=CHECKS)
    with in_front_of(workshop.pytester.path, *capturing, "images") as person:
        person.waits_for(PROMPT)
        assert "code=0" in person.asks('chroot.run("echo typed >/etc/typed")')
        person.types("c")
        assert person.leaves() == 0
    assert workshop.published()
    assert (workshop.read("/etc/typed"), workshop.read("/etc/after")) == ("typed\n", "the prompt\n")


@pytest.mark.parametrize(("capturing", "place"), [(("-s",), "step"), ((), "check")])
def test_a_breakpoint_that_is_left_by_q_publishes_nothing(
    workshop: Workshop, capturing: tuple[str, ...], place: str
) -> None:
    stopping = STOPPING_STEP if place == "step" else STEPS
    check = CHECKS if place == "step" else "def test_check(host): breakpoint()"
    workshop.image(test_10=stopping, test_90=check)
    with in_front_of(workshop.pytester.path, *capturing, "images") as person:
        person.waits_for(PROMPT)
        person.types("q")
        assert person.leaves() == 2
    assert "x  not published: " in person.seen
    ended(workshop)


def test_trace(workshop: Workshop) -> None:
    workshop.image()
    with in_front_of(workshop.pytester.path, "--trace", "images") as person:
        person.waits_for(PROMPT)
        assert "code=0" in person.asks('chroot.run("true")')
        person.types("c")
        person.waits_for(PROMPT)
        assert r"'hello\n'" in person.asks('host.file("/etc/motd").content_string')
        person.types("c")
        assert person.leaves() == 0
    assert workshop.published()


def test_an_interrupt_at_the_prompt_ends_the_command_only(workshop: Workshop) -> None:
    workshop.image(test_10=STOPPING_STEP, test_90=CHECKS)
    with in_front_of(workshop.pytester.path, "images") as person:
        person.waits_for(PROMPT)
        person.types('chroot.run("echo started >/etc/started; sleep 1000")')
        person.waits(1)
        person.interrupts()
        person.waits_for("KeyboardInterrupt")
        person.waits_for(PROMPT)
        assert "started" in person.asks('chroot.run("cat /etc/started").stdout')
        assert "sleep" not in person.asks('[line for line in chroot.run("ps").stdout.splitlines() if "1000" in line]')
        person.types("c")
        assert person.leaves() == 0
    assert workshop.published()


def test_a_seal_that_fails_can_be_looked_at(workshop: Workshop) -> None:
    step = """
        import pytest

        @pytest.mark.provision
        def test_step(chroot, disk):
            chroot.write_text("/root/file", "x" * 5000)
            chroot.run_outside("umount -R {mount} && debugfs -w -R 'clri /root/file' {node} && mount {node} {mount}".format(
                mount=chroot.mount_path, node=disk.partition(0)
            ))
    """
    workshop.image(test_10=step, test_90=CHECKS)
    with in_front_of(workshop.pytester.path, "--pdb", "images") as person:
        person.waits_for("is not clean")
        person.waits_for(PROMPT)
        person.types("q")
        assert person.leaves() == 2
    ended(workshop)


@pytest.mark.flaky(reruns=2)  # on a busy machine the signal may come before the prompt reads
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL, signal.SIGTERM])
def test_a_terminal_that_goes_away_at_the_prompt(workshop: Workshop, number: signal.Signals) -> None:
    workshop.image(test_10=STOPPING_STEP, test_90=CHECKS)
    with in_front_of(workshop.pytester.path, "images", is_killed=number != signal.SIGTERM) as person:
        person.waits_for(PROMPT)
        os.kill(person.process.pid, number)
        assert person.leaves() != 0
    ended(workshop)


def test_a_long_test_shows_its_time(workshop: Workshop) -> None:
    """What the next test is about, happens at all."""
    workshop.image(test_10=STEPS, test_90="import time\ndef test_check(host): time.sleep(4)")
    with in_front_of(workshop.pytester.path, "images") as person:
        person.waits_for(r" s x: test_check")
        assert person.leaves() == 0


def test_nothing_is_written_into_the_prompt(workshop: Workshop) -> None:
    """The running time of a test is shown while it lasts, but not to somebody who types."""
    workshop.image(test_10=STOPPING_STEP, test_90=CHECKS)
    with in_front_of(workshop.pytester.path, "images") as person:
        person.waits_for(PROMPT)
        before = person.raw
        person.waits(4)
        assert person.raw == before
        person.types("q")
        person.leaves()


def test_what_a_command_writes_is_shown_at_the_prompt(workshop: Workshop) -> None:
    step = STOPPING_STEP + "        chroot.run('echo unseen')\n"
    workshop.image(test_10=step, test_90=CHECKS)
    with in_front_of(workshop.pytester.path, "images") as person:
        person.waits_for(PROMPT)
        assert "$ echo spoken\nspoken\n" in person.asks('chroot.run("echo spoken")')
        person.types("c")
        assert person.leaves() == 0
    assert "unseen" not in person.seen
