"""The hooks that other plugins, and the conftest of an image, may implement.

Every hook is called through the image's node, so a ``conftest.py`` in an image's directory (or above it) hears of its
own images only. The examples are complete: paste one into a ``conftest.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # every session loads this module: it must be light
    from pytest_azchroot.clouds import Artifact, Cloud
    from pytest_azchroot.gate import Verdict
    from pytest_azchroot.image import Image
    from pytest_azchroot.report.result import ImageResult
    from pytest_azchroot.sandbox import Chroot
    from pytest_azchroot.spec import ImageSpec


@pytest.hookspec
def pytest_azchroot_clouds(config: pytest.Config) -> Iterable[Cloud] | None:
    """Offer clouds: places where disks live. The ``local`` cloud is registered by this hook too.

    Of two clouds with one name, the one registered last wins::

        from my_company.clouds import CephCloud


        def pytest_azchroot_clouds(config):
            return [CephCloud(pool="images")]
    """


@pytest.hookspec(firstresult=True)
def pytest_azchroot_spec(image: Image, spec: ImageSpec) -> ImageSpec | None:
    """Change a spec before it is used: return the changed one, or None to leave it.

    Called at collection, offline, once an image. The spec is frozen; it is validated again after the change::

        def pytest_azchroot_spec(image, spec):
            return spec.model_copy(update={"os_disk_size_gb": 4})
    """


@pytest.hookspec
def pytest_azchroot_mounted(image: Image, chroot: Chroot) -> None:
    """The image has been mounted; no step has run yet. What this does to it is part of the image.

    Not called under ``--azchroot-verify``. An exception fails the test that asked for the image::

        def pytest_azchroot_mounted(image, chroot):
            chroot.write_text("/etc/build-id", os.environ["GITHUB_SHA"])
    """


@pytest.hookspec
def pytest_azchroot_verdict(image: Image, verdict: Verdict) -> str | None:
    """Veto the publication of an image that the gate would let pass: return the reason, or None.

    Called when the image is closed, before it is published::

        def pytest_azchroot_verdict(image, verdict):
            if datetime.date.today().weekday() == 4:
                return "no images on a Friday"
    """


@pytest.hookspec
def pytest_azchroot_published(image: Image, artifacts: Sequence[Artifact]) -> None:
    """The image has been published. An exception fails the publish item; the artifacts stay.

    ::

        def pytest_azchroot_published(image, artifacts):
            for artifact in artifacts:
                print(f"{image.name}: {artifact.kind} {artifact.id}")
    """


@pytest.hookspec
def pytest_azchroot_finished(image: Image, result: ImageResult) -> None:
    """The image is finished, published or not, and its disk is released. Called in the process that reports.

    ::

        def pytest_azchroot_finished(image, result):
            Path(f"{image.name}.json").write_text(json.dumps(result.as_json()))
    """
