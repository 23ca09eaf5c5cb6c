"""pydantic's errors in plain words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from pytest_azchroot.spec.destination import SharedImageDestination, TargetRegion
from pytest_azchroot.spec.fields import described
from pytest_azchroot.spec.model import ImageFile, Options
from pytest_azchroot.spec.problems import Place, near

_OTHER_TOOLS: Mapping[str, str] = {
    # amazon-chroot
    "source_ami": "it is source here",
    "ami_name": "it is image_resource_id here, or shared_image_destination",
    "ami_regions": "it is target_regions in shared_image_destination here",
    "root_volume_size": "it is os_disk_size_gb here",
    "root_volume_type": "it is os_disk_storage_account_type here",
    "skip_create_ami": "it is skip_create_image here",
    # azure-arm
    "managed_image_name": "it is image_resource_id here, a whole id",
    "managed_image_storage_account_type": "it is os_disk_storage_account_type here",
    "shared_image_gallery_destination": "it is shared_image_destination here",
    "disk_caching_type": "it is os_disk_cache_type here",
    "image_publisher": "it is source here: publisher:offer:sku:version",
    "image_offer": "it is source here: publisher:offer:sku:version",
    "image_sku": "it is source here: publisher:offer:sku:version",
    "image_version": "it belongs into shared_image_destination",
    # Packer's template
    "type": "the cloud is chosen with cloud: azure",
    "provisioners": "steps are tests marked provision, beside image.yaml",
    "provisioner": "steps are tests marked provision, beside image.yaml",
    "builders": "its options stand at the top level here",
    # azure-chroot's old spelling
    "exlude_from_latest": "it is exclude_from_latest",
    "target_region": "it is target_regions, a list",
}

_MEANT = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
}


_LIMITS = {
    "greater_than_equal": "must be {ge} or more, and is {value}",
    "less_than_equal": "must be {le} or less, and is {value}",
    "greater_than": "must be more than {gt:g}, and is {value}",
    "finite_number": "must be a number that ends, and is {value}",
}


def explain(error: ErrorDetails, spelling: str | None) -> tuple[str, str | None]:
    """A message, and a hint where there is one.

    :param spelling: how the value is written in the file, if it is a scalar there.
    """
    kind = error["type"]
    context = error.get("ctx", {})
    value = error.get("input")
    if kind == "plain":
        return context["message"], context["hint"]
    if kind == "extra_forbidden":
        return "unknown option", unknown_hint(error["loc"])
    if kind == "missing":
        return "is required", None
    if value is None:
        return "has no value", "give it one, or remove the line"
    if kind in _MEANT:
        return f"{_MEANT[kind]} is meant, not {_read_as(value, spelling)}", _type_hint(kind, value, spelling)
    return _LIMITS.get(kind, error["msg"].lower()).format(value=value, **context), None


def unknown_hint(place: Iterable[str | int]) -> str | None:
    """What an unknown key was probably meant to be."""
    *around, name = place
    name = str(name)
    known = _known(tuple(around))
    meant = near(name, known)
    if name in _OTHER_TOOLS and meant != name:
        return _OTHER_TOOLS[name]
    if meant == name:
        return "it stands at the top level only"
    if meant is not None:
        return f"did you mean {meant}?"
    if not around or (len(around) == 2 and around[0] == "clouds"):
        return "azchroot schema --markdown lists all options"
    return f"known here are {', '.join(sorted(known))}"


def _known(around: Place) -> set[str]:
    model: type[BaseModel] = ImageFile
    if around[:1] == ("clouds",):
        model, around = Options, around[2:]
    if around[:1] == ("shared_image_destination",):
        model = TargetRegion if len(around) > 1 else SharedImageDestination
    return set(model.model_fields)


def _read_as(value: Any, spelling: str | None) -> str:
    plain = described(value)
    written = spelling if spelling is not None and not isinstance(value, str) else None
    if written is None or plain.endswith(f" {written}"):
        return plain
    return f"{written}, which YAML reads as {plain}"


def _type_hint(kind: str, value: Any, spelling: str | None) -> str | None:
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return f'quote it: "{value if spelling is None else spelling}"'
    if kind in ("int_type", "bool_type", "float_type") and isinstance(value, str) and spelling is not None:
        return "write it without quotes"
    return None
