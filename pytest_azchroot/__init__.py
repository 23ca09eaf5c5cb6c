"""Build, test and publish OS images as pytest suites.

The names below are the public ones, for annotations, conftests and clouds of your own. They are imported when they
are asked for: the sandbox's processes import this package with the standard library alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_azchroot.attached import AttachedDisk
    from pytest_azchroot.clouds import Artifact, Attachment, Cloud, Disk, Order
    from pytest_azchroot.errors import (
        AzchrootError,
        AzchrootWarning,
        DirtyImageError,
        DiskError,
        PublishError,
        SandboxError,
        UnavailableError,
    )
    from pytest_azchroot.gate import Verdict
    from pytest_azchroot.image import Image
    from pytest_azchroot.report.result import ImageResult
    from pytest_azchroot.sandbox import Chroot, CommandError, Completed
    from pytest_azchroot.spec import ConfigError, Configuration, ImageSpec

__version__ = "0.1.0"

_HOMES = {
    "attached": ("AttachedDisk",),
    "clouds": ("Artifact", "Attachment", "Cloud", "Disk", "Kept", "Order"),
    "errors": (
        "AzchrootError",
        "AzchrootWarning",
        "DirtyImageError",
        "DiskError",
        "PublishError",
        "SandboxError",
        "UnavailableError",
    ),
    "gate": ("Verdict",),
    "image": ("Image",),
    "report.result": ("ImageResult",),
    "sandbox": ("Chroot", "CommandError", "Completed"),
    "spec": ("ConfigError", "Configuration", "ImageSpec"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Artifact",
    "AttachedDisk",
    "Attachment",
    "AzchrootError",
    "AzchrootWarning",
    "Chroot",
    "Cloud",
    "CommandError",
    "Completed",
    "ConfigError",
    "Configuration",
    "DirtyImageError",
    "Disk",
    "DiskError",
    "Image",
    "ImageResult",
    "ImageSpec",
    "Kept",
    "Order",
    "PublishError",
    "SandboxError",
    "UnavailableError",
    "Verdict",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
