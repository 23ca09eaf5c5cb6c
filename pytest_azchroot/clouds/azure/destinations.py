"""What is to be published, and why it cannot be: the lookups, and what their answers mean for a build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_azchroot.clouds.azure import regions
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.refusals import AzureError, explained
from pytest_azchroot.clouds.azure.sources import Source
from pytest_azchroot.errors import PublishError
from pytest_azchroot.spec import ImageSpec, SharedImageDestination
from pytest_azchroot.spec.azure_ids import GalleryImageVersionId, ImageId

if TYPE_CHECKING:
    from pytest_azchroot.clouds.azure.client import Azure

Json = Mapping[str, Any]

_OVERWRITE = "or replace it with --azchroot-overwrite"


# -- the managed image


def find_image(azure: Azure, asked: ImageId) -> Json | None:
    """The managed image if it is there. One call.

    :raises AzureError: Azure could not be asked.
    :raises PublishError: its resource group is not there.
    """
    images = azure.compute(asked.subscription_id).images
    try:
        with explained(f"looking for the managed image {asked}"):
            return images.get(asked.resource_group, asked.name)
    except AzureError as error:
        _require_group(error, "image_resource_id", asked.subscription_id, asked.resource_group)
        return None


def image_problems(asked: ImageId, found: Json | None, source: Source | None, *, overwrite: bool) -> Iterator[str]:
    """Why the managed image cannot be made, a sentence each.

    :param found: what :func:`find_image` has.
    :param source: None where it is not there yet.
    """
    title, state = f"the managed image {asked.name} in {asked.resource_group}", _state(found)
    if state == "Deleting":
        yield f"{title} is just being deleted (try again when it is gone)"
    elif state in {"Creating", "Updating"}:
        yield f"{title} is being changed by somebody else (wait until it is done, or name another image)"
    elif state not in {None, "Failed"} and not overwrite:
        yield f"{title} is there already (name another in image_resource_id, {_OVERWRITE})"
    if source is not None and source.security_type is not None:
        # packer#13189: "Creation of managed images are not supported for ... TrustedLaunch security type."
        yield (
            f"{source.title} has the security type {source.security_type}, of which Azure makes no managed images "
            "(publish to a gallery instead: shared_image_destination)"
        )
    if source is not None and source.architecture != "x64":
        # learn.microsoft.com, "Create a legacy managed image": ARM64 is for galleries alone.
        yield (
            f"{source.title} is for {source.architecture}, of which Azure makes no managed images "
            "(publish to a gallery instead: shared_image_destination)"
        )


# -- the gallery image version


def version_id(spec: ImageSpec, machine: Machine) -> GalleryImageVersionId | None:
    """The gallery image version that the spec asks for. Its gallery is in ``subscription_id``, or else in the machine's
    subscription."""
    asked = spec.shared_image_destination
    if asked is None:
        return None
    return GalleryImageVersionId(
        spec.subscription_id or machine.subscription_id,
        asked.resource_group,
        asked.gallery_name,
        asked.image_name,
        asked.image_version,
    )


def artifacts(spec: ImageSpec, machine: Machine) -> frozenset[str]:
    """The ids of what the spec publishes, as :attr:`~pytest_azchroot.clouds.Order.coming` of other images has them."""
    if spec.skip_create_image:
        return frozenset()
    return frozenset(str(id) for id in (spec.image_resource_id, version_id(spec, machine)) if id is not None)


def find_definition(azure: Azure, asked: GalleryImageVersionId) -> Json:
    """The image definition of a version. One call, and another if it is not there.

    :raises AzureError: Azure could not be asked.
    :raises PublishError: it is not there; says what is.
    """
    compute = azure.compute(asked.subscription_id)
    gallery = f"the gallery {asked.gallery} in {asked.resource_group}"
    option = "shared_image_destination"
    try:
        with explained(f"looking for the image definition {asked.image} in {gallery}"):
            return compute.gallery_images.get(asked.resource_group, asked.gallery, asked.image)
    except AzureError as error:
        _require_group(error, option, asked.subscription_id, asked.resource_group)
    try:
        with explained(f"listing the image definitions in {gallery}"):
            listed = compute.gallery_images.list_by_gallery(asked.resource_group, asked.gallery)
            names = sorted(str(each.get("name")) for each in listed)
    except AzureError as error:
        _require_group(error, option, asked.subscription_id, asked.resource_group)
        raise PublishError(
            f"{gallery} is not there", hint=f"set {option}.gallery_name, or make it: az sig create"
        ) from error
    raise PublishError(
        f"{gallery} has no image definition {asked.image}",
        why=f"it has {', '.join(names)}" if names else "it has none at all",
        hint=f"set {option}.image_name, or make it: az sig image-definition create --os-type Linux "
        "--os-state Generalized",
    )


def definition_problems(
    asked: GalleryImageVersionId, found: Json, source: Source | None, machine: Machine
) -> Iterator[str]:
    """Why the image definition does not take what is built, a sentence each.

    :param found: what :func:`find_definition` has.
    :param source: None where it is not there yet.
    """
    title = f"the image definition {asked.gallery}/{asked.image}"
    properties = _section(found, "properties")
    if not regions.same(str(found.get("location")), machine.location):
        yield (
            f"{title} is in {found.get('location')}, and this machine in {machine.location}: Azure makes versions of "
            "disks of the same region alone (build there, or publish to a gallery here and replicate)"
        )
    if (system := str(properties.get("osType") or "Linux")) != "Linux":
        yield f"{title} is for {system}, and images of Linux can be built alone (name another definition)"
    if (state := str(properties.get("osState") or "Generalized")) != "Generalized":
        yield (
            f"{title} is for {state.lower()} images, and what is built of steps is a generalized one "
            "(name a definition with OS state Generalized)"
        )
    if source is not None:
        yield from _kind_problems(title, properties, source)


def _kind_problems(title: str, properties: Json, source: Source) -> Iterator[str]:
    """What of a source must be equal to its definition, which cannot be changed."""
    wanted = str(properties.get("hyperVGeneration") or "V1")
    if wanted != source.generation:
        scratch = f"set image_hyperv_generation: {wanted}, or " if source.creation["createOption"] == "Empty" else ""
        yield (
            f"{title} is for generation {wanted}, and {source.title} is of generation {source.generation} "
            f"({scratch}name a definition for {source.generation})"
        )
    wanted = str(properties.get("architecture") or "x64")
    if wanted.lower() != source.architecture.lower():
        yield (
            f"{title} is for {wanted}, and {source.title} for {source.architecture} "
            f"(name a definition for {source.architecture})"
        )
    wanted = _security(properties)
    if not _takes(wanted, source.security_type):
        yield (
            f"{title} is for the security type {wanted}, and {source.title} has {source.security_type or 'Standard'} "
            f"(name a definition for {_kind(source.security_type)})"
        )


def _takes(wanted: str, found: str | None) -> bool:
    """Whether a definition takes a source. One that supports more than the standard takes the standard: what it has
    holds no state of a security type. Source: learn.microsoft.com, "Trusted Launch for Azure virtual machines"."""
    expected = "Standard" if wanted.lower().endswith("supported") else wanted
    return expected.lower() == _kind(found).lower()


def _kind(found: str | None) -> str:
    """A disk's security type as definitions have it, which do not say how a confidential machine's is encrypted."""
    if found is None:
        return "Standard"
    return "ConfidentialVM" if found.startswith("ConfidentialVM") else found


def _security(properties: Json) -> str:
    features = properties.get("features")
    for each in features if isinstance(features, list) else ():
        if each.get("name") == "SecurityType":
            return str(each.get("value"))
    return "Standard"


def find_version(azure: Azure, asked: GalleryImageVersionId) -> Json | None:
    """The gallery image version if it is there. One call.

    :raises AzureError: Azure could not be asked.
    """
    versions = azure.compute(asked.subscription_id).gallery_image_versions
    try:
        with explained(f"looking for the gallery image version {asked}"):
            return versions.get(asked.resource_group, asked.gallery, asked.image, asked.version)
    except AzureError as error:
        if not _is_missing(error):
            raise
        return None


def version_problems(asked: GalleryImageVersionId, found: Json | None, *, overwrite: bool) -> Iterator[str]:
    """Why the version cannot be made, a sentence each. One that has failed is replaced.

    :param found: what :func:`find_version` has.
    """
    title, state = f"the gallery image version {asked.gallery}/{asked.image}/{asked.version}", _state(found)
    if state == "Creating":
        yield (
            f"{title} is still being made (wait until it is, or set another image_version; `azchroot sweep` deletes "
            "one that an interrupted build has given up)"
        )
    elif state == "Deleting":
        yield f"{title} is just being deleted (try again when it is gone, or set another image_version)"
    elif state not in {None, "Failed"} and not overwrite:
        yield f"{title} is there already (set another image_version, {_OVERWRITE})"


def region_problems(destination: SharedImageDestination, machine: Machine) -> Iterator[str]:
    """Why the target regions cannot be, a sentence each."""
    names = [each.name for each in destination.target_regions]
    if names and not any(regions.same(name, machine.location) for name in names):
        # packer#8895: "...must contain the location of image version".
        yield (
            f"shared_image_destination.target_regions has {', '.join(names)}, and not {machine.location}: Azure makes "
            "a version where the machine and its disk are, and stores it there, too (add it)"
        )


def unknown_region(azure: Azure, subscription_id: str, name: str) -> list[str]:
    """A sentence if there is no such region. One call.

    :raises AzureError: Azure could not be asked.
    """
    with regions.if_permitted():
        if not regions.is_known(azure, subscription_id, name):
            what = f"shared_image_destination.target_regions has {name}, which is no region of this subscription"
            return [f"{what} (see `az account list-locations -o table`)"]
    return []


# -- what Azure's answers mean


def _require_group(error: AzureError, option: str, subscription_id: str, group: str) -> None:
    """Go on if a resource is not there.

    :raises PublishError: its resource group is not there either.
    """
    if not _is_missing(error):
        raise error
    if error.code == "ResourceGroupNotFound":
        raise PublishError(
            f"{option} names the resource group {group}, which is not in the subscription {subscription_id}",
            hint="make it, or name another",
        ) from error


def _is_missing(error: AzureError) -> bool:
    return error.is_missing and error.code != "SubscriptionNotFound"


def _state(found: Json | None) -> str | None:
    return None if found is None else str(_section(found, "properties").get("provisioningState") or "Succeeded")


def _section(found: Json, name: str) -> Json:
    section = found.get(name)
    return section if isinstance(section, Mapping) else {}
