"""Images that start from what others of the same session publish. Pure but for links in the file system."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_azchroot.image import Image
from pytest_azchroot.spec.azure_ids import GalleryImageVersionId, parse_source

_AZURE = "azure"
_LATEST = "latest"
_IN_A_SUBSCRIPTION = re.compile(r"^/subscriptions/\{\{[^{}]*\}\}/")
"""One that only the machine knows; which it is makes no difference here (:func:`_version`)."""


def needs(image: Image) -> str | None:
    """What the disk of an image starts from, if another image may publish it, by a name that both have for it."""
    source = image.spec.source
    if source is None:
        return None
    if image.spec.cloud != _AZURE:
        return _file(image.path, source)
    try:
        found = parse_source(_IN_A_SUBSCRIPTION.sub("/subscriptions/any/", source))
    except ValueError:  # a template waits for the machine in it
        return None
    return _version(found) if isinstance(found, GalleryImageVersionId) else None


def makes(image: Image) -> frozenset[str]:
    """What an image publishes, by such names."""
    spec = image.spec
    if spec.cloud != _AZURE:
        return frozenset(_file(image.path, name) for name in spec.output)
    names = set() if spec.image_resource_id is None else {spec.image_resource_id.lower()}
    if (wanted := spec.shared_image_destination) is not None:
        # The subscription may be known only to the machine.
        names.add(
            _version(
                GalleryImageVersionId(
                    "", wanted.resource_group, wanted.gallery_name, wanted.image_name, wanted.image_version
                )
            )
        )
    return frozenset(names)


def are_met(wanted: str | None, made: frozenset[str]) -> bool:
    """Whether what an image needs is among what another one publishes."""
    if wanted is None or not wanted.endswith(f"/{_LATEST}"):
        return wanted in made
    return any(each.rpartition("/")[0] == wanted.rpartition("/")[0] for each in made)


def coming(image: Image) -> str | None:
    """What the image needs, as its cloud names it (:attr:`~pytest_azchroot.clouds.Order.coming`)."""
    return image.spec.source if image.spec.cloud == _AZURE else needs(image)


def _file(directory: Path, name: str) -> str:
    """A file named in image.yaml, by the one path that it has whatever links lead to it; itself not followed."""
    path = directory / name
    return str(path.parent.resolve() / path.name)


def _version(id: GalleryImageVersionId) -> str:
    return "/".join(("galleries", id.resource_group, id.gallery, id.image, id.version)).lower()
