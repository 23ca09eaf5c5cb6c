"""What an image calls things does not steer the terminal of who reads of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_azchroot import inspection
from pytest_azchroot.errors import SandboxError
from pytest_azchroot.printable import printable
from pytest_azchroot.sandbox import CommandError, Completed
from pytest_azchroot.sandbox.process import shown

TITLE = "\x1b]0;owned\x07"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("größe 5 ± 1", "größe 5 ± 1"),
        (TITLE, r"\x1b]0;owned\x07"),
        ("a\nazchroot: b\r", r"a\nazchroot: b\r"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_is_not_visible_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(expected) == expected, "what was said already can be said again"


def test_colours_end_where_they_are_kept() -> None:
    assert printable("\x1b[31mred\x1b[2J", colours=True) == "\x1b[31mred\\x1b[2J\x1b[0m"
    assert printable("plain", colours=True) == "plain"


def test_an_error_keeps_its_lines() -> None:
    error = SandboxError(f"{TITLE}what", why="one\n\ttwo", hint="\x1b[31mdo")
    assert str(error) == "\\x1b]0;owned\\x07what: one\n\ttwo\nhint: \\x1b[31mdo"


def test_a_command_may_have_colours() -> None:
    error = CommandError(Completed("make", 1, 0.0, (("stdout", f"\x1b[31merror\x1b[0m {TITLE}\n".encode()),)))
    assert str(error) == "`make` exited with 1: \n\x1b[31merror\x1b[0m \\x1b]0;owned\\x07\x1b[0m"


def test_a_process_is_called_what_can_be_shown() -> None:
    with subprocess.Popen([f"{TITLE}\nazchroot: all is well", "1000"], executable="/bin/sleep") as process:
        [found] = shown([process.pid])
        process.kill()
    assert found.command == r"\x1b]0;owned\x07\nazchroot: all is well 1000"


@pytest.mark.root
def test_an_inspection_of_a_hostile_disk(tmp_path: Path) -> None:
    disk, root = tmp_path / "disk.raw", tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "os-release").write_text(f"PRETTY_NAME='{TITLE}Linux'\n")
    lines = [f"LABEL=root / ext4 defaults,{TITLE}", f"UUID={TITLE} /srv{TITLE} ext4 nofail", f"{TITLE} /x tmpfs"]
    (root / "etc" / "fstab").write_text("\n".join(lines) + "\n")
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    table = f'label: gpt\nstart=1MiB, size=40MiB, name="{TITLE}"\nsize=+, name="{TITLE}"\n'
    subprocess.run(["sfdisk", "--quiet", disk], input=table, text=True, check=True, stdout=subprocess.DEVNULL)
    make = ["mkfs.ext4", "-q", "-L", "root", "-d", root, "-E", "offset=1048576", disk, "40M"]
    subprocess.run([str(each) for each in make], check=True)
    text = inspection.as_text(inspection.inspect(disk))
    assert "\x1b" not in text
    assert text.count(r"\x1b]0;owned\x07") >= 4, text
