"""A workshop in which suites for Azure are run against an emulator."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_azchroot.emulator.pytest_plugin import AzureEmulator

APPLETS = ("sh", "cat", "env", "sleep", "stat", "sync", "test", "touch", "true")
PUBLISHER, OFFER, SKU = "Debian", "debian-12", "12-gen2"
URN = f"{PUBLISHER}:{OFFER}:{SKU}"
VERSIONS = ("12.0.9", "12.0.10")
"""Of the platform image: the later one is not the later one in the order of letters."""

STEP = """
    import pytest

    @pytest.mark.provision
    def test_step(chroot):
        chroot.run("echo hello > /etc/marker")
"""
CHECK = """
    def test_check(host):
        assert host.file("/etc/marker").content_string == "hello\\n"
"""


def make_base(directory: Path) -> Path:
    """A raw disk without a partition table: ext4 with a busybox and little else."""
    root = directory / "root"
    for name in ("bin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "var/log"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/os-release").write_text("ID=tiny\n")
    disk = directory / "base.raw"
    subprocess.run(["mkfs.ext4", "-q", "-d", root, "-L", "base", disk, "16M"], check=True, capture_output=True)
    return disk


@dataclass
class AzureWorkshop:
    """Writes suites for Azure and runs pytest on them, in this process unless asked otherwise."""

    pytester: pytest.Pytester
    azure: AzureEmulator
    state: Path
    """Where journals are."""

    def image(self, name: str = "x", *, files: dict[str, str] | None = None, **options: Any) -> Path:
        """An image's directory below ``images/``; it has one step and one check where no files are given.

        :param options: of image.yaml; without a destination it becomes the managed image of its name.
        """
        directory = self.pytester.path / "images" / name
        directory.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {"cloud": "azure", "source": f"{URN}:latest", **options}
        if not {"image_resource_id", "shared_image_destination", "skip_create_image"} & config.keys():
            config["image_resource_id"] = self.image_id(name)
        (directory / "image.yaml").write_text(yaml.safe_dump(config))
        for file, text in (files or {"test_10_step": STEP, "test_90_check": CHECK}).items():
            (directory / f"{file}.py").write_text(textwrap.dedent(text))
        return directory

    def image_id(self, name: str = "x") -> str:
        """The id of a managed image."""
        return f"{self.group}/providers/Microsoft.Compute/images/{name}"

    def gallery(self, version: str = "1.0.0", **definition: Any) -> dict[str, str]:
        """Make a gallery and an image definition, once; what ``shared_image_destination`` is to say."""
        compute = self.azure.compute()
        location = self.azure.settings.location
        compute.galleries.begin_create_or_update("rg1", "g1", {"location": location}).result()  # type: ignore[call-overload]
        properties = {
            "osType": "Linux",
            "osState": "Generalized",
            "hyperVGeneration": "V2",
            "architecture": "x64",
            "identifier": {"publisher": "us", "offer": "linux", "sku": "tiny"},
            **definition,
        }
        body: Any = {"location": location, "properties": properties}
        compute.gallery_images.begin_create_or_update("rg1", "g1", "tiny", body).result()
        return {"resource_group": "rg1", "gallery_name": "g1", "image_name": "tiny", "image_version": version}

    def version_id(self, version: str = "1.0.0") -> str:
        """The id of a version in that gallery."""
        return f"{self.group}/providers/Microsoft.Compute/galleries/g1/images/tiny/versions/{version}"

    @property
    def group(self) -> str:
        """The id of the resource group."""
        return f"/subscriptions/{self.azure.subscription_id}/resourceGroups/rg1"

    def run(self, *arguments: str, subprocess: bool = False) -> pytest.RunResult:
        """Run pytest on ``images`` unless paths are given."""
        if not any(each.startswith("images") for each in arguments):
            arguments = (*arguments, "images")
        run = self.pytester.runpytest_subprocess if subprocess else self.pytester.runpytest_inprocess
        return run("-p", "no:randomly", *arguments)

    def read(self, path: str, id: str) -> str:
        """A file in the bytes of an image or a gallery version, read by debugfs: no kernel, no mount."""
        file = self.azure.disk_file(id)
        done = subprocess.run(["debugfs", "-R", f"cat {path}", file], check=True, capture_output=True, text=True)
        return done.stdout

    def disks(self) -> list[str]:
        """The names of all managed disks."""
        return [str(each.name) for each in self.azure.compute().disks.list()]

    def attached(self) -> list[Any]:
        """The data disks of the machine."""
        machine: Any = self.azure.compute().virtual_machines.get("rg1", "vm1")
        return list(machine["properties"]["storageProfile"]["dataDisks"])

    def journals(self) -> list[str]:
        """The journals that are left."""
        return [path.read_text() for path in sorted(self.state.glob("journal/*"))]

    def nothing_is_left(self) -> None:
        """No disk, nothing attached, no journal."""
        assert (self.disks(), self.attached(), self.journals()) == ([], [], [])

    def names(self) -> list[str]:
        """What was asked of Azure, in order."""
        return [str(call["name"]) for call in self.azure.calls()]
