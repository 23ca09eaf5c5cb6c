"""What options must be to each other and to their cloud."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cases import AZURE, LOCAL, SCRATCH, SUB
from .reading import Case, check

CLOUDS = [
    Case("nothing", "cloud:\nchecks: none\n", [(1, "cloud", "the name of a cloud is meant, not nothing")]),
    Case("vm", "cloud: '{{ vm.name }}'\n", [(1, "cloud", "vm is not known before the cloud is")]),
    Case("unknown with vm", "cloud: azur\nsource: '{{ vm.name }}'\n", [(1, "cloud", "did you mean azure?")]),
    Case(
        "variables in a block",
        LOCAL + "clouds:\n  local:\n    variables: {}\n",
        [(6, "clouds.local.variables", "it stands at the top level only")],
    ),
    Case("unknown", "cloud: locl\nsource: a\n", [(1, "cloud", "did you mean local?")]),
    Case(
        "unknown option",
        "cloud: local\nsource: a\noutput: b.raw\n",
        [(None, "--azchroot-cloud", "there are azure, local")],
        cloud="moon",
    ),
    Case("no name", "cloud: 3\n" + AZURE, [(1, "cloud", "the name of a cloud is meant, not the number 3")]),
    Case("unknown block", LOCAL + "clouds:\n  asure: {}\n", [(5, "clouds.asure", "did you mean azure?")]),
    Case(
        "clouds as a list",
        LOCAL + "clouds: [azure]\n",
        [(4, "clouds", "a mapping of clouds to options is meant, not a list")],
    ),
    Case("a block as a text", LOCAL + "clouds:\n  azure: x\n", [(5, "clouds.azure", "a mapping of options is meant")]),
    Case(
        "not acted on",
        LOCAL + "os_disk_cache_type: None\n",
        [(4, "os_disk_cache_type", "the cloud local does not act on os_disk_cache_type")],
    ),
    Case(
        "its hint",
        LOCAL + "os_disk_cache_type: None\n",
        [(4, "os_disk_cache_type", "move it to clouds: {azure: {os_disk_cache_type: …}}")],
    ),
    Case(
        "not acted on in its block",
        LOCAL + "clouds:\n  local:\n    client_id: x\n",
        [(6, "clouds.local.client_id", "does not act on client_id")],
    ),
    Case(
        "not acted on by azure", AZURE + "output: x.vhd\n", [(3, "output", "move it to clouds: {local: {output: …}}")]
    ),
    Case(
        "types in another block",
        LOCAL + "clouds:\n  azure:\n    os_disk_size_gb: big\n    mount_options: [1]\n    skip_cleanup: 1\n",
        [
            (6, "clouds.azure.os_disk_size_gb", "a whole number"),
            (7, "clouds.azure.mount_options[0]", "a text"),
            (8, "clouds.azure.skip_cleanup", "true or false"),
        ],
    ),
    Case(
        "forms in another block",
        LOCAL + "clouds:\n  azure:\n    image_resource_id: x\n",
        [(6, "clouds.azure.image_resource_id", "is not the id of a managed image")],
    ),
    Case(
        "types of what the block replaces",
        LOCAL + "os_disk_size_gb: big\nclouds:\n  local: {os_disk_size_gb: 3}\n",
        [(4, "os_disk_size_gb", "a whole number")],
    ),
]

SCRATCHES = [
    Case(
        "nothing with it",
        SCRATCH,
        [
            (None, "os_disk_size_gb", "is required with from_scratch"),
            (None, "pre_mount_commands", "is required with from_scratch"),
        ],
    ),
    Case(
        "size 0",
        SCRATCH + "os_disk_size_gb: 0\npre_mount_commands: [x]\n",
        [(4, "os_disk_size_gb", "is required with from_scratch")],
    ),
    Case(
        "no commands",
        SCRATCH + "os_disk_size_gb: 1\npre_mount_commands: []\n",
        [(5, "pre_mount_commands", "is required with from_scratch")],
    ),
    Case(
        "source too",
        SCRATCH + "os_disk_size_gb: 1\npre_mount_commands: [x]\nsource: x\n",
        [(6, "source", "cannot be set together with from_scratch")],
    ),
    Case(
        "LVM",
        SCRATCH + "os_disk_size_gb: 1\npre_mount_commands: [x]\nlvm_root_device: /dev/a/b\n",
        [(6, "lvm_root_device", "cannot be set together with from_scratch")],
    ),
    Case(
        "on azure",
        f"image_resource_id: {SUB}/images/i\nfrom_scratch: true\n",
        [(None, "os_disk_size_gb", "is required"), (None, "pre_mount_commands", "is required")],
    ),
]

LOCALS = [
    Case("no source", "cloud: local\noutput: b.vhd\n", [(None, "source", "is required, unless from_scratch")]),
    Case("no output", "cloud: local\nsource: b.vhd\n", [(None, "output", "is required, unless skip_create_image")]),
    Case(
        "no outputs",
        "cloud: local\nsource: b.vhd\noutput: []\n",
        [(3, "output", "is required, unless skip_create_image")],
    ),
    Case(
        "azure's source",
        "cloud: local\nsource: a:b:c:latest\noutput: b.vhd\n",
        [(2, "source", "is Azure's name of an image")],
    ),
    Case("suffix", "cloud: local\nsource: a\noutput: b.vdh\n", [(3, "output", "did you mean .vhd?")]),
    Case(
        "no suffix",
        "cloud: local\nsource: a\noutput: [b.raw, c]\n",
        [(3, "output[1]", "does not end in .vhd, .raw, .vhdx, .qcow2")],
    ),
    Case(
        "output as a mapping",
        "cloud: local\nsource: a\noutput: {a: b}\n",
        [(3, "output", "a path or a list of paths is meant")],
    ),
    Case(
        "twice",
        "cloud: local\nsource: a\noutput:\n  - b.raw\n  - x/../b.raw\n",
        [(5, "output[1]", "is the same file as 'b.raw'")],
    ),
    Case("the source", "cloud: local\nsource: a.vhd\noutput: ./a.vhd\n", [(3, "output", "is the source itself")]),
]

LVMS = [
    Case("not below /dev", LOCAL + "lvm_root_device: /etc/x\n", [(4, "lvm_root_device", "is not a path below /dev")]),
    Case("dev itself", LOCAL + "lvm_root_device: /dev/\n", [(4, "lvm_root_device", "is not a path below /dev")]),
    Case("dots", LOCAL + "lvm_root_device: /dev/a/../b\n", [(4, "lvm_root_device", "has a part ..")]),
    Case("control character", LOCAL + 'lvm_root_device: "/dev/a\\tb"\n', [(4, "lvm_root_device", "control character")]),
    Case(
        "partition too",
        LOCAL + "lvm_root_device: /dev/a/b\nmount_partition: 1\n",
        [(5, "mount_partition", "has no effect together with lvm_root_device")],
    ),
    Case(
        "mounting by hand",
        LOCAL + "manual_mount_command: x\nmount_partition: 1\nmount_options: [a]\n",
        [(5, "mount_partition", "manual_mount_command"), (6, "mount_options", "manual_mount_command")],
    ),
    Case(
        "a volume that nothing mounts",
        LOCAL + "manual_mount_command: x\nlvm_root_device: /dev/a/b\n",
        [(5, "lvm_root_device", "manual_mount_command")],
    ),
]


@pytest.mark.parametrize("case", [case.param for case in CLOUDS + SCRATCHES + LOCALS + LVMS])
def test_what_is_wrong_is_said(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


def test_a_rule_is_silent_about_an_option_that_is_wrong_itself(tmp_path: Path) -> None:
    check(
        Case(
            "",
            SCRATCH + "os_disk_size_gb: big\npre_mount_commands: no\n",
            [(4, "os_disk_size_gb", "a whole number"), (5, "pre_mount_commands", "a list is meant")],
        ),
        tmp_path,
    )
