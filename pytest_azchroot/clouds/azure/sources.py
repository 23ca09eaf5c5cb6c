"""What an image is built from, as Azure knows it: looked up once, with as few calls as Azure needs for it.

A platform image takes two calls for ``latest`` and else one, a managed disk one, a gallery image version two at once.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_azchroot.clouds.azure import regions, versions
from pytest_azchroot.clouds.azure.beside import beside
from pytest_azchroot.clouds.azure.machine import Machine
from pytest_azchroot.clouds.azure.refusals import AzureError, explained
from pytest_azchroot.errors import DiskError
from pytest_azchroot.spec import ImageSpec
from pytest_azchroot.spec.azure_ids import DiskId, GalleryImageVersionId, PlatformImage, parse_source

if TYPE_CHECKING:
    from pytest_azchroot.clouds.azure.client import Azure

Json = Mapping[str, Any]

GIB = 1024**3
_FOOTER = 512
"""Bytes of a VHD's footer, which Azure counts in the size of a platform image and not in that of a disk."""
_MIB = 1024**2
_DEFAULT_GENERATION = "V1"
"""What Azure takes a disk for that does not say."""
SCRATCH = "scratch"


@dataclass(frozen=True)
class Source:
    """Something that a disk can be made of."""

    id: str
    """What the disk is made of: the id of a disk or of an exact version; ``scratch`` for nothing."""
    name: str
    """What Packer calls SourceImageName: the id above, but of a gallery image version that was made of an image or of
    another version, the id of that. The disk that others were made of is gone."""
    title: str
    """Short, for people: ``Debian:debian-12:12-gen2:0.20250101.1``, ``disk golden``, ``linux/debian/1.0.0``."""
    creation: Json
    """Of the disk: its ``creationData``."""
    generation: str
    """``V1`` or ``V2``."""
    architecture: str
    """``x64`` or ``Arm64``, as Azure says it."""
    version: str | None = None
    """The exact one, where there are versions."""
    size: int | None = None
    """Bytes of the disk in it, where known."""
    plan: Json | None = None
    """The marketplace plan that the disk must keep: ``publisher``, ``name``, ``product``."""
    security_type: str | None = None
    """``TrustedLaunch``, ``ConfidentialVM…``; None is the standard, which is what most images are that support more."""
    problems: tuple[str, ...] = field(default=())
    """Why nothing can be built of it here, a sentence each; :func:`resolve` returns none that has any."""
    notices: tuple[str, ...] = field(default=())
    """What somebody should know who builds of it, a sentence each."""


def resolve(azure: Azure, spec: ImageSpec, machine: Machine) -> Source:
    """Find what the spec names.

    :raises AzureError: Azure could not be asked.
    :raises DiskError: it is not there, or nothing can be built of it on this machine; says everything that is wrong.
    """
    source = examine(azure, spec, machine)
    if source.problems:
        raise DiskError(f"the source {source.title} cannot be used", why="; ".join(source.problems))
    return source


def examine(azure: Azure, spec: ImageSpec, machine: Machine) -> Source:
    """As :func:`resolve`, but what is wrong with a source that is there is in :attr:`Source.problems`."""
    if spec.from_scratch:
        return scratch(spec)
    if spec.source is None:
        raise DiskError("image.yaml names no source", hint="set `source`, or `from_scratch: true`")
    asked = parse_source(spec.source)
    if isinstance(asked, PlatformImage):
        found = _find_platform(azure, asked, machine)
    elif isinstance(asked, DiskId):
        found = _find_disk(azure, asked, spec, machine)
    else:
        found = _find_version(azure, asked, machine)
    wanted = spec.image_hyperv_generation
    if wanted is None or wanted == found.generation:
        return found
    problem = (
        f"image_hyperv_generation is {wanted}, and {found.title} is of generation {found.generation} "
        "(leave it out: the source knows)"
    )
    return replace(found, problems=(*found.problems, problem))


def scratch(spec: ImageSpec) -> Source:
    """An empty disk, of this machine's architecture."""
    arm = platform.machine() in {"aarch64", "arm64"}
    return Source(
        id=SCRATCH,
        name=SCRATCH,
        title=SCRATCH,
        creation={"createOption": "Empty"},
        generation=spec.image_hyperv_generation or _DEFAULT_GENERATION,
        architecture="Arm64" if arm else "x64",
        size=spec.os_disk_size_gb * GIB,
    )


# -- platform images


def _find_platform(azure: Azure, asked: PlatformImage, machine: Machine) -> Source:
    location = machine.location
    listing = azure.compute(machine.subscription_id).virtual_machine_images
    where = (location, asked.publisher, asked.offer, asked.sku)
    hint = (
        f"see `az vm image list --all --location {location} --publisher {asked.publisher} --offer {asked.offer}`; "
        "what is written PUBLISHER:OFFER:SKU:VERSION is found in the machine's own region alone"
    )
    with _there(f"the platform image {asked} is not there in {location}", hint=hint):
        exact = asked
        if asked.is_latest:
            with explained(f"listing the versions of {asked} in {location}"):
                names = [str(each["name"]) for each in listing.list(*where)]
            version = versions.highest(names)
            if version is None:
                raise DiskError(f"the platform image {asked} has no version in {location}", hint=hint)
            exact = replace(asked, version=version)
        with explained(f"looking for the platform image {exact} in {location}"):
            found = listing.get(*where, exact.version)
    return platform_source(exact, found, machine)


def platform_source(image: PlatformImage, found: Json, machine: Machine) -> Source:
    """Of a platform image's exact version, and what GET of it says."""
    properties = _section(found, "properties")
    publisher = (
        f"/subscriptions/{machine.subscription_id}/providers/Microsoft.Compute/locations/{machine.location}"
        f"/publishers/{image.publisher}"
    )
    rest = f"offers/{image.offer}/skus/{image.sku}/versions/{image.version}"
    reference = f"{publisher}/artifacttypes/vmimage/{rest}"
    problems, notices = _deprecation(str(image), _section(properties, "imageDeprecationStatus"))
    disk = _section(properties, "osDiskImage")
    if (system := str(disk.get("operatingSystem") or "Linux")) != "Linux":
        problems.append(f"{image} holds {system}, and images of Linux can be built alone")
    return Source(
        id=reference,
        name=f"{publisher}/ArtifactTypes/vmimage/{rest}",
        title=str(image),
        version=image.version,
        creation={"createOption": "FromImage", "imageReference": {"id": reference}},
        generation=_generation(properties),
        architecture=_architecture(properties.get("architecture")),
        size=_without_footer(disk.get("sizeInBytes")) or _gib(disk.get("sizeInGb")),
        plan=_plan(properties.get("plan")),
        security_type=_security_of_features(properties.get("features")),
        problems=tuple(problems),
        notices=tuple(notices),
    )


def _deprecation(title: str, status: Json) -> tuple[list[str], list[str]]:
    """Problems and notices. Source: the REST reference, ImageDeprecationStatus."""
    state, other = str(status.get("imageState") or "Active"), _section(status, "alternativeOption")
    instead = f": {other['type']} {other['value']} is to follow it" if other.get("value") else ""
    if state == "Deprecated":
        return [f"{title} is deprecated, and Azure makes no disk of it any more{instead} (name another version)"], []
    if state == "ScheduledForDeprecation":
        when = status.get("scheduledDeprecationTime") or "a time that Azure does not say"
        return [], [f"{title} will be deprecated at {when}{instead}"]
    return [], []


# -- managed disks


def _find_disk(azure: Azure, asked: DiskId, spec: ImageSpec, machine: Machine) -> Source:
    disks = azure.compute(asked.subscription_id).disks
    hint = f"see `az disk list --subscription {asked.subscription_id} --resource-group {asked.resource_group}`"
    with _there(f"the source disk {asked} is not there", hint=hint), explained(f"looking for the disk {asked}"):
        found = disks.get(asked.resource_group, asked.name)
    return disk_source(asked, found, spec, machine)


def disk_source(asked: DiskId, found: Json, spec: ImageSpec, machine: Machine) -> Source:
    """Of a managed disk's id, and what GET of it says."""
    properties = _section(found, "properties")
    size = properties.get("diskSizeBytes")
    return Source(
        id=str(asked),
        name=str(asked),
        title=f"disk {asked.name}",
        creation={"createOption": "Copy", "sourceResourceId": str(asked)},
        generation=str(properties.get("hyperVGeneration") or spec.image_hyperv_generation or _DEFAULT_GENERATION),
        architecture=_architecture(_section(properties, "supportedCapabilities").get("architecture")),
        size=int(size) if size else _gib(properties.get("diskSizeGB")),
        plan=_plan(properties.get("purchasePlan")),
        security_type=_security(_section(properties, "securityProfile").get("securityType")),
        problems=tuple(_disk_problems(asked.name, found, machine)),
        notices=tuple(_disk_notices(asked.name, found)),
    )


def _disk_problems(name: str, found: Json, machine: Machine) -> Iterator[str]:
    properties, location = _section(found, "properties"), str(found.get("location"))
    if not regions.same(location, machine.location):
        yield (
            f"the source disk {name} is in {location}, and this machine in {machine.location}: Azure copies disks "
            "within a region alone (build there, or copy it here first)"
        )
    zones = [str(zone) for zone in found.get("zones") or ()]
    # Azure's refusal is in azure-sdk-for-java#11759; to a copy that is in no zone it has none.
    if zones and machine.zone and machine.zone not in zones:
        yield (
            f"the source disk {name} is in zone {', '.join(zones)}, and this machine in zone {machine.zone}: Azure "
            "copies disks within a zone alone (build there, or from a gallery image version of it)"
        )
    if (system := str(properties.get("osType") or "Linux")) != "Linux":
        yield f"the source disk {name} holds {system}, and images of Linux can be built alone"
    state, provisioning = str(properties.get("diskState")), str(properties.get("provisioningState") or "Succeeded")
    if state in {"ReadyToUpload", "ActiveUpload"}:
        yield f"the source disk {name} is still to be uploaded ({state}): end the upload with `az disk revoke-access`"
    elif provisioning not in {"Succeeded", "Updating"}:
        yield f"the source disk {name} is not usable: its provisioning state is {provisioning}"


def _disk_notices(name: str, found: Json) -> Iterator[str]:
    if user := found.get("managedBy"):
        machine = str(user).rsplit("/", 1)[-1]
        yield f"the source disk {name} is attached to {machine}: the copy holds what is written at that moment"


# -- gallery image versions


def _find_version(azure: Azure, asked: GalleryImageVersionId, machine: Machine) -> Source:
    compute = azure.compute(asked.subscription_id)
    place = (asked.resource_group, asked.gallery, asked.image)
    title = f"{asked.gallery}/{asked.image}"

    def definition() -> Json:
        with explained(f"looking for the image definition {title}"):
            return compute.gallery_images.get(*place)

    def version() -> Json:
        if asked.version.lower() != "latest":
            with explained(f"looking for the gallery image version {title}/{asked.version}"):
                return compute.gallery_image_versions.get(*place, asked.version)
        with explained(f"listing the versions of {title}"):
            found = list(compute.gallery_image_versions.list_by_gallery_image(*place))
        return latest_version(asked, found, machine)

    hint = (
        f"see `az sig image-version list --subscription {asked.subscription_id} -g {asked.resource_group} "
        f"-r {asked.gallery} -i {asked.image}`"
    )
    with _there(f"the gallery image version {asked} is not there", hint=hint):
        other = beside(definition)
        found = version()
        return version_source(asked, other.result(), found, machine)


def latest_version(asked: GalleryImageVersionId, found: Sequence[Json], machine: Machine) -> Json:
    """The version that ``latest`` is in the machine's region: the highest that is ready there and not excluded.

    :raises DiskError: none is.
    """
    ready = {
        str(each["name"]): each
        for each in found
        if _section(each, "properties").get("provisioningState") in {"Succeeded", "Updating"}
        and not _is_excluded(each, machine.location)
    }
    name = versions.highest(ready)
    if name is None:
        raise DiskError(
            f"{asked.gallery}/{asked.image} has no latest version in {machine.location}",
            why=f"of its {len(found)} versions none is ready there and not excluded from latest",
            hint="name a version in `source`",
        )
    return ready[name]


def _is_excluded(version: Json, location: str) -> bool:
    profile = _section(_section(version, "properties"), "publishingProfile")
    here = [each for each in profile.get("targetRegions") or () if regions.same(str(each.get("name")), location)]
    return bool(profile.get("excludeFromLatest")) or not here or bool(here[0].get("excludeFromLatest"))


def version_source(asked: GalleryImageVersionId, definition: Json, found: Json, machine: Machine) -> Source:
    """Of a gallery image version's id, and what GET of its definition and of itself says."""
    name = str(found["name"])
    exact = replace(asked, version=name)
    properties, image = _section(found, "properties"), _section(definition, "properties")
    storage = _section(properties, "storageProfile")
    origin = _section(storage, "source").get("id")
    title = f"{asked.gallery}/{asked.image}/{name}"
    return Source(
        id=str(exact),
        name=str(origin or exact),
        title=title,
        version=name,
        creation={"createOption": "FromImage", "galleryImageReference": {"id": str(exact)}},
        generation=_generation(image),
        architecture=_architecture(image.get("architecture")),
        size=_gib(_section(storage, "osDiskImage").get("sizeInGB")),
        plan=_plan(image.get("purchasePlan")),
        security_type=_security_of_features(image.get("features")),
        problems=tuple(_version_problems(title, image, properties, machine)),
        notices=tuple(_version_notices(title, storage)),
    )


def _version_notices(title: str, storage: Json) -> Iterator[str]:
    if disks := storage.get("dataDiskImages"):
        yield f"{title} has data disks ({len(disks)}): they are not copied, and what is published has none"


def _version_problems(title: str, image: Json, properties: Json, machine: Machine) -> Iterator[str]:
    listed = _section(properties, "publishingProfile").get("targetRegions") or ()
    names = [str(each.get("name")) for each in listed]
    if not any(regions.same(name, machine.location) for name in names):
        yield (
            f"{title} is not stored in {machine.location}, where this machine is, but in {', '.join(names) or 'none'} "
            "(replicate it here, or build there)"
        )
    state = str(properties.get("provisioningState") or "Succeeded")
    if state == "Creating":
        yield f"{title} is still being made (wait until it is, or name another version)"
    elif state not in {"Succeeded", "Updating"}:
        yield f"{title} is not usable: its provisioning state is {state} (name another version)"
    if (system := str(image.get("osType") or "Linux")) != "Linux":
        yield f"{title} holds {system}, and images of Linux can be built alone"


# -- what Azure's answers mean


def _section(found: Json, name: str) -> Json:
    section = found.get(name)
    return section if isinstance(section, Mapping) else {}


def _generation(properties: Json) -> str:
    return str(properties.get("hyperVGeneration") or _DEFAULT_GENERATION)


def _architecture(found: object) -> str:
    return "Arm64" if str(found).lower() == "arm64" else "x64"


def _gib(found: object) -> int | None:
    return int(str(found)) * GIB if found else None


def _without_footer(found: object) -> int | None:
    size = int(str(found)) if found else 0
    return (size - _FOOTER if size % _MIB == _FOOTER else size) or None


def _plan(found: object) -> Json | None:
    """The plan in the form that disks have it."""
    if not isinstance(found, Mapping) or not found.get("name"):
        return None
    names = ("name", "publisher", "product", "promotionCode")
    return {name: str(found[name]) for name in names if found.get(name)}


def _security(found: object) -> str | None:
    return None if found in {None, "", "Standard"} else str(found)


def _security_of_features(features: object) -> str | None:
    """The security type that everything made of an image has. ``…Supported`` says what it may have."""
    for each in features if isinstance(features, list) else ():
        value = str(each.get("value"))
        if each.get("name") == "SecurityType" and not value.endswith("Supported"):
            return _security(value)
    return None


@contextmanager
def _there(otherwise: str, *, hint: str) -> Iterator[None]:
    """Say in our words that something is not there."""
    try:
        yield
    except AzureError as error:
        if error.status != 404 or error.code == "SubscriptionNotFound":
            raise
        raise DiskError(otherwise, why=error.why, hint=hint) from error
