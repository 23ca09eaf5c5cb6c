"""The image as its suite sees it: the value of the fixture ``image``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_azchroot.clouds import Artifact, Disk
from pytest_azchroot.spec import Configuration, ImageSpec


@dataclass
class Image:
    """One image: a directory with an ``image.yaml``.

    What is not known yet is None: the disk before it is created, the device before it is attached.
    """

    name: str
    """The name of the directory."""
    path: Path
    """The directory."""
    configuration: Configuration = field(repr=False)
    disk: Disk | None = None
    device: str | None = None
    """The disk's block device, as commands see it."""
    mount_path: str | None = None
    """Where commands of the build machine find the image's root."""
    artifacts: tuple[Artifact, ...] = ()
    """What was published."""

    @property
    def spec(self) -> ImageSpec:
        """What ``image.yaml`` says, templates of the load stage rendered."""
        return self.configuration.spec

    @property
    def variables(self) -> Mapping[str, str]:
        """The values of the variables that ``image.yaml`` declares."""
        return self.configuration.variables
