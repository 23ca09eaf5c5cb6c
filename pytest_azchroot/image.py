"""The image as its suite sees it: the value of the fixture ``image``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_azchroot.clouds import Artifact, Disk
from pytest_azchroot.spec import Configuration, ImageSpec
from pytest_azchroot.spec.templates import VM_KEYS


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
    vm: Any = None
    """The virtual machine that it is built on, on a cloud that has one: its ``name``, ``subscription_id``,
    ``resource_group``, ``location``, ``resource_id``, ``zone``, ``size``, ``vm_id`` and ``tags``. Known before the
    first test."""
    lun: int | None = None
    """The logical unit number of its disk, on Azure."""
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
    def source(self) -> str | None:
        """Where the bytes of its disk came from: a path, a resource id, ``scratch``; None before there is a disk."""
        return self.disk.source if self.disk else None

    @property
    def source_version(self) -> str | None:
        """The version of its source, ``latest`` resolved; None where it has none, and before there is a disk."""
        return self.disk.source_version if self.disk else None

    @property
    def environment(self) -> Mapping[str, str]:
        """What scripts and commands see of it: variables ``AZCHROOT_…`` of what is known by now."""
        values: dict[str, object] = {
            "IMAGE": self.name,
            "DEVICE": self.device,
            "MOUNT_PATH": self.mount_path,
            "SOURCE": self.source,
            "SOURCE_VERSION": self.source_version,
        }
        if self.lun is not None and self.disk is not None:
            values |= {"LUN": self.lun, "DISK_ID": self.disk.id}
        if self.vm is not None:
            values |= {f"VM_{key.upper()}": getattr(self.vm, key, None) for key in VM_KEYS}
        return {f"AZCHROOT_{key}": str(value) for key, value in values.items() if value is not None}

    @property
    def variables(self) -> Mapping[str, str]:
        """The values of the variables that ``image.yaml`` declares."""
        return self.configuration.variables
