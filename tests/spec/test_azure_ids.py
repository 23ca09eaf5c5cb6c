"""Names of Azure, parsed."""

from __future__ import annotations

import pytest

from pytest_azchroot.spec.azure_ids import (
    DiskId,
    GalleryImageVersionId,
    ImageId,
    PlatformImage,
    ResourceId,
    SnapshotId,
    Source,
    parse_disk_id,
    parse_gallery_image_version_id,
    parse_image_id,
    parse_platform_image,
    parse_resource_id,
    parse_snapshot_id,
    parse_source,
)

from .cases import SUB


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("Debian:debian-12:12-gen2:latest", PlatformImage("Debian", "debian-12", "12-gen2", "latest")),
        ("a_b.c:-:1:0.20260131.1", PlatformImage("a_b.c", "-", "1", "0.20260131.1")),
        (f"{SUB}/disks/d", DiskId("s", "g", "d")),
        (f"{SUB}/galleries/x/images/i/versions/1.0.0", GalleryImageVersionId("s", "g", "x", "i", "1.0.0")),
    ],
)
def test_sources(text: str, source: Source) -> None:
    assert parse_source(text) == source
    assert str(source) == text


def test_ids_are_read_without_case_and_keep_their_names() -> None:
    text = "/SUBSCRIPTIONS/S/resourcegroups/G/PROVIDERS/microsoft.COMPUTE/Disks/D"
    assert parse_disk_id(text) == DiskId("S", "G", "D")


def test_resource_ids_of_any_kind() -> None:
    text = "/subscriptions/s/resourceGroups/g/providers/A.B/c/d/e/f"
    assert parse_resource_id(text) == ResourceId("s", "g", "A.B", ("c", "e"), ("d", "f"))
    assert (str(parse_resource_id(text)), parse_resource_id(text).kind) == (text, "A.B/c/e")


def test_other_compute_ids() -> None:
    assert parse_snapshot_id(f"{SUB}/snapshots/x") == SnapshotId("s", "g", "x")
    assert parse_image_id(f"{SUB}/images/x") == ImageId("s", "g", "x")
    assert str(SnapshotId("s", "g", "x")) == f"{SUB}/snapshots/x"
    assert str(ImageId("s", "g", "x")) == f"{SUB}/images/x"
    assert parse_gallery_image_version_id(f"{SUB}/galleries/x/images/i/versions/1").version == "1"


@pytest.mark.parametrize("version", ["latest", "LATEST", "Latest"])
def test_the_latest_version_is_said_in_any_case(version: str) -> None:
    assert parse_platform_image(f"a:b:c:{version}").is_latest
    assert not parse_platform_image("a:b:c:1.0").is_latest


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "does not begin"),
        ("disk", "does not begin"),
        ("a:b:c", "not publisher"),
        ("a:b:c:d:e", "not publisher"),
        ("a:b::d", "not publisher"),
        ("a b:c:d:e", "not publisher"),
        ("a:b:c:d\n", "not publisher"),
        (f"{SUB}/disks", "not /subscriptions"),
        (f"{SUB}/disks/", "empty part"),
        (f"{SUB}/disks/a/b", "b has no name behind it"),
        (f"{SUB}/images/a", "the id of a Microsoft.Compute/images"),
        (f"{SUB}/galleries/a/images/b", "galleries/images"),
        ("/subscriptions/s/providers/Microsoft.Compute/disks/d/x/y", "not /subscriptions"),
        ("//a", "empty part"),
    ],
)
def test_what_is_no_source_says_why(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        parse_source(text)


def test_an_id_of_another_kind_says_which() -> None:
    with pytest.raises(
        ValueError, match=r"it is the id of a Microsoft.Compute/disks, not of a Microsoft.Compute/images"
    ):
        parse_image_id(f"{SUB}/disks/a")
