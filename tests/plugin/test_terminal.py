"""What a person reads: header, output of commands, errors, closing section, and never a secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .conftest import CHECKS, STEPS, Workshop

pytestmark = pytest.mark.root

TALK = """
    import pytest

    @pytest.mark.provision
    def test_step(chroot):
        chroot.write_text("/etc/motd", "hello\\n")
        chroot.run("echo working; echo grumbling >&2")
"""


def test_the_header_says_what_will_happen(workshop: Workshop) -> None:
    workshop.image("x")
    workshop.image("y")
    result = workshop.run("--collect-only")
    result.stdout.fnmatch_lines(
        ["azchroot: 2 images (x, y), cloud local (image.yaml), publishing on, if all tests pass"]
    )


def test_the_header_says_where_the_cloud_was_chosen(workshop: Workshop) -> None:
    workshop.image()
    result = workshop.run("--azchroot-cloud", "local", "--collect-only")
    result.stdout.fnmatch_lines(["*cloud local (--azchroot-cloud)*"])


def test_there_is_no_header_without_images(workshop: Workshop) -> None:
    workshop.pytester.makepyfile(test_plain="def test_plain(): pass")
    result = workshop.pytester.runpytest_inprocess("test_plain.py")
    result.stdout.no_fnmatch_line("*azchroot:*")
    result.stdout.no_fnmatch_line("*= images =*")


def test_the_closing_section_has_one_line_an_image(workshop: Workshop) -> None:
    workshop.image("x")
    workshop.image("y", test_90="def test_a(host): assert False")
    result = workshop.run()
    result.stdout.fnmatch_lines(
        ["*= images =*", "x  published  images/x/x.raw (24.0 MiB, *on disk)*", "y  not published: 1 failed*"]
    )


def test_output_of_commands_is_shown_as_it_comes(workshop: Workshop) -> None:
    workshop.image(test_10=TALK, test_90=CHECKS)
    workshop.run("-s").stdout.fnmatch_lines_random(["*working", "grumbling"])


def test_output_of_commands_goes_to_the_live_log(workshop: Workshop) -> None:
    workshop.image(test_10=TALK, test_90=CHECKS)
    workshop.run("-o", "log_cli=true").stdout.fnmatch_lines_random(["*INFO*working*", "*INFO*grumbling*"])


def test_output_of_commands_is_kept_for_the_report(workshop: Workshop) -> None:
    workshop.image(test_10=TALK + "        assert False\n")
    workshop.run().stdout.fnmatch_lines(["*Captured azchroot call*", "working", "grumbling"])


def test_output_is_not_in_the_way_otherwise(workshop: Workshop) -> None:
    workshop.image(test_10=TALK, test_90=CHECKS)
    workshop.run().stdout.no_fnmatch_line("working")


def test_a_failing_command_says_what_where_and_how(workshop: Workshop) -> None:
    workshop.image(
        test_10="import pytest\n@pytest.mark.provision\ndef test_step(chroot): chroot.run('echo no such luck >&2; exit 3')"
    )
    workshop.run().stdout.fnmatch_lines(["*exit 3*", "*no such luck*"])


def test_a_wrong_config_lists_every_problem_with_its_line(workshop: Workshop) -> None:
    workshop.image(yaml="os_disk_size: 4\nmount_partiton: 1\n")
    result = workshop.run()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*image.yaml:4: *os_disk_size*", "*image.yaml:5: *mount_partiton*"])
    result.stdout.fnmatch_lines(["*mount_partition*"])


def test_a_full_disk_is_named(workshop: Workshop, tmp_path: Path) -> None:
    """The loop device has only an I/O error to tell; the file system that holds the image is what is full."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], check=True)
    try:
        workshop.image(
            yaml=f"clouds: {{local: {{output: {tmp_path}/x.raw}}}}",
            test_10="import pytest\n@pytest.mark.provision\ndef test_step(chroot): chroot.run('cat /dev/urandom >/big')",
        )
        result = workshop.run()
        result.stdout.fnmatch_lines([f"hint: the file system at {tmp_path}* is full*"])
        assert (result.ret, list(tmp_path.iterdir())) == (1, [])
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_unknown_variables_are_an_error(workshop: Workshop) -> None:
    workshop.image("x", yaml="variables: {colour: red}")
    result = workshop.run("--azchroot-var", "color=blue")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*color*colour*"])


def test_variables_come_from_everywhere(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZCHROOT_VAR_B", "env")
    (workshop.pytester.path / "vars.yaml").write_text("c: file\n")
    workshop.image(
        yaml="variables: {a: default, b: default, c: default, d: default}",
        test_10=STEPS,
        test_90="def test_a(image, host):\n  host.run('true')\n"
        "  assert image.variables == {'a': 'default', 'b': 'env', 'c': 'file', 'd': 'option'}",
    )
    assert workshop.run("--azchroot-var", "d=option", "--azchroot-var-file", "vars.yaml").ret == 0


SECRET = "correct horse battery staple"


LEAKS = [
    "chroot.run('echo ' + image.variables['password'] + '; false')",
    "chroot.run(['echo', image.variables['password']]); assert False",
    "assert image.variables['password'] == 'x'",
    "assert [image.variables['password']] * 40 == []",
    "raise ValueError(image.variables['password'])",
    "pytest.skip(image.variables['password'])",
    "chroot.run('sh -c \"sleep 1000 && echo ' + image.variables['password'] + '\" &')",
    "print(image.variables['password']); assert 0",
    "import logging; logging.warning(image.variables['password']); assert 0",
]

ARGS: list[tuple[str, ...]] = [(), ("-vv", "-l"), ("--tb=native",), ("-s",), ("-o", "log_cli=true")]


@pytest.mark.parametrize(
    ("step", "args"),
    [
        (step, args)
        for step in LEAKS
        for args in ARGS
        if not (args and args[0] in ("-s", "-o") and step.startswith(("print(", "import logging")))
    ],
)
def test_a_secret_appears_nowhere(workshop: Workshop, step: str, args: tuple[str, ...]) -> None:
    workshop.image(
        yaml="variables:\n  password: {sensitive: true}",
        test_10=f"import pytest\n@pytest.mark.provision\ndef test_step(chroot, image): {step}",
        test_90=CHECKS,
    )
    result = workshop.run("-rA", "--junitxml=out.xml", "--azchroot-var", f"password={SECRET}", *args)
    text = str(result.stdout) + str(result.stderr) + (workshop.pytester.path / "out.xml").read_text()
    assert "test_step" in text
    for part in (SECRET, "correct horse", "battery staple"):
        assert part not in text
