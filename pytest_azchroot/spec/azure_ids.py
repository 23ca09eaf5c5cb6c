"""Azure's names for things, parsed: platform image URNs and Azure Resource Manager ids. Pure.

Types and names in ids are compared without case, as Azure does; the spelling is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

_URN_PART = re.compile(r"[-_.a-zA-Z0-9]+\Z")

SOURCE_FORMS = (
    "a platform image (publisher:offer:sku:version), the id of a managed disk (/subscriptions/…/resourceGroups/…"
    "/providers/Microsoft.Compute/disks/NAME), or that of a gallery image version "
    "(…/providers/Microsoft.Compute/galleries/NAME/images/NAME/versions/VERSION)"
)


@dataclass(frozen=True)
class PlatformImage:
    """An image of Azure's marketplace."""

    publisher: str
    offer: str
    sku: str
    version: str

    def __str__(self) -> str:
        return f"{self.publisher}:{self.offer}:{self.sku}:{self.version}"

    @property
    def is_latest(self) -> bool:
        """Whether the version is still to be found: ``latest``, in any case."""
        return self.version.lower() == "latest"


@dataclass(frozen=True)
class ResourceId:
    """Any Azure Resource Manager id of a resource in a resource group."""

    subscription_id: str
    resource_group: str
    namespace: str
    types: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def kind(self) -> str:
        """``Microsoft.Compute/galleries/images``, as spelled."""
        return "/".join((self.namespace, *self.types))

    def __str__(self) -> str:
        tail = "/".join(f"{kind}/{name}" for kind, name in zip(self.types, self.names, strict=True))
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/{self.namespace}/{tail}"


@dataclass(frozen=True)
class _Compute:
    subscription_id: str
    resource_group: str
    name: str

    def _id(self, collection: str) -> str:
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/Microsoft.Compute/{collection}/{self.name}"


class DiskId(_Compute):
    """A managed disk."""

    def __str__(self) -> str:
        return self._id("disks")


class SnapshotId(_Compute):
    """A snapshot of a managed disk."""

    def __str__(self) -> str:
        return self._id("snapshots")


class ImageId(_Compute):
    """A managed image."""

    def __str__(self) -> str:
        return self._id("images")


@dataclass(frozen=True)
class GalleryImageVersionId:
    """A version of an image in an Azure Compute Gallery."""

    subscription_id: str
    resource_group: str
    gallery: str
    image: str
    version: str

    def __str__(self) -> str:
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
        path = f"galleries/{self.gallery}/images/{self.image}/versions/{self.version}"
        return f"{group}/providers/Microsoft.Compute/{path}"


Source: TypeAlias = "PlatformImage | DiskId | GalleryImageVersionId"


def parse_resource_id(text: str) -> ResourceId:
    """Read ``/subscriptions/S/resourceGroups/G/providers/NAMESPACE/TYPE/NAME[/TYPE/NAME…]``.

    :raises ValueError: with what is wrong with it.
    """
    if not text.startswith("/"):
        raise ValueError("it does not begin with /subscriptions/")
    parts = text[1:].split("/")
    if "" in parts:
        raise ValueError("it has an empty part")
    fixed = [part.lower() for part in parts[0:5:2]]
    if fixed != ["subscriptions", "resourcegroups", "providers"][: len(fixed)] or len(parts) < 8:
        raise ValueError("it is not /subscriptions/…/resourceGroups/…/providers/NAMESPACE/TYPE/NAME")
    tail = parts[6:]
    if len(tail) % 2:
        raise ValueError(f"{tail[-1]} has no name behind it")
    return ResourceId(parts[1], parts[3], parts[5], tuple(tail[0::2]), tuple(tail[1::2]))


def parse_disk_id(text: str) -> DiskId:
    """:raises ValueError: it is not the id of a managed disk."""
    return DiskId(*_compute(text, "disks"))


def parse_snapshot_id(text: str) -> SnapshotId:
    """:raises ValueError: it is not the id of a snapshot."""
    return SnapshotId(*_compute(text, "snapshots"))


def parse_image_id(text: str) -> ImageId:
    """:raises ValueError: it is not the id of a managed image."""
    return ImageId(*_compute(text, "images"))


def parse_gallery_image_version_id(text: str) -> GalleryImageVersionId:
    """:raises ValueError: it is not the id of a gallery image version."""
    found = _of_kind(text, "Microsoft.Compute/galleries/images/versions")
    return GalleryImageVersionId(found.subscription_id, found.resource_group, *found.names)


def parse_platform_image(text: str) -> PlatformImage:
    """:raises ValueError: it is not ``publisher:offer:sku:version``."""
    parts = text.split(":")
    if len(parts) != 4 or not all(_URN_PART.match(part) for part in parts):
        raise ValueError("it is not publisher:offer:sku:version")
    return PlatformImage(*parts)


def parse_source(text: str) -> Source:
    """What an image on Azure is built from.

    :raises ValueError: it has none of the three forms.
    """
    if ":" in text and not text.startswith("/"):
        return parse_platform_image(text)
    found = parse_resource_id(text)
    if found.kind.lower() == "microsoft.compute/disks":
        return parse_disk_id(text)
    if found.kind.lower() == "microsoft.compute/galleries/images/versions":
        return parse_gallery_image_version_id(text)
    raise ValueError(f"it is the id of a {found.kind}")


def _compute(text: str, collection: str) -> tuple[str, str, str]:
    found = _of_kind(text, f"Microsoft.Compute/{collection}")
    return found.subscription_id, found.resource_group, found.names[0]


def _of_kind(text: str, kind: str) -> ResourceId:
    found = parse_resource_id(text)
    if found.kind.lower() != kind.lower():
        raise ValueError(f"it is the id of a {found.kind}, not of a {kind}")
    return found
