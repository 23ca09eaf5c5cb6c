"""The fixtures below an image. Each may be overridden in the image's ``conftest.py``, and may ask for itself there.

They are registered on the image's node and not globally: below an image, ``host`` is the image whatever other plugins
say, and other suites never see these names. Each is a view of the :class:`~pytest_azchroot.build.Build`, which owns
the lifetimes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_azchroot.attached import AttachedDisk
from pytest_azchroot.build import Build
from pytest_azchroot.image import Image
from pytest_azchroot.leaving import afterwards
from pytest_azchroot.sandbox import Chroot
from pytest_azchroot.sandbox.testinfra import make_host

if TYPE_CHECKING:
    import testinfra.host


def _build(request: pytest.FixtureRequest) -> Build:
    build: Build = request.node.suite.build
    return build


def image(request: pytest.FixtureRequest) -> Image:
    """What is being built: name, path, spec, variables, disk, device, artifacts. Makes nothing."""
    return _build(request).image


def disk(request: pytest.FixtureRequest, image: Image) -> Iterator[AttachedDisk]:
    """The image's disk, created and attached to this machine, not mounted. ``disk.run`` runs tools on it."""
    build = _build(request)
    with afterwards(request.node.suite.detach):
        yield build.attach()


def _mounted_image(request: pytest.FixtureRequest, disk: AttachedDisk) -> Iterator[Build]:
    build = _build(request)
    suite = request.node.suite
    with afterwards(suite.unmount):
        chroot = build.mount()
        if not suite.policy.verify:
            with suite.mounting():
                request.node.ihook.pytest_azchroot_mounted(image=build.image, chroot=chroot)
        suite.prepare()
        yield build


def chroot(_mounted_image: Build) -> Chroot:
    """The mounted image, for steps: ``run``, ``script``, ``put``, ``get``, ``write_text``, ``read_text``.

    Its methods refuse when they are called by a check: what changes the image is marked ``provision``.
    """
    assert _mounted_image.chroot is not None
    return _mounted_image.chroot


def host(_mounted_image: Build) -> testinfra.host.Host:
    """The image as a testinfra host: ``host.package("nginx").is_installed``, ``host.file(…)``, ``host.run(…)``."""
    assert _mounted_image.sandbox is not None
    return make_host(_mounted_image.sandbox, timeout=_mounted_image.image.spec.command_timeout)


def _testinfra_host() -> None:
    """testinfra's own host would be this machine, as root."""
    pytest.fail(WRONG_HOST, pytrace=False)


WRONG_HOST = (
    "`_testinfra_host` is testinfra's own connection, which below an image would be the build machine; "
    "ask for the fixture `host`, which is the image"
)

FIXTURES: dict[str, Callable[..., object]] = {
    "image": image,
    "disk": disk,
    "_mounted_image": _mounted_image,
    "chroot": chroot,
    "host": host,
    "_testinfra_host": _testinfra_host,
}
"""Name and function of every fixture of an image's node, package scope."""
