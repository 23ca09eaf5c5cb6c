"""What users of azure-cli get wrong, and what Azure tells them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cli import Cli
from .conftest import URN

pytestmark = pytest.mark.root

ATTACH = "vm disk attach -g rg1 --vm-name vm1"
VERSION = "sig image-version create -g rg1 -r mistakes -i first"
DEFINITION = "sig image-definition create -g rg1 -r mistakes --publisher p --offer o --os-type Linux"


@pytest.fixture(scope="module")
def scene(az: Cli) -> Iterator[Cli]:
    """``used`` is attached at LUN 3, ``free`` and ``more`` are not, ``far`` is elsewhere, ``lent`` is lent, ``generation2`` is."""
    for name in ("used", "free", "more", "lent"):
        az(f"disk create -g rg1 -n {name} --size-gb 2")
    az("disk create -g rg1 -n far --size-gb 1 --location eastus")
    az(f"disk create -g rg1 -n generation2 --image-reference {URN}")
    az("disk grant-access -g rg1 -n lent --duration-in-seconds 3600")
    az(f"{ATTACH} --name used --lun 3")
    az("sig create -g rg1 -r mistakes")
    az(f"{DEFINITION} -i first -s v1 --hyper-v-generation V1")
    yield az
    az("vm disk detach -g rg1 --vm-name vm1 --name used")


MISTAKES = {
    "deleting an attached disk": (
        "disk delete -g rg1 -n used --yes",
        "(OperationNotAllowed) Disk used is attached to VM {vm}.",
    ),
    "deleting a disk that is lent": (
        "disk delete -g rg1 -n lent --yes",
        "(OperationNotAllowed) There is an active shared access signature outstanding for disk lent.",
    ),
    "shrinking": ("disk update -g rg1 -n free --size-gb 1", "(ResizeDiskError) Disk size reduction is not supported."),
    "a LUN that is used": (f"{ATTACH} --name free --lun 3", "(InvalidParameter) A disk at LUN 3 already exists."),
    "a LUN that is none": (f"{ATTACH} --name free --lun 64", "(InvalidParameter) The value '64' of parameter"),
    "too many disks": (
        f"{ATTACH} --disks free more",
        "(OperationNotAllowed) The maximum number of data disks allowed to be attached to a VM of this size is 2.",
    ),
    "a disk of another region": (f"{ATTACH} --name far", "(BadRequest) Disk {compute}/disks/far cannot be attached"),
    "attaching what is lent": (f"{ATTACH} --name lent", "(OperationNotAllowed) There is an active shared access"),
    "attaching what is not there": (
        f"{ATTACH} --name nothing",
        "(ResourceNotFound) The Resource 'Microsoft.Compute/disks/",
    ),
    "a machine that is not there": (
        "vm disk attach -g rg1 --vm-name vm9 --name free",
        "(ResourceNotFound) The Resource 'Microsoft.Compute/virtualMachines/vm9' under resource group 'rg1'",
    ),
    "detaching what is not attached": (
        "vm disk detach -g rg1 --vm-name vm1 --disk-ids {compute}/disks/free",
        "cannot be detached as it is not attached to VM 'vm1'",
    ),
    "lending an attached disk": (
        "disk grant-access -g rg1 -n used --duration-in-seconds 60",
        "(Conflict) Access not permitted because disk used is currently attached to running VM",
    ),
    "a region that is none": (
        "disk create -g rg1 -n x --size-gb 1 -l nowhere",
        "(LocationNotAvailableForResourceType) The provided location 'nowhere' is not available",
    ),
    "another region than before": (
        "disk create -g rg1 -n free --size-gb 2 -l eastus",
        "(InvalidResourceLocation) The resource 'free' already exists in location 'westus2'",
    ),
    "a group that is not there": (
        "disk create -g nobody -n x --size-gb 1 -l westus2",
        "(ResourceGroupNotFound) Resource group 'nobody' could not be found.",
    ),
    "a name that is none": (
        "disk create -g rg1 -n not~good --size-gb 1",
        "(InvalidParameter) The entity name 'not~good' is invalid according to its validation rule",
    ),
    "an image that is not there": (
        "disk create -g rg1 -n x --image-reference Debian:debian-12:12-gen2:9.9.9",
        "Artifact: VMImage was not found.",
    ),
    "a definition that is not there": (
        "sig image-version create -g rg1 -r mistakes -i nothing -e 1.0.0 --os-snapshot {compute}/disks/generation2",
        "(ParentResourceNotFound) Failed to perform",
    ),
    "a source of another generation": (
        f"{VERSION} -e 1.0.0 --os-snapshot {{compute}}/disks/generation2",
        "has a different Hypervisor generation ['V2'] than the parent gallery image Hypervisor generation ['V1']",
    ),
    "a source of another region": (
        f"{VERSION} -e 1.0.0 --os-snapshot {{compute}}/disks/far",
        "is in location 'eastus'",
    ),
    "a version that is none": (
        f"{VERSION} -e 1.0 --os-snapshot {{compute}}/disks/free",
        "(InvalidParameter) The entity name '1.0' is invalid",
    ),
    "without its own region": (
        f"{VERSION} -e 1.0.0 --os-snapshot {{compute}}/disks/free --target-regions eastus",
        "(InvalidParameter) Gallery image version publishing profile regions 'eastus' must contain the location",
    ),
    "another generation than before": (
        f"{DEFINITION} -i first -s v1 --hyper-v-generation V2",
        "(PropertyChangeNotAllowed) Changing property 'galleryImage.properties.hyperVGeneration' is not allowed.",
    ),
    "an image of a machine": (
        "image create -g rg1 -n x --source vm1",
        "(OperationNotAllowed) The operation 'Create Image' requires the Virtual Machine 'vm1' to be Generalized.",
    ),
    "deleting the group of an attached disk": ("group delete -n rg1 --yes", "(ResourceGroupDeletionBlocked)"),
}


@pytest.mark.parametrize(("line", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistake(scene: Cli, line: str, said: str) -> None:
    expected = said.format(vm=scene.told["vm"], compute=scene.compute) if "{" in said else said
    assert expected in scene.mistake(line)


def test_nothing_came_of_them(scene: Cli) -> None:
    disks = {each["name"]: each for each in scene("disk list -g rg1")}
    assert "x" not in disks and disks["used"]["diskState"] == "Attached" and disks["free"]["diskSizeGB"] == 2
    assert [each["name"] for each in scene("vm show -g rg1 -n vm1")["storageProfile"]["dataDisks"]] == ["used"]
    assert scene("sig image-version list -g rg1 -r mistakes -i first") == []
