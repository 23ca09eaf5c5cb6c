"""The JSON Schema takes what the reader takes, and editors learn from it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pytest_azchroot.spec.model import ImageFile
from pytest_azchroot.spec.reference import reference
from pytest_azchroot.spec.schema import DIALECT, json_schema

from .cases import AZURE, GALLERY, LOCAL, SCRATCH
from .reading import read
from .test_configuration import BOTH

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "example_images").glob("*/image.yaml"))


def complaints(text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(json_schema())
    return [str(error.json_path) for error in validator.iter_errors(yaml.safe_load(text))]


def test_it_is_a_schema_of_its_dialect() -> None:
    schema = json_schema()
    assert schema["$schema"] == DIALECT
    jsonschema.Draft202012Validator.check_schema(schema)


def test_making_it_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        json_schema()


EVERYTHING = """
cloud: "{{ var.cloud }}"
output: "{{ image.name }}.vhd"
source: a.vhd
os_disk_size_gb: "{{ var.size }}"
skip_create_image: "{{ var.flag }}"
mount_partition: "{% if var.flag %}1{% endif %}"
mount_options: "{{ var.options }}"
command_timeout: 2.5
checks: "{{ var.checks }}"
lvm_root_device: "{{ var.lvm }}"
chroot_mounts: [[bind, /dev, /dev]]
clouds: {azure: {os_disk_cache_type: None, os_disk_size_gb: null, client_id: "{{ vm.name }}"}, moon: {}}
variables: {cloud: local, size: 1, flag: true, options: "[]", checks: , lvm: {default: /dev/a/b, sensitive: true}}
"""


@pytest.mark.parametrize(
    "text",
    [
        LOCAL,
        AZURE,
        BOTH,
        SCRATCH,
        GALLERY + "  image_version: 1.0.0\n  target_regions: [{name: a, replicas: '{{ var.x }}'}]\n",
        GALLERY + "  image_version: '{{ var.x }}'\n  exclude_from_latest: '{{ var.x }}'\n",
        LOCAL.replace("b.vhd", "[a.vhd, b.raw]"),
        LOCAL + "mount_partition: 0\n",
        LOCAL + "mount_partition: '3'\n",
        EVERYTHING,
        *(path.read_text() for path in EXAMPLES),
    ],
)
def test_it_takes_what_is_valid(text: str) -> None:
    assert complaints(text) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples_are_valid(path: Path, tmp_path: Path) -> None:
    read(tmp_path, path.read_text())


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("mount_optons: []\n", "$"),
        ("mount_options: noatime\n", "$.mount_options"),
        ("os_disk_size_gb: '3'\n", "$.os_disk_size_gb"),
        ("os_disk_size_gb: -1\n", "$.os_disk_size_gb"),
        ("mount_path: 1.10\n", "$.mount_path"),
        ("mount_path:\n", "$.mount_path"),
        ("mount_path: mnt\n", "$.mount_path"),
        ("checks: non\n", "$.checks"),
        ("os_disk_cache_type: readonly\n", "$.os_disk_cache_type"),
        ("chroot_mounts: [[a, b]]\n", "$.chroot_mounts"),
        ("clouds: {azure: {sorce: x}}\n", "$.clouds.azure"),
        ("variables: {a: {sensitiv: true}}\n", "$.variables.a"),
        (GALLERY + "  image_version: 1.10\n", "$.shared_image_destination.image_version"),
        (GALLERY + "  image_version: '1.10'\n", "$.shared_image_destination.image_version"),
    ],
)
def test_it_refuses_what_is_not(text: str, where: str) -> None:
    assert complaints(text) == [where]


def test_every_option_is_described() -> None:
    schema = json_schema()
    objects = [schema, *(each for name, each in schema["$defs"].items() if name != "Template")]
    silent = [name for each in objects for name, option in each["properties"].items() if not option.get("description")]
    assert silent == []
    assert set(schema["properties"]) == set(ImageFile.model_fields)


def test_every_option_that_is_no_text_may_be_a_template() -> None:
    schema = json_schema()
    template: Any = {"$ref": "#/$defs/Template"}
    for name in ("os_disk_size_gb", "from_scratch", "command_timeout", "mount_partition", "checks", "mount_options"):
        assert template in schema["properties"][name]["anyOf"]


def test_the_page_about_image_yaml_is_up_to_date() -> None:
    page = ROOT / "docs" / "reference" / "image-yaml.md"
    assert page.read_text() == reference(), "run: azchroot schema --markdown > docs/reference/image-yaml.md"


def test_the_page_names_every_option() -> None:
    page = reference()
    assert [name for name in ImageFile.model_fields if f"| `{name}` |" not in page] == []
