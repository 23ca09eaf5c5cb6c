"""Azure's errors, in Azure's words. Where a text comes from is said beside it; "unsure" where nobody recorded it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .http import Response
from .paths import ArmPath


@dataclass
class ArmError(Exception):
    """A refusal as Resource Manager words it: ``{"error": {"code", "message", "target"?, "details"?}}``."""

    status: int
    code: str
    message: str
    target: str | None = None
    details: Sequence[Mapping[str, Any]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"

    @property
    def error(self) -> dict[str, Any]:
        """What stands under ``error``, here and in a failed operation."""
        found: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target is not None:
            found["target"] = self.target
        if self.details:
            found["details"] = [dict(each) for each in self.details]
        return found

    @property
    def response(self) -> Response:
        """The answer."""
        return Response.of_json(self.status, {"error": self.error}, self.headers)


# -- the front door: Azure Resource Manager's own, the same for all providers


def no_token(tenant: str) -> ArmError:
    """Clients learn their tenant from this header (azure-arm's and packer's device login, az login)."""
    return _unauthorized(
        tenant,
        "AuthenticationFailed",
        "Authentication failed. The 'Authorization' header is missing.",
        "The authentication failed because of missing 'Authorization' header.",
    )


def bad_token(tenant: str) -> ArmError:
    """The service's well-known answer to a token that it cannot read or that is for somebody else."""
    return _unauthorized(
        tenant, "InvalidAuthenticationToken", "The access token is invalid.", "The access token is invalid."
    )


def _unauthorized(tenant: str, code: str, message: str, description: str) -> ArmError:
    challenge = (
        f'Bearer authorization_uri="https://login.windows.net/{tenant}", error="invalid_token", '
        f'error_description="{description}"'
    )
    return ArmError(401, code, message, headers={"WWW-Authenticate": challenge})


def no_api_version() -> ArmError:
    """Well known."""
    text = "The api-version query parameter (?api-version=) is required for all requests."
    return ArmError(400, "MissingApiVersionParameter", text)


def bad_content(why: str) -> ArmError:
    """Well known."""
    text = f"The request content was invalid and could not be deserialized: '{why}'."
    return ArmError(400, "InvalidRequestContent", text)


def unknown_type(path: ArmPath) -> ArmError:
    """Well known."""
    text = (
        f"The resource type '{'/'.join(path.types)}' could not be found in the namespace '{path.provider}' for api "
        "version."
    )
    return ArmError(404, "InvalidResourceType", text)


def not_allowed(method: str) -> ArmError:
    """HTTP's 405; the text is unsure."""
    return ArmError(405, "MethodNotAllowed", f"The requested resource does not support http method '{method}'.")


def no_subscription(subscription: str) -> ArmError:
    """Well known."""
    return ArmError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")


def no_group(group: str) -> ArmError:
    """Well known."""
    return ArmError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")


def not_found(path: ArmPath) -> ArmError:
    """Well known; azure-cli shows it as it is."""
    text = (
        f"The Resource '{path.shown_type}/{path.name}' under resource group '{path.group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )
    return ArmError(404, "ResourceNotFound", text)


def no_parent(path: ArmPath) -> ArmError:
    """Well known."""
    kind = "/".join(path.types)
    text = (
        f"Failed to perform 'write' on resource(s) of type '{kind}', because the parent resource "
        f"'{path.parent_id}' could not be found."
    )
    return ArmError(404, "ParentResourceNotFound", text)


def has_children(names: Sequence[str]) -> ArmError:
    """gardenlinux#2036."""
    text = (
        "Cannot delete resource while nested resources exist. Some existing nested resource IDs include: "
        f"'{', '.join(names)}'. Please delete all nested resources before deleting this resource."
    )
    return ArmError(409, "CannotDeleteResource", text)


def stale_etag() -> ArmError:
    """The status is the specification's of If-Match; the text is unsure."""
    text = "The condition specified using HTTP conditional header(s) is not met."
    return ArmError(412, "PreconditionFailed", text)


def no_operation(name: str) -> ArmError:
    """Unsure."""
    return ArmError(404, "NotFound", f"The operation with id '{name}' was not found.")


def location_changed(path: ArmPath, *, old: str, new: str) -> ArmError:
    """Well known."""
    text = (
        f"The resource '{path.name}' already exists in location '{old}' in resource group '{path.group}'. A resource "
        f"with the same name cannot be created in location '{new}'. Please select a new resource name."
    )
    return ArmError(409, "InvalidResourceLocation", text)


def no_location() -> ArmError:
    """Well known."""
    text = "The location property is required for this definition."
    return ArmError(400, "LocationRequired", text)


def bad_location(location: str, provider_type: str) -> ArmError:
    """Well known, but for the list that Azure adds."""
    text = (
        f"The provided location '{location}' is not available for resource type '{provider_type}'. List of available "
        "regions for the resource type is in the answer to the provider's GET."
    )
    return ArmError(400, "LocationNotAvailableForResourceType", text)


# -- Microsoft.Compute


def missing(parameter: str) -> ArmError:
    """As the compute provider words what is absent (issues of az and terraform)."""
    return ArmError(400, "InvalidParameter", f"Required parameter '{parameter}' is missing (null).", parameter)


def invalid(parameter: str, value: object) -> ArmError:
    """As the compute provider words what it does not take (issues of az and terraform)."""
    return ArmError(400, "InvalidParameter", f"The value '{value}' of parameter '{parameter}' is invalid.", parameter)


def unchangeable(parameter: str) -> ArmError:
    """Well known."""
    return ArmError(409, "PropertyChangeNotAllowed", f"Changing property '{parameter}' is not allowed.", parameter)


def attached(kind: str, name: str, vm: str) -> ArmError:
    """ansible#54644."""
    return ArmError(409, "OperationNotAllowed", f"{kind} {name} is attached to VM {vm}.")


def lent(kind: str, name: str) -> ArmError:
    """Well known: what deleting or attaching a disk with an open access grant is answered."""
    text = (
        f"There is an active shared access signature outstanding for {kind} {name}. Call EndGetAccess before "
        "attaching or deleting the disk. Learn more here: aka.ms/revokeaccessapi."
    )
    return ArmError(409, "OperationNotAllowed", text)


def lending_attached(name: str, vm: str) -> ArmError:
    """AzureStorageExplorer#6654."""
    text = f"Access not permitted because disk {name} is currently attached to running VM {vm}."
    return ArmError(409, "Conflict", text)


def lent_already(name: str) -> ArmError:
    """Unsure."""
    return ArmError(409, "Conflict", f"Access to disk {name} has already been granted with a different access level.")


def bad_footer(name: str, url: str) -> ArmError:
    """AzureStorageExplorer#6654."""
    text = (
        f"The specified cookie value in VHD footer indicates that disk '{name}' with blob {url} is not a supported "
        "VHD. Disk is expected to have cookie value 'conectix'."
    )
    return ArmError(400, "InvalidVhd", text)


def shrinking(*, current: int, asked: int) -> ArmError:
    """Sizes in GiB. The code and the first sentence are well known, the numbers' wording is unsure."""
    text = (
        "Disk size reduction is not supported. Current size is "
        f"{current * 1024**3} bytes, requested size is {asked * 1024**3} bytes."
    )
    return ArmError(409, "ResizeDiskError", text, "disk.diskSizeGB")


def too_small(*, asked: int, least: int) -> ArmError:
    """Sizes in GiB. Well known of a VM's disks."""
    text = (
        f"The specified disk size {asked} GB is smaller than the size of the corresponding disk in the VM image: "
        f"{least} GB. This is not allowed. Please choose equal or greater size or do not specify an explicit size."
    )
    return ArmError(400, "InvalidParameter", text, "disk.diskSizeGB")


def busy(kind: str, name: str) -> ArmError:
    """The code is that of operations on what is not ready; the text is unsure."""
    text = f"The {kind} '{name}' is being changed by another operation. Please try again when it has finished."
    return ArmError(409, "OperationNotAllowed", text)


def no_platform_image(urn: str) -> ArmError:
    """Well known."""
    text = (
        f"The platform image '{urn}' is not available. Verify that all fields in the storage profile are correct. For "
        "more details about storage profile information, please refer to https://aka.ms/storageprofile"
    )
    return ArmError(404, "PlatformImageNotFound", text, "imageReference")


def no_artifact(kind: str) -> ArmError:
    """Well known: what GET of a publisher, offer, sku or version that does not exist is answered."""
    return ArmError(404, "NotFound", f"Artifact: {kind} was not found.")


def no_gallery_image(image: str, region: str) -> ArmError:
    """pulumi-aws#5129."""
    text = (
        f"The gallery image {image} is not available in {region} region. Please contact image owner to replicate to "
        "this region, or change your requested region."
    )
    return ArmError(404, "GalleryImageNotFound", text, "galleryImageReference")


# -- data disks of a virtual machine


def too_many_disks(limit: int) -> ArmError:
    """azuredisk-csi-driver#2883."""
    text = f"The maximum number of data disks allowed to be attached to a VM of this size is {limit}."
    return ArmError(409, "OperationNotAllowed", text, "dataDisks")


def lun_taken(lun: int) -> ArmError:
    """azure-sdk-for-go#678."""
    return ArmError(400, "InvalidParameter", f"A disk at LUN {lun} already exists.", "dataDisk.lun")


def lun_range(lun: object) -> ArmError:
    """lisa#692."""
    text = (
        f"The value '{lun}' of parameter 'dataDisk.lun' is out of range. Value '{lun}' must be between '0' and '63' "
        "inclusive."
    )
    return ArmError(400, "InvalidParameter", text, "dataDisk.lun")


def detaching(disk: str, vm: str) -> ArmError:
    """Names. kubernetes#78657."""
    text = (
        f"Cannot attach data disk '{disk}' to VM '{vm}' because the disk is currently being detached or the last "
        "detach operation failed. Please wait until the disk is completely detached and then try again or "
        "delete/detach the disk explicitly again."
    )
    return ArmError(409, "AttachDiskWhileBeingDetached", text)


def owned(disk: str, vm: str) -> ArmError:
    """Ids. aks-engine#1146."""
    text = f"Disk '{disk}' cannot be attached as the disk is already owned by VM '{vm}'."
    return ArmError(409, "ConflictingUserInput", text, disk)


def not_attached(disk: str, vm: str) -> ArmError:
    """An id and a name. Unsure."""
    text = f"Disk '{disk}' cannot be detached as it is not attached to VM '{vm}'."
    return ArmError(400, "InvalidParameter", text, "dataDisksToDetach")


def stuck(disk: str, why: str) -> ArmError:
    """The machine does not let go of a disk. Codes seen with it vary; the text is unsure."""
    return ArmError(409, "DetachDiskFailed", f"The data disk '{disk}' could not be detached: {why}", disk)


def concurrent() -> ArmError:
    """kubernetes#50150, azure-cli#15765: two updates of one VM at once."""
    return ArmError(409, "Conflict", "The request failed due to conflict with a concurrent request.")


# -- galleries


def other_generation(source: str, *, found: str, wanted: str) -> ArmError:
    """azure-docs#118774, packer-plugin-azure#42, runner-images#13548."""
    text = (
        f"The resource with id '{source}' has a different Hypervisor generation ['{found}'] than the parent gallery "
        f"image Hypervisor generation ['{wanted}']."
    )
    return ArmError(409, "Conflict", text)


def other_security(source: str, *, found: str, wanted: str) -> ArmError:
    """Made after the message of generations; the text is unsure."""
    text = (
        f"The resource with id '{source}' has a different security type ['{found}'] than the parent gallery image "
        f"security type ['{wanted}']."
    )
    return ArmError(409, "Conflict", text)


def other_os(source: str, *, found: str, wanted: str) -> ArmError:
    """Made after the message of generations; the text is unsure."""
    text = (
        f"The resource with id '{source}' has a different OS type ['{found}'] than the parent gallery image OS type "
        f"['{wanted}']."
    )
    return ArmError(409, "Conflict", text)


def home_region_missing(*, regions: Sequence[str], home: str) -> ArmError:
    """packer#8895."""
    text = (
        f"Gallery image version publishing profile regions '{','.join(regions)}' must contain the location of image "
        f"version '{home}'."
    )
    return ArmError(400, "InvalidParameter", text, "publishingProfile.targetRegions")


def source_elsewhere(source: str, *, found: str, wanted: str) -> ArmError:
    """The rule is documented (the source is in the region of the version); the text is unsure."""
    text = (
        f"The resource with id '{source}' is in location '{found}', and must be in the location of the gallery image "
        f"version '{wanted}'."
    )
    return ArmError(400, "InvalidParameter", text, "storageProfile.osDiskImage.source.id")


def bad_name(name: str, rule: str) -> ArmError:
    """As the compute provider words it (issues of terraform and az)."""
    text = f"The entity name '{name}' is invalid according to its validation rule: {rule}."
    return ArmError(400, "InvalidParameter", text, "name")


def bad_version(name: str) -> ArmError:
    """The rule is documented: three 32-bit numbers. The text is unsure."""
    return replace(bad_name(name, r"^[0-9]{1,10}\.[0-9]{1,10}\.[0-9]{1,10}$"), target="galleryImageVersion.name")
