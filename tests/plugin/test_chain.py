"""Images that start from one another, in one session."""

from __future__ import annotations

import pytest

from .conftest import CHECKS, Workshop

pytestmark = pytest.mark.root


def chain(workshop: Workshop, check: str = CHECKS) -> None:
    """Image ``a`` starts from what ``z`` publishes."""
    workshop.image("a", test_90=CHECKS)
    config = workshop.pytester.path / "images" / "a" / "image.yaml"
    config.write_text("cloud: local\nsource: ../z/z.raw\noutput: a.raw\n")
    step = "import pytest\n@pytest.mark.provision\ndef test_step(chroot): chroot.write_text('/etc/motd', 'hello\\n')"
    workshop.image("z", test_10=step, test_90=check)


def test_an_image_is_built_after_the_one_it_starts_from(workshop: Workshop) -> None:
    chain(workshop)
    result = workshop.run("-v")
    result.stdout.fnmatch_lines(["images/z/image.yaml::publish PASSED*", "images/a/image.yaml::publish PASSED*"])
    assert (result.ret, workshop.read("/etc/motd", "a")) == (0, "hello\n")


def test_an_image_whose_source_was_not_published_is_skipped(workshop: Workshop) -> None:
    chain(workshop, "def test_a(host): assert False")
    (workshop.pytester.path / "images" / "z" / "z.raw").write_bytes(workshop.source.read_bytes())
    result = workshop.run("-rs", "--azchroot-overwrite")
    result.stdout.fnmatch_lines(["*its source, the image z, was not published*"])
    result.assert_outcomes(passed=1, failed=1, skipped=3)
    assert not workshop.published("a")


def test_without_publishing_it_starts_from_what_is_there(workshop: Workshop) -> None:
    chain(workshop)
    assert workshop.run("images/z").ret == 0
    assert workshop.run("--azchroot-no-publish").ret == 0


def test_a_missing_source_is_said_before_anything_is_made(workshop: Workshop) -> None:
    chain(workshop)
    result = workshop.run("images/a")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*z.raw*"])


def test_a_circle_is_said_before_anything_is_made(workshop: Workshop) -> None:
    chain(workshop)
    config = workshop.pytester.path / "images" / "z" / "image.yaml"
    config.write_text("cloud: local\nsource: ../a/a.raw\noutput: z.raw\n")
    result = workshop.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["a: its source is made by z, which starts from it"])


def test_two_images_cannot_publish_the_same_file(workshop: Workshop) -> None:
    for name in ("a", "b"):
        config = workshop.image(name) / "image.yaml"
        config.write_text(f"cloud: local\nsource: {workshop.source}\noutput: ../both.raw\n")
    result = workshop.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["b and a would both publish */both.raw"])
