"""``shared_image_destination``: the gallery image version that an Azure build publishes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from pytest_azchroot.spec.fields import Checked, Choice, Count, Flag, fail, to_tuple

GALLERY_STORAGE = ("Standard_LRS", "Standard_ZRS", "Premium_LRS", "PremiumV2_LRS")
"""StorageAccountType of a gallery image version, Microsoft.Compute 2023-07-03 and later."""

_LARGEST = 2**31 - 1
"""Azure keeps each part of a version as a signed 32 bit integer."""


def _version(text: str) -> None:
    if not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", text):
        raise fail(f"{text!r} is not three numbers with dots between, like 1.0.0")
    if any(int(part) > _LARGEST for part in text.split(".")):
        raise fail(f"{text!r} has a part above {_LARGEST}, which Azure does not take")


def _name(text: str) -> None:
    if not text.strip():
        raise fail("is empty")
    if "/" in text:
        raise fail(f"{text!r} is not a name", "give the last part of the id alone")


class Strict(BaseModel):
    """What all models of image.yaml have in common."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)


class TargetRegion(Strict):
    """A region in which the image version is stored."""

    name: Annotated[str, Checked(_name)]
    """The region, like `westeurope`."""
    replicas: Count = 1
    """How many copies the region keeps, 1 to 100."""
    storage_account_type: Annotated[str, Choice(GALLERY_STORAGE)] = "Standard_ZRS"
    """What kind of storage the copies are on."""


def _regions(regions: tuple[TargetRegion, ...]) -> tuple[TargetRegion, ...]:
    seen = set()
    for region in regions:
        # Azure takes "West Europe" for westeurope.
        plain = region.name.lower().replace(" ", "")
        if plain in seen:
            raise fail(f"the region {region.name!r} is listed twice")
        seen.add(plain)
    return regions


class SharedImageDestination(Strict):
    """A gallery image version to publish. The gallery and the image definition must exist."""

    resource_group: Annotated[str, Checked(_name)]
    """The resource group of the gallery."""
    gallery_name: Annotated[str, Checked(_name)]
    """The gallery."""
    image_name: Annotated[str, Checked(_name)]
    """The image definition in the gallery."""
    image_version: Annotated[str, Checked(_version, r"^[0-9]+\.[0-9]+\.[0-9]+$")]
    """The version to make: three numbers with dots between."""
    target_regions: Annotated[tuple[TargetRegion, ...], BeforeValidator(to_tuple), AfterValidator(_regions)] = ()
    """Where the version is stored; none means the region of the build VM alone."""
    exclude_from_latest: Flag = False
    """Whether those who ask for the latest version pass this one over."""
