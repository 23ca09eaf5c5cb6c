"""Values of the wrong kind, and keys that there are not: all is said, at its line, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_azchroot.spec import BUILTIN_CLOUDS, ConfigError, load

from .cases import AZURE, GALLERY, LOCAL
from .reading import Case, check, problems, write

TYPES = [
    Case(
        "a number for a text",
        LOCAL + "mount_path: 1.10\n",
        [(4, "mount_path", "1.10, which YAML reads as the number 1.1")],
    ),
    Case("its hint", LOCAL + "mount_path: 1.10\n", [(4, "mount_path", 'quote it: "1.10"')]),
    Case(
        "an integer for a text",
        LOCAL + "lvm_root_device: 7\n",
        [(4, "lvm_root_device", "a text is meant, not the number 7")],
    ),
    Case(
        "yes for a text",
        LOCAL + "resolv_conf: yes\n",
        [(4, "resolv_conf", "yes, which YAML reads as the boolean true")],
    ),
    Case("on for a text", LOCAL + "mount_options: [on]\n", [(4, "mount_options[0]", 'quote it: "on"')]),
    Case("a list for a text", LOCAL + "mount_path: [/a]\n", [(4, "mount_path", "a text is meant, not a list")]),
    Case("a mapping for a text", LOCAL + "mount_path: {a: b}\n", [(4, "mount_path", "a text is meant, not a mapping")]),
    Case(
        "a text for a list",
        LOCAL + "mount_options: noatime\n",
        [(4, "mount_options", "a list is meant, not the text 'noatime'")],
    ),
    Case(
        "a mapping for a list", LOCAL + "copy_files:\n  a: b\n", [(4, "copy_files", "a list is meant, not a mapping")]
    ),
    Case("a text for a number", LOCAL + 'os_disk_size_gb: "64"\n', [(4, "os_disk_size_gb", "write it without quotes")]),
    Case("a fraction", LOCAL + "os_disk_size_gb: 1.5\n", [(4, "os_disk_size_gb", "a whole number is meant")]),
    Case(
        "a boolean for a number", LOCAL + "os_disk_size_gb: yes\n", [(4, "os_disk_size_gb", "a whole number is meant")]
    ),
    Case("a negative size", LOCAL + "os_disk_size_gb: -1\n", [(4, "os_disk_size_gb", "must be 0 or more, and is -1")]),
    Case(
        "a text for a boolean",
        LOCAL + 'skip_create_image: "true"\n',
        [(4, "skip_create_image", "true or false is meant")],
    ),
    Case(
        "a number for a boolean", LOCAL + "skip_create_image: 1\n", [(4, "skip_create_image", "true or false is meant")]
    ),
    Case(
        "a timeout of nothing",
        LOCAL + "command_timeout: 0\n",
        [(4, "command_timeout", "must be more than 0, and is 0")],
    ),
    Case("a timeout without end", LOCAL + "command_timeout: .inf\n", [(4, "command_timeout", "a number that ends")]),
    Case("nothing", LOCAL + "mount_path:\n", [(4, "mount_path", "has no value")]),
    Case("nothing in a list", LOCAL + "mount_options:\n  - a\n  -\n", [(6, "mount_options[1]", "has no value")]),
    Case("an empty command", LOCAL + "post_mount_commands: ['  ']\n", [(4, "post_mount_commands[0]", "is empty")]),
    Case("a choice", LOCAL + "checks: non\n", [(4, "checks", "did you mean none?")]),
    Case(
        "a choice in the wrong case",
        AZURE + "os_disk_cache_type: readonly\n",
        [(3, "os_disk_cache_type", "did you mean ReadOnly?")],
    ),
    Case(
        "storage",
        AZURE + "os_disk_storage_account_type: premium_lrs\n",
        [(3, "os_disk_storage_account_type", "did you mean Premium_LRS?")],
    ),
    Case(
        "data storage",
        AZURE + "data_disk_storage_account_type: Fast\n",
        [(3, "data_disk_storage_account_type", "is not one of Premium_LRS")],
    ),
    Case("data caching", AZURE + "data_disk_cache_type: none\n", [(3, "data_disk_cache_type", "did you mean None?")]),
    Case("generation", AZURE + "image_hyperv_generation: v2\n", [(3, "image_hyperv_generation", "did you mean V2?")]),
    Case("resolv_conf", LOCAL + "resolv_conf: hosts\n", [(4, "resolv_conf", "did you mean host?")]),
    Case("a capability", LOCAL + "unconfined: [SYS_PTRAC]\n", [(4, "unconfined[0]", "did you mean SYS_PTRACE?")]),
    Case("its case", LOCAL + "unconfined: [cap_mknod]\n", [(4, "unconfined[0]", "did you mean MKNOD?")]),
    Case("one that is there", LOCAL + "unconfined: [CHOWN]\n", [(4, "unconfined[0]", "they are DAC_READ_SEARCH, NET")]),
    Case(
        "a row of two",
        LOCAL + "chroot_mounts:\n  - [bind, /dev, /dev]\n  - [proc, /proc]\n",
        [(6, "chroot_mounts[1]", "a row has three texts")],
    ),
    Case(
        "a row of numbers",
        LOCAL + "chroot_mounts: [[bind, 1, /dev]]\n",
        [(4, "chroot_mounts[0][1]", "a text is meant")],
    ),
    Case(
        "rows without a list",
        LOCAL + "chroot_mounts: [bind, /dev, /dev]\n",
        [(4, f"chroot_mounts[{i}]", "a list is meant") for i in range(3)],
    ),
    Case(
        "a partition's name",
        LOCAL + "mount_partition: p1\n",
        [(4, "mount_partition", "is not the number of a partition")],
    ),
    Case("no partition", LOCAL + 'mount_partition: ""\n', [(4, "mount_partition", "is not the number of a partition")]),
    Case("a relative mount path", LOCAL + "mount_path: mnt\n", [(4, "mount_path", "is not an absolute path")]),
    Case("a relative file", LOCAL + "copy_files: [etc/hosts]\n", [(4, "copy_files[0]", "is not an absolute path")]),
    Case(
        "a wrapper of nothing", LOCAL + "command_wrapper: sudo\n", [(4, "command_wrapper", "does not hold the command")]
    ),
]

KEYS = [
    Case("near", LOCAL + "mount_optons: []\n", [(4, "mount_optons", "did you mean mount_options?")]),
    Case("dashes", LOCAL + "mount-path: /x\n", [(4, "mount-path", "did you mean mount_path?")]),
    Case("far", LOCAL + "flavour: x\n", [(4, "flavour", "azchroot schema --markdown")]),
    Case("amazon-chroot", LOCAL + "source_ami: x\n", [(4, "source_ami", "it is source here")]),
    Case("azure-arm", LOCAL + "managed_image_name: x\n", [(4, "managed_image_name", "it is image_resource_id here")]),
    Case("Packer", LOCAL + "provisioners: []\n", [(4, "provisioners", "tests marked provision")]),
    Case(
        "in a destination",
        GALLERY + "  image_version: 1.0.0\n  exlude_from_latest: true\n",
        [(7, "shared_image_destination.exlude_from_latest", "it is exclude_from_latest")],
    ),
    Case(
        "in a region",
        GALLERY + "  image_version: 1.0.0\n  target_regions:\n    - name: x\n      replica: 1\n",
        [(9, "shared_image_destination.target_regions[0].replica", "did you mean replicas?")],
    ),
    Case(
        "in another cloud's block",
        LOCAL + "clouds:\n  azure:\n    sorce: x\n",
        [(6, "clouds.azure.sorce", "did you mean source?")],
    ),
    Case(
        "in the own block",
        LOCAL + "clouds:\n  local:\n    sorce: x\n",
        [(6, "clouds.local.sorce", "did you mean source?")],
    ),
    Case(
        "an unknown empty one",
        LOCAL + "clouds:\n  local:\n    sorce:\n",
        [(6, "clouds.local.sorce", "did you mean source?")],
    ),
    Case(
        "cloud in a block", LOCAL + "clouds:\n  azure:\n    cloud: x\n", [(6, "clouds.azure.cloud", "unknown option")]
    ),
]


@pytest.mark.parametrize("case", [case.param for case in TYPES + KEYS])
def test_what_is_wrong_is_said(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """Texts that are each wrong in one line, put below each other, give all of their problems."""
    chosen = [case for case in TYPES if case.text.startswith(LOCAL) and len(case.text.splitlines()) == 4]
    by_option = {case.text.splitlines()[3].partition(":")[0]: case for case in chosen}
    text = LOCAL + "".join(case.text.splitlines()[3] + "\n" for case in by_option.values())
    found = {(each.line, each.field) for each in problems(tmp_path, text)}
    assert len(by_option) > 8
    for line, case in enumerate(by_option.values(), start=4):
        for _, name, _ in case.problems:
            assert (line, name) in found


def test_the_text_of_the_error_has_a_line_for_each_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "images" / "x", LOCAL + "mount_options:\n  - 1.10\nflavor: x\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(path, clouds=BUILTIN_CLOUDS)
    assert str(caught.value).splitlines() == [
        "images/x/image.yaml:5: mount_options[0]: a text is meant, not 1.10, which YAML reads as the number 1.1",
        '  hint: quote it: "1.10"',
        "images/x/image.yaml:6: flavor: unknown option",
        "  hint: azchroot schema --markdown lists all options",
    ]
