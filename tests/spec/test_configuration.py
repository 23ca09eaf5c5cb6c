"""What a valid image.yaml gives."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

import pytest

from pytest_azchroot.spec import BUILTIN_CLOUDS, COMMON, ConfigError, ImageSpec, load
from pytest_azchroot.spec.model import Options

from .cases import AZURE, GALLERY, LOCAL, SUB
from .reading import read, write

AZURE_CHROOT = """
source from_scratch image_resource_id shared_image_destination skip_create_image skip_cleanup os_disk_size_gb
os_disk_storage_account_type os_disk_cache_type data_disk_storage_account_type data_disk_cache_type
image_hyperv_generation temporary_os_disk_id temporary_os_disk_snapshot_id temporary_data_disk_id_prefix
temporary_data_disk_snapshot_id command_wrapper pre_mount_commands manual_mount_command mount_options mount_partition
mount_path post_mount_commands chroot_mounts copy_files lvm_root_device pre_unmount_commands cloud_environment_name
metadata_host client_id client_secret client_cert_path client_cert_password client_jwt object_id tenant_id
subscription_id oidc_request_token oidc_request_url use_azure_cli_auth
"""


def test_every_option_of_azure_chroot_is_there_and_azure_acts_on_it() -> None:
    names = set(AZURE_CHROOT.split())
    assert set(Options.model_fields) - names == {
        "output",
        "polling_duration_timeout",
        "shared_image_gallery_timeout",
        "deny_services",
        "defer_initramfs",
        "fast_sync",
        "unconfined",
        "metadata_service",
        "resolv_conf",
        "command_timeout",
        "checks",
        "verify_writes",
        "verify_network",
    }
    assert names <= BUILTIN_CLOUDS["azure"] | COMMON


def test_defaults(tmp_path: Path) -> None:
    spec = read(tmp_path, LOCAL).spec
    assert spec == ImageSpec(
        cloud="local",
        source="a.vhd",
        output=("b.vhd",),
        from_scratch=False,
        image_resource_id=None,
        shared_image_destination=None,
        skip_create_image=False,
        skip_cleanup=False,
        os_disk_size_gb=0,
        os_disk_storage_account_type="Premium_LRS",
        os_disk_cache_type="ReadOnly",
        data_disk_storage_account_type="Premium_LRS",
        data_disk_cache_type="ReadOnly",
        image_hyperv_generation=None,
        command_wrapper="{{ command }}",
        pre_mount_commands=(),
        manual_mount_command=None,
        mount_options=(),
        mount_partition=None,
        mount_path=None,
        post_mount_commands=(),
        chroot_mounts=None,
        copy_files=(),
        lvm_root_device=None,
        pre_unmount_commands=(),
        deny_services=True,
        defer_initramfs=False,
        fast_sync=True,
        unconfined=(),
        metadata_service=False,
        resolv_conf="host",
        command_timeout=None,
        checks="required",
        verify_writes="fail",
        verify_network=False,
        use_azure_cli_auth=False,
    )


def test_target_regions_have_their_defaults(tmp_path: Path) -> None:
    text = GALLERY + "  image_version: 1.2.3\n  target_regions: [{name: a}]\n"
    destination = read(tmp_path, text).spec.shared_image_destination
    assert destination is not None
    (region,) = destination.target_regions
    assert (region.replicas, region.storage_account_type) == (1, "Standard_ZRS")
    assert destination.exclude_from_latest is False


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("1", 1), ('"2"', 2), ('"{{ 2 + 1 }}"', 3)])
def test_a_partition_is_a_number_however_written(text: str, number: int, tmp_path: Path) -> None:
    assert read(tmp_path, LOCAL + f"mount_partition: {text}\n").spec.mount_partition == number


def test_an_empty_list_of_mounts_is_not_the_default(tmp_path: Path) -> None:
    assert read(tmp_path, LOCAL + "chroot_mounts: []\n").spec.chroot_mounts == ()


def test_several_outputs(tmp_path: Path) -> None:
    text = "cloud: local\nsource: a\noutput: [b.vhd, c.raw, d.vhdx, e.qcow2]\n"
    assert read(tmp_path, text).spec.output == ("b.vhd", "c.raw", "d.vhdx", "e.qcow2")


@pytest.mark.parametrize(
    "text",
    [
        "cloud: local\nsource: a\nskip_create_image: true\n",
        "source: a:b:c:d\nskip_create_image: true\n",
        f"source: {SUB}/disks/d\nimage_resource_id: {SUB}/images/i\n"
        + GALLERY.partition("\n")[2]
        + "  image_version: 1.0.0\n",
        f"source: {SUB}/galleries/g/images/i/versions/1.0.0\nimage_resource_id: {SUB.upper()}/IMAGES/i\n",
        f"from_scratch: true\nos_disk_size_gb: 4\npre_mount_commands: [x]\nimage_resource_id: {SUB}/images/i\n",
        AZURE + "client_id: i\n",
        AZURE + "use_azure_cli_auth: true\nsubscription_id: s\ntenant_id: t\n",
        AZURE + "client_id: i\nsubscription_id: s\nclient_secret: abcdef\ntenant_id: t\n",
        AZURE + "client_id: i\nsubscription_id: s\nclient_cert_path: /x\nclient_cert_password: abcdef\n",
        AZURE + "client_id: i\nsubscription_id: s\noidc_request_token: abcdef\noidc_request_url: u\n",
        AZURE + "cloud_environment_name: Mine\nmetadata_host: h\n",
        AZURE + "cloud_environment_name: AzureUSGovernmentCloud\n",
        LOCAL + "manual_mount_command: mount {{ partition(1) }}\n",
        LOCAL + "lvm_root_device: /dev/my vg/root\n",
    ],
)
def test_valid(text: str, tmp_path: Path) -> None:
    read(tmp_path, text)


BOTH = f"""\
cloud: azure
source: a:b:c:latest
mount_options: [noatime]
os_disk_size_gb: 8
clouds:
  local:
    source: base.vhd
    output: out.vhd
    mount_options:
      - ro
    os_disk_size_gb:
  azure:
    image_resource_id: {SUB}/images/i
"""


def test_the_chosen_clouds_block_counts(tmp_path: Path) -> None:
    configuration = read(tmp_path, BOTH)
    assert configuration.spec.cloud == "azure"
    assert configuration.spec.image_resource_id == f"{SUB}/images/i"
    assert (configuration.spec.source, configuration.spec.output) == ("a:b:c:latest", ())
    assert configuration.line_of("image_resource_id") == 13


def test_the_command_line_overrides_the_cloud(tmp_path: Path) -> None:
    configuration = read(tmp_path, BOTH, cloud="local")
    spec = configuration.spec
    assert (spec.cloud, spec.source, spec.output) == ("local", "base.vhd", ("out.vhd",))
    assert (spec.mount_options, spec.os_disk_size_gb) == (("ro",), 0)
    assert spec.image_resource_id is None
    assert configuration.line_of("mount_options[0]") == 10
    assert configuration.line_of("mount_options[7]") == 9
    assert configuration.line_of("command_wrapper") is None


def test_without_a_cloud_it_is_azure(tmp_path: Path) -> None:
    assert read(tmp_path, AZURE).spec.cloud == "azure"


def test_a_strangers_cloud_acts_on_what_it_says(tmp_path: Path) -> None:
    clouds = {**BUILTIN_CLOUDS, "moon": frozenset({"client_id"})}
    path = write(tmp_path, "cloud: moon\nclient_id: i\nsource: x\n")
    with pytest.raises(ConfigError) as caught:
        load(path, clouds=clouds, environ={})
    assert [(each.line, each.field) for each in caught.value.problems] == [(3, "source")]
    path.write_text("cloud: moon\nclient_id: i\n")
    assert load(path, clouds=clouds, environ={}).spec.cloud == "moon"


def test_paths(tmp_path: Path) -> None:
    configuration = read(tmp_path, LOCAL)
    assert (configuration.path, configuration.directory) == (tmp_path / "demo" / "image.yaml", tmp_path / "demo")
    assert configuration.render("{{ image.name }}") == "demo"


def test_aliases_are_allowed(tmp_path: Path) -> None:
    spec = read(tmp_path, LOCAL + "pre_mount_commands: &c [sync]\npost_mount_commands: *c\n").spec
    assert spec.pre_mount_commands == spec.post_mount_commands == ("sync",)


def test_a_hook_can_change_the_spec(tmp_path: Path) -> None:
    configuration = read(tmp_path, LOCAL)
    spec = configuration.spec.model_copy(update={"output": "c.raw", "post_mount_commands": ["echo {{ device }}"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        changed = configuration.with_spec(spec)
    assert changed.spec.output == ("c.raw",)
    assert changed.render(changed.spec.post_mount_commands[0], device="/dev/x") == "echo /dev/x"
    assert configuration.spec.output == ("b.vhd",)


@pytest.mark.parametrize(
    ("update", "field", "part"),
    [
        ({"output": "x.floppy"}, "output", "does not end in"),
        ({"os_disk_size_gb": "8"}, "os_disk_size_gb", "a whole number"),
        ({"checks": "maybe"}, "checks", "is not one of"),
        ({"mount_path": "{{ devise }}"}, "mount_path", "did you mean device?"),
        ({"command_wrapper": "{{ .Command }}"}, "command_wrapper", "{{ command }}"),
    ],
)
def test_what_a_hook_makes_of_the_spec_is_checked(
    update: dict[str, object], field: str, part: str, tmp_path: Path
) -> None:
    configuration = read(tmp_path, LOCAL)
    with pytest.raises(ConfigError, match=re.escape(part)) as caught:
        configuration.with_spec(configuration.spec.model_copy(update=update))
    assert [each.field for each in caught.value.problems] == [field]


def test_a_hook_that_changes_one_option_leaves_texts_that_wait(tmp_path: Path) -> None:
    text = 'source: "a:b:c:{{ vm.zone }}"\nskip_create_image: true\n'
    configuration = read(tmp_path, text)
    changed = configuration.with_spec(configuration.spec.model_copy(update={"checks": "none"}))
    assert changed.spec.source == "a:b:c:{{ vm.zone }}"
    assert changed.with_vm({"zone": "1"}).spec.source == "a:b:c:1"


def test_reading_is_pure(tmp_path: Path) -> None:
    read(tmp_path, LOCAL)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["image.yaml"]
    shutil.rmtree(tmp_path / "demo")
