"""What the plugin does to sessions that have no image, and to those that begin below one."""

from __future__ import annotations

import pytest

from .conftest import STEPS, Workshop

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    "args",
    [["--confcutdir=images/x/sub"], ["--rootdir=images/x/sub"], ["--pyargs", "sub.test_h"]],
    ids=lambda args: args[0].partition("=")[0],
)
def test_host_is_never_the_build_machine_where_the_image_was_left_out(workshop: Workshop, args: list[str]) -> None:
    sub = workshop.image(test_10=STEPS) / "sub"
    sub.mkdir()
    (sub / "__init__.py").touch()
    (sub / "test_h.py").write_text("def test_h(host): assert host.backend.NAME == 'local'")
    workshop.pytester.syspathinsert(sub.parent)
    path = [] if "--pyargs" in args else ["images/x/sub"]
    result = workshop.pytester.runpytest_inprocess("-p", "no:randomly", *args, *path)
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        ["*the image in *images/x was left out*build machine*", "hint: run pytest on *images/x,*"]
    )


@pytest.mark.parametrize("plugin", ["logging", "capture", "setupplan", "warnings", "unittest", "doctest", "debugging"])
@pytest.mark.parametrize("image", [False, True], ids=["plain", "image"])
def test_plugins_of_pytest_may_be_switched_off(workshop: Workshop, plugin: str, image: bool) -> None:
    if image:
        workshop.image()
    else:
        workshop.pytester.makepyfile(test_plain="def test_plain(): pass")
    result = workshop.pytester.runpytest_subprocess("-p", "no:randomly", "-p", f"no:{plugin}")
    assert result.ret == 0
    assert workshop.published() == image


def test_a_session_without_images_loads_nothing_of_them(workshop: Workshop) -> None:
    workshop.pytester.makepyfile(
        "import sys\ndef test_plain(): assert not {'pydantic', 'jinja2', 'pytest_azchroot.build'} & set(sys.modules)"
    )
    assert workshop.pytester.runpytest_subprocess("-p", "no:randomly").ret == 0
