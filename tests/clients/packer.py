"""Templates for Packer's builder azure-chroot, and Packer itself on a stage."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.emulator.origins import OS
from pytest_azchroot.emulator.settings import SUBSCRIPTION, TENANT

from .serve import CLIENT, SECRET
from .stage import COMPUTE, MACHINE, Ended, Stage, resources

PACKER = "/usr/bin/packer"
URN = "Debian:debian-12:12:0.20250101.1"
LATEST = "Debian:debian-12:12:latest"
DISK = f"{COMPUTE}/disks/golden"
DATA_DISK = f"{COMPUTE}/disks/data"
DEFINITION = f"{COMPUTE}/galleries/gallery/images/debian"
VERSION = f"{DEFINITION}/versions/1.0.0"
START = 1024**2
"""Where the partition of the small image begins."""

SECRETS = {"client_id": CLIENT, "client_secret": SECRET, "tenant_id": TENANT, "subscription_id": SUBSCRIPTION}


@dataclass(frozen=True)
class Build:
    """One build: what it is made of, and what it has become."""

    stage: Stage
    name: str
    ended: Ended
    content: bytes
    """What it was to put into the image."""

    @property
    def log(self) -> str:
        """For the message of a failed test."""
        return f"{self.name}: {self.ended.status} after {self.ended.seconds:.1f} s\n{self.ended.output[-3000:]}"


SOURCES: dict[str, dict[str, Any]] = {
    "platform": {"source": LATEST, "image_hyperv_generation": "V1"},
    "disk": {"source": DISK, "image_hyperv_generation": "V1"},
    "gallery": {"source": VERSION},
    "scratch": {"from_scratch": True, "os_disk_size_gb": 1, "image_hyperv_generation": "V1"},
}
AUTHS: dict[str, dict[str, Any]] = {"identity": {}, "secret": SECRETS}


DESTINATIONS = ("image", "version")


def requirements() -> list[pytest.MarkDecorator]:
    """Marks of a module that runs Packer."""
    reason = "packer is not in this system's package archive"
    missing = pytest.mark.skipif(not Path(PACKER).exists(), reason=reason)
    return [pytest.mark.root, missing]


def image_id(number: int = 0) -> str:
    """Of the image that a build makes."""
    return f"{COMPUTE}/images/built{number}"


def version_id(number: int = 0) -> str:
    """Of the version that a build makes."""
    return f"{DEFINITION}/versions/2.0.{number}"


def target(kind: str, number: int = 0) -> dict[str, Any]:
    """The destination of a build, one of :data:`DESTINATIONS`."""
    if kind == "image":
        return {"image_resource_id": image_id(number)}
    place = {"resource_group": "rg1", "gallery_name": "gallery", "image_name": "debian"}
    regions = [{"name": "westus2", "replicas": 1, "storage_account_type": "Standard_LRS"}]
    version = version_id(number).rpartition("/")[2]
    return {"shared_image_destination": {**place, "image_version": version, "target_regions": regions}}


def build(
    stage: Stage,
    name: str,
    builder: Mapping[str, Any],
    *,
    userland: Path | None = None,
    commands: Sequence[str] = (),
    outside: Sequence[str] = (),
    timeout: float = 120,
    until: str | None = None,
) -> Build:
    """Run ``packer build`` of a template with this builder: a command and a file go into the image.

    :param userland: the directory that an empty disk is filled with.
    :param commands: more of them.
    :param outside: commands on the build machine, after these.
    :param until: as for :meth:`.stage.Stage.run`.
    """
    directory = stage.directory / name
    directory.mkdir()
    content = name.encode() * 9_999
    (directory / "content").write_bytes(content)
    if userland is not None:
        builder = {**_from_nothing(userland), **builder}
    template = {
        "builders": [{"type": "azure-chroot", **builder}],
        "provisioners": [
            {"type": "shell", "inline": [f"echo {name} > /etc/marker", *commands]},
            {"type": "file", "source": str(directory / "content"), "destination": "/root/content"},
            *([{"type": "shell-local", "inline": list(outside)}] if outside else []),
        ],
    }
    (directory / "template.json").write_text(json.dumps(template, indent=1), encoding="utf-8")
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(directory),
        "TMPDIR": "/mnt",  # the stage's own; sockets below a test's directory can have names that are too long
        "CHECKPOINT_DISABLE": "1",
        "PACKER_LOG": "1",
        "PACKER_LOG_PATH": str(directory / "log"),
        "SSL_CERT_FILE": str(stage.directory / "azure/keys/ca.pem"),
    }
    command = [PACKER, "build", "-color=false", str(directory / "template.json")]
    return Build(stage, name, stage.run(command, environment=environment, timeout=timeout, until=until), content)


def _from_nothing(userland: Path) -> dict[str, Any]:
    """Partition, format and fill the disk. Partitions come a moment later, as on a machine with udev."""
    return {
        "pre_mount_commands": [
            "echo 'label: gpt\nsize=64MiB\n' | sfdisk --quiet {{.Device}}",
            "for i in $(seq 100); do test -b {{.Device}}1 && break; sleep 0.1; done",
            "mkfs.ext4 -q {{.Device}}1",
        ],
        "post_mount_commands": [f"cp -a {userland}/. {{{{.MountPath}}}}/"],
    }


def prepared(stage: Stage) -> None:
    """Make what builds start from: a disk, a gallery, and a version in it."""
    marketplace = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/westus2"
    publisher, offer, sku, version = URN.split(":")
    artifact = f"publishers/{publisher}/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions/{version}"
    creation = {"createOption": "FromImage", "imageReference": {"id": f"{marketplace}/{artifact}"}}
    definition = {
        "osType": "Linux",
        "osState": "Generalized",
        "hyperVGeneration": "V1",
        "identifier": {"publisher": "azchroot", "offer": "debian", "sku": "12"},
    }
    regions = [{"name": "westus2", "regionalReplicaCount": 1}]
    data = [{"lun": 0, "source": {"id": DATA_DISK}}]
    version_of = {
        "storageProfile": {"osDiskImage": {"source": {"id": DISK}}, "dataDiskImages": data},
        "publishingProfile": {"targetRegions": regions},
    }
    for id_, properties in (
        (DISK, {"osType": "Linux", "hyperVGeneration": "V1", "creationData": creation}),
        (DATA_DISK, {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}),
        (DEFINITION.rpartition("/images/")[0], {}),
        (DEFINITION, definition),
        (VERSION, version_of),
    ):
        stage.ask("PUT", id_, {"location": "westus2", "properties": properties})


def read(file: Path, *paths: str) -> list[bytes]:
    """Files in the first partition of a disk, mounted read-only. One that is not there reads as empty."""
    script = 'mount -o ro,noload,loop,offset="$2" "$1" /mnt && shift 2 && for f; do cat "/mnt/$f" | wc -c; cat "/mnt/$f"; done'
    command = ["unshare", "--mount", "--", "sh", "-c", script, "sh", str(file), str(START), *paths]
    rest = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    found = []
    for _ in paths:
        length, _, rest = rest.partition(b"\n")
        found.append(rest[: int(length)])
        rest = rest[int(length) :]
    return found


def files_of(directory: Path, id_: str) -> dict[str, Path]:
    """The bytes of an image, or of a version, on a stage that has ended: disks by their place."""
    found = {key.lower(): each for key, each in resources(directory).items()}[id_.lower()]
    assert found.properties["provisioningState"] == "Succeeded"
    return {place: directory / "azure/disks" / name for place, name in found.hidden["files"].items()}


def assert_built(made: Build, id_: str) -> None:
    """The image holds what Packer was to put into it, and a file of its source."""
    assert made.ended.status == 0, made.log
    disk = files_of(made.stage.directory, id_)[OS]
    marker, content, accounts = read(disk, "etc/marker", "root/content", "etc/passwd")
    assert marker == f"{made.name}\n".encode()
    assert content == made.content
    assert accounts == b"root:x:0:0:root:/root:/bin/sh\n"


def left_of_builds(directory: Path) -> list[str]:
    """What is there, but for what builds start from, and images: disks, snapshots, and what is attached."""
    found = resources(directory)
    kept = (DISK, DATA_DISK)
    left = [
        id_.rpartition("/")[2] for id_, each in found.items() if each.kind in {"disks", "snapshots"} and id_ not in kept
    ]
    attached = [entry["name"] for entry in found[MACHINE].properties["storageProfile"]["dataDisks"]]
    return sorted({*left, *attached})
