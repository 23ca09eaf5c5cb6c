"""Which image of a session starts from which."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pytest_azchroot.chain import are_met, coming, makes, needs
from pytest_azchroot.image import Image
from pytest_azchroot.spec import BUILTIN_CLOUDS, load

GALLERY = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/RG/providers/Microsoft.Compute/galleries/g"
)
DESTINATION = {"resource_group": "rg", "gallery_name": "g", "image_name": "base", "image_version": "1.2.3"}
MANAGED = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/images/i"


def image(directory: Path, **options: object) -> Image:
    directory.mkdir(exist_ok=True)
    file = directory / "image.yaml"
    file.write_text(yaml.safe_dump(options))
    return Image(directory.name, directory, load(file, clouds=BUILTIN_CLOUDS))


@pytest.mark.parametrize("version", ["1.2.3", "latest", "Latest"])
def test_a_gallery_version_of_the_session(tmp_path: Path, version: str) -> None:
    base = image(tmp_path / "a", cloud="azure", source="a:b:c:1", shared_image_destination=DESTINATION)
    source = f"{GALLERY}/images/base/versions/{version}"
    web = image(tmp_path / "b", cloud="azure", source=source, image_resource_id=MANAGED)
    assert are_met(needs(web), makes(base)) and not are_met(needs(base), makes(web))
    assert coming(web) == source


@pytest.mark.parametrize("source", ["images/base/versions/1.2.4", "images/other/versions/latest"])
def test_another_version(tmp_path: Path, source: str) -> None:
    base = image(tmp_path / "a", cloud="azure", source="a:b:c:1", shared_image_destination=DESTINATION)
    web = image(tmp_path / "b", cloud="azure", source=f"{GALLERY}/{source}", image_resource_id=MANAGED)
    assert not are_met(needs(web), makes(base))


def test_one_file_by_any_path(tmp_path: Path) -> None:
    base = image(tmp_path / "a", cloud="local", source="x.raw", output="base.raw")
    (tmp_path / "link").symlink_to("a")
    web = image(tmp_path / "b", cloud="local", source="../link/base.raw", output="web.raw")
    assert are_met(needs(web), makes(base))
    assert coming(web) == needs(web) == str(tmp_path / "a/base.raw")


def test_an_id_that_waits_for_the_machine(tmp_path: Path) -> None:
    source = f"{GALLERY}/images/base/versions/1.2.3".replace(
        "00000000-0000-0000-0000-000000000000", "{{ vm.subscription_id }}"
    )
    base = image(tmp_path / "a", cloud="azure", source="a:b:c:1", shared_image_destination=DESTINATION)
    web = image(tmp_path / "b", cloud="azure", source=source, image_resource_id=MANAGED)
    assert are_met(needs(web), makes(base))
