"""``--azchroot-verify``: the checks of a suite on an image that exists already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pytest_azchroot.spec import COMMON, Configuration

_BUILDING = frozenset(
    {
        "from_scratch",
        "os_disk_size_gb",
        "output",
        "pre_mount_commands",
        "post_mount_commands",
        "pre_unmount_commands",
        "copy_files",
    }
)
"""Options that say how the image is made. It is there."""


def to_verify(configuration: Configuration, source: str, *, directory: Path) -> Configuration:
    """The configuration for checking an image, which is only looked at.

    :param source: the image: a file, which is looked at on this machine wherever the suite builds otherwise, or what
        the configuration's cloud calls a source.
    :param directory: where pytest was started; a relative path begins here.
    :raises ConfigError: the cloud knows no such source.
    """
    spec, path = configuration.spec, directory / source
    cloud = "local" if path.exists() else spec.cloud
    kept = (spec.model_fields_set if cloud == spec.cloud else spec.model_fields_set & COMMON) - _BUILDING
    values: dict[str, Any] = {name: getattr(spec, name) for name in kept}
    values |= {"cloud": cloud, "source": os.path.abspath(path) if cloud == "local" else source}
    return configuration.with_spec(type(spec).model_validate({**values, "skip_create_image": True}))
