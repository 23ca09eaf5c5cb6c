"""Every option of image.yaml. Names are those of Packer's azure-chroot, defaults what its code does.

They differ from the peer where its default is a defect or a danger: nothing is copied into the image, mounts
are the sandbox's own, the root partition is found, and the generation comes from the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from pytest_azchroot.spec import formats
from pytest_azchroot.spec.destination import SharedImageDestination, Strict
from pytest_azchroot.spec.fields import (
    AbsolutePath,
    AbsolutePaths,
    Capabilities,
    Checked,
    Choice,
    Filled,
    Flag,
    MountRows,
    Outputs,
    Partition,
    Seconds,
    Size,
    Texts,
)

DISK_STORAGE = (
    "Premium_LRS",
    "PremiumV2_LRS",
    "Premium_ZRS",
    "Standard_LRS",
    "StandardSSD_LRS",
    "StandardSSD_ZRS",
    "UltraSSD_LRS",
)
"""Kinds of managed disks, as azure-chroot accepts them."""

CACHING = ("None", "ReadOnly", "ReadWrite")

DiskStorage = Annotated[str, Choice(DISK_STORAGE)]
Caching = Annotated[str, Choice(CACHING)]


class Options(Strict):
    """What a cloud's block may hold: every option except `cloud`, `clouds` and `variables`."""

    # What to build from, and what it becomes
    source: Filled | None = None
    """What to build from. For `local`: a disk file (raw, VHD, VHDX, qcow2), relative to the image's directory.
    For `azure`: a platform image `publisher:offer:sku:version`, the id of a managed disk, or that of a gallery
    image version."""
    from_scratch: Flag = False
    """Begin with an empty disk instead of a source; `pre_mount_commands` must partition and fill it."""
    output: Outputs = ()
    """The file or files to publish, relative to the image's directory. The suffix says the format:
    `.vhd` (fixed), `.raw`, `.vhdx`, `.qcow2`."""
    image_resource_id: Annotated[str, Checked(formats.image_id)] | None = None
    """The id of the managed image to publish."""
    shared_image_destination: SharedImageDestination | None = None
    """The gallery image version to publish."""
    skip_create_image: Flag = False
    """Build and test, but publish nothing."""
    skip_cleanup: Flag = False
    """Keep the temporary disk, detached; it loses the tag by which it would expire."""

    # Disks
    os_disk_size_gb: Size = 0
    """Size of the disk in GiB; 0 means that of the source. A source can be enlarged, never shrunk."""
    os_disk_storage_account_type: DiskStorage = "Premium_LRS"
    """The kind of the OS disk. PremiumV2_LRS and UltraSSD_LRS are refused before the build: Azure makes no images of
    them."""
    os_disk_cache_type: Caching = "ReadOnly"
    """Host caching of the OS disk."""
    data_disk_storage_account_type: DiskStorage = "Premium_LRS"
    """The kind of the data disks that a gallery image version brings along. Without effect so far: they are not
    copied."""
    data_disk_cache_type: Caching = "ReadOnly"
    """Host caching of the data disks. Without effect so far: they are not copied."""
    image_hyperv_generation: Annotated[str, Choice(("V1", "V2"))] | None = None
    """The Hyper-V generation of the image: V1 boots by BIOS, V2 by UEFI. Not set: that of the source."""
    temporary_os_disk_id: Annotated[str, Checked(formats.disk_id)] | None = None
    """The id of the temporary OS disk. Not set: a unique name beside the build VM."""
    temporary_os_disk_snapshot_id: Annotated[str, Checked(formats.snapshot_id)] | None = None
    """The id of the temporary snapshot of the OS disk. Without effect: versions are made of the disk itself."""
    temporary_data_disk_id_prefix: Annotated[str, Checked(formats.disk_id)] | None = None
    """How the ids of temporary data disks begin; the LUN follows. Without effect so far: they are not copied."""
    temporary_data_disk_snapshot_id: Annotated[str, Checked(formats.snapshot_id)] | None = None
    """How the ids of the data disks' snapshots begin; the LUN follows. Without effect: there are none."""
    polling_duration_timeout: Seconds = 900.0
    """How long one operation of Azure may take, in seconds: making, attaching, detaching or deleting a disk, making a
    managed image."""
    shared_image_gallery_timeout: Seconds = 3600.0
    """How long to wait for a gallery image version, in seconds. It goes on in Azure, and the next run takes it up."""

    # Mounting
    command_wrapper: Annotated[str, Checked(formats.wrapper)] = "{{ command }}"
    """How each command of the spec that runs on the build machine is called."""
    pre_mount_commands: Texts = ()
    """Shell commands for the build machine, run when the disk is attached and before it is mounted."""
    manual_mount_command: Filled | None = None
    """A shell command that mounts the image at `mount_path`, in place of ours."""
    mount_options: Texts = ()
    """Options for mounting the root file system, like `noatime`."""
    mount_partition: Partition | None = None
    """The number of the partition that holds the root file system; 0 is the whole disk. Not set: it is found."""
    mount_path: AbsolutePath | None = None
    """Where the image is mounted while it is built. Not set: a private directory."""
    post_mount_commands: Texts = ()
    """Shell commands for the build machine, run when the image is mounted, before the first step."""
    chroot_mounts: MountRows | None = None
    """What is mounted inside the image, as rows `[type, source, path]`. Not set: the sandbox's own private
    /dev, /proc, /sys and /run. A list, an empty one too, is taken literally."""
    copy_files: AbsolutePaths = ()
    """Files of the build machine that are in the image at the same path while steps run, and removed after."""
    lvm_root_device: Annotated[str, Checked(formats.lvm_device)] | None = None
    """The logical volume that holds the root file system, like `/dev/rootvg/rootlv` or `/dev/mapper/rootvg-rootlv`. Not
    set: it is found."""
    pre_unmount_commands: Texts = ()
    """Shell commands for the build machine, run after the last step and before the image is unmounted."""
    deny_services: Flag = True
    """Whether starting a service in a step succeeds without effect, as packages do when they are installed."""
    defer_initramfs: Flag = False
    """Whether the making of an initramfs is put off in steps: `update-initramfs` and `dracut` run once, after the last
    step, each with what it was called with."""
    fast_sync: Flag = True
    """Whether fsync and its kin succeed without effect in the commands of steps; the image is written out when it is
    closed. `false` carries them out."""
    unconfined: Capabilities = ()
    """Capabilities that commands in the image have although they reach the build machine, like `SYS_PTRACE`."""
    metadata_service: Flag = False
    """Whether commands in the image reach the metadata service of the VM they are built on, and with it tokens of the
    VM's managed identity."""
    resolv_conf: Annotated[str, Choice(("host", "image"))] = "host"
    """Which name resolution steps have: the build machine's, lent, or what the image holds."""
    command_timeout: Seconds | None = None
    """How long one command may take, in seconds. Not set: no limit."""
    checks: Annotated[str, Choice(("required", "none"))] = "required"
    """Whether publishing needs at least one passed check; `none` says that the image has none on purpose."""
    verify_writes: Annotated[str, Choice(("fail", "discard"))] = "fail"
    """What becomes of an image whose checks write to it, outside /run, /tmp, /var/tmp, /var/log and /var/cache. What
    they write never reaches it; `fail` does not publish it and names the paths, `discard` gives each test file the
    image anew."""
    verify_network: Flag = False
    """Whether checks have the build machine's name resolution. If not, they see the image's own."""

    # Who asks Azure
    cloud_environment_name: Filled | None = None
    """Which Azure: `Public`, `China` or `USGovernment`. Not set: that of the build VM."""
    metadata_host: Filled | None = None
    """The host that describes a private Azure; `cloud_environment_name` is not looked at then."""
    client_id: Filled | None = None
    """The id of the application, or alone that of the user-assigned managed identity."""
    client_secret: Filled | None = Field(default=None, repr=False)
    """The application's secret."""
    client_cert_path: Filled | None = None
    """The file with the application's certificate and private key, PEM or PKCS#12."""
    client_cert_password: Filled | None = Field(default=None, repr=False)
    """The password of that file."""
    client_jwt: Filled | None = Field(default=None, repr=False)
    """A federated token that stands for the application's secret."""
    object_id: Filled | None = None
    """The object id of the application; kept for configurations that have it."""
    tenant_id: Filled | None = None
    """The tenant of the application. Not set: that of the subscription."""
    subscription_id: Filled | None = None
    """The subscription of the gallery to publish to. Not set: that of the build VM."""
    oidc_request_token: Filled | None = Field(default=None, repr=False)
    """GitHub's token to ask for an OIDC token with."""
    oidc_request_url: Filled | None = None
    """Where to ask GitHub for an OIDC token."""
    use_azure_cli_auth: Flag = False
    """Use the login of the Azure CLI."""


class ImageSpec(Options):
    """An image's options for the chosen cloud: its block under ``clouds`` merged over the top level."""

    cloud: Filled = "azure"
    """The cloud to build on; `--azchroot-cloud` overrides it."""


class Variable(Strict):
    """A variable with more to say than its default."""

    default: str | int | float | bool | None = None
    """Its value where nobody sets it. Without one it must be set."""
    sensitive: bool = False
    """Whether its value is masked in all output; it has 4 characters or more then."""


class ImageFile(ImageSpec):
    """The file image.yaml as a whole."""

    clouds: Mapping[str, Options] = Field(default_factory=dict)
    """What differs by cloud: the name of a cloud, and below it any option, which replaces the one above.
    An empty value takes the option away for that cloud."""
    variables: Mapping[str, str | int | float | bool | Variable | None] = Field(default_factory=dict)
    """Variables that templates use as `var.NAME`: NAME and its default (none: it must be set), or NAME with
    `default` and `sensitive`."""


SECRETS = ("client_secret", "client_cert_password", "client_jwt", "oidc_request_token")
"""Options whose values are masked like those of sensitive variables."""
