"""GUID partition tables: what sfdisk wrote is read, and damage is seen."""

from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from pytest_azchroot.disk import gpt, table
from pytest_azchroot.disk.partition import BytesReader, FileReader

from .tables import MIB, UBUNTU, as_sfdisk, by_sfdisk, damaged, make, make_4096, read

HEADER, ENTRIES = 512, 1024
BACKUP = -512
"""Places in a disk with sectors of 512 bytes."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("gpt") / "disk.raw", UBUNTU)


@pytest.fixture(scope="module")
def data(path: Path) -> bytes:
    return path.read_bytes()


def test_a_table_is_what_sfdisk_says(path: Path) -> None:
    found = read(path)
    assert [as_sfdisk(each, kind="gpt") for each in found.partitions] == by_sfdisk(path)
    assert (found.kind, found.sector_size, found.problems) == ("gpt", 512, ())


def test_types_names_and_attributes_have_words(path: Path) -> None:
    root, bios, esp = read(path).partitions
    assert (root.type_name, bios.type_name, esp.type_name) == ("Linux filesystem", "BIOS boot", "EFI System")
    assert (root.attributes, root.bootable, esp.name) == (("legacy-boot", "no-auto"), True, "EFI System Partition")


def test_known_types_have_the_names_of_sfdisk() -> None:
    done = subprocess.run(
        ["sfdisk", "--list-types", "--label", "gpt"], check=True, capture_output=True, text=True
    ).stdout
    rows = (line.split(maxsplit=1) for line in done.splitlines() if line.strip())
    theirs = {row[0].lower(): row[1] for row in rows if len(row) == 2}
    assert {guid: theirs.get(guid) for guid in gpt.TYPES} == gpt.TYPES


def test_larger_sectors_are_found_by_trying(tmp_path: Path) -> None:
    found = read(make_4096(tmp_path / "disk", "g\nn\n3\n\n+4M\nn\n1\n\n\nw\n"))
    assert (found.sector_size, found.problems) == (4096, ())
    assert [(each.number, each.start, each.size) for each in found.partitions][1] == (3, 1 * MIB, 4 * MIB)


def test_the_copy_at_the_end_stands_in_for_larger_sectors_too(tmp_path: Path) -> None:
    whole = make_4096(tmp_path / "disk", "g\nn\n1\n\n\nw\n").read_bytes()
    found = read(damaged(whole, 4096 + 20))
    assert (found.sector_size, found.partitions) == (4096, read(whole).partitions)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (HEADER + 40, "checksum of its header"),
        (HEADER + 2, "it is not there"),
        (ENTRIES + 5, "checksum of its entries"),
        (HEADER + 13, "claims"),
    ],
)
def test_a_damaged_first_copy_is_replaced_by_the_other(data: bytes, place: int, why: str) -> None:
    found = read(damaged(data, place))
    assert found.partitions == read(data).partitions
    (problem,) = found.problems
    assert why in problem
    assert "the one at the end is used" in problem


@pytest.mark.parametrize("place", [BACKUP + 40, BACKUP + 2, BACKUP - 128 * 128 + 5])
def test_a_damaged_second_copy_is_reported(data: bytes, place: int) -> None:
    found = read(damaged(data, place))
    assert found.partitions == read(data).partitions
    assert found.problems[0].startswith("the second copy of the GPT is damaged")


def test_two_damaged_copies_are_a_table_without_partitions(data: bytes) -> None:
    found = read(damaged(data, HEADER + 40, BACKUP + 40))
    assert found.partitions == ()
    assert found.problems == ("both copies of the GPT are damaged (the checksum of its header does not match)",)


def test_no_copy_at_all_is_a_broken_promise_of_the_mbr(data: bytes) -> None:
    found = read(damaged(data, HEADER, BACKUP))
    assert found.problems == ("the MBR says that there is a GPT, but there is none",)


def test_a_disk_that_has_grown(data: bytes) -> None:
    found = read(data + bytes(MIB))
    assert found.partitions == read(data).partitions
    assert found.problems == (
        "the second copy of the GPT is not at the end of the disk: the disk has another size now",
    )


def test_a_disk_that_was_cut_short(data: bytes) -> None:
    found = read(data[: 10 * MIB])
    assert "damaged (it is for a disk that ends behind sector" in found.problems[0]


def test_copies_that_differ(data: bytes, tmp_path: Path) -> None:
    other = make(tmp_path / "other", UBUNTU).read_bytes()
    found = read(data[:MIB] + other[MIB:])
    assert found.problems == ("the two copies of the GPT differ; the first is used",)


def test_linux_ignores_a_gpt_that_no_mbr_protects(data: bytes) -> None:
    found = read(bytes(512) + data[512:])
    assert (found.kind, found.partitions) == ("gpt", ())
    assert found.problems == ("there is a GPT, which Linux ignores: no MBR says that it is there",)


def test_a_hybrid_is_a_gpt(data: bytes) -> None:
    row = struct.pack("<B3xB3xII", 0, 0x83, 4096, 2048)
    found = read(data[:462] + row + data[478:])
    assert found.partitions == read(data).partitions
    assert found.problems == ("the MBR is a hybrid: it names partitions itself, which Linux ignores",)


def test_an_mbr_beside_a_forgotten_gpt(data: bytes) -> None:
    row = struct.pack("<B3xB3xII", 0, 0x83, 4096, 2048)
    found = read(data[:446] + row + data[462:])
    assert (found.kind, [each.start for each in found.partitions]) == ("dos", [4096 * 512])
    assert found.problems == ("there is a GPT, which Linux ignores: no MBR says that it is there",)


def with_entry(data: bytes, number: int, **sectors: int) -> bytes:
    """A disk whose partition begins or ends elsewhere, with right checksums; its second copy stays as it was."""
    copy = bytearray(data)
    for place, name in ((32, "first"), (40, "last")):
        if name in sectors:
            struct.pack_into("<Q", copy, ENTRIES + 128 * (number - 1) + place, sectors[name])
    struct.pack_into("<I", copy, HEADER + 88, zlib.crc32(copy[ENTRIES : ENTRIES + 128 * 128]))
    copy[HEADER + 16 : HEADER + 20] = bytes(4)
    struct.pack_into("<I", copy, HEADER + 16, zlib.crc32(copy[HEADER : HEADER + 92]))
    return bytes(copy)


def test_partitions_that_overlap(data: bytes) -> None:
    assert "partitions 14 and 15 overlap" in read(with_entry(data, 14, last=9000)).problems


def test_a_partition_beyond_the_end(data: bytes) -> None:
    assert "partition 1 reaches beyond the end of the disk" in read(with_entry(data, 1, last=1 << 40)).problems


def test_an_entry_that_ends_before_it_begins_is_none(data: bytes) -> None:
    assert [each.number for each in read(with_entry(data, 14, last=1)).partitions] == [1, 15]


def test_a_header_that_asks_for_too_much(data: bytes) -> None:
    copy = bytearray(data)
    struct.pack_into("<I", copy, HEADER + 80, 0xFFFFFFFF)
    copy[HEADER + 16 : HEADER + 20] = bytes(4)
    struct.pack_into("<I", copy, HEADER + 16, zlib.crc32(copy[HEADER : HEADER + 92]))
    assert "claims 4294967295 entries" in read(bytes(copy)).problems[0]


@pytest.mark.parametrize("length", [0, 100, 512, 1024, 5000])
def test_short_disks_have_no_table(data: bytes, length: int) -> None:
    found = table.read(BytesReader(data[:length]))
    assert found is None or found.partitions == ()


def test_random_damage_never_raises(data: bytes) -> None:
    for place in range(0, 2048, 7):
        read_or_none = table.read(BytesReader(damaged(data, place)))
        assert read_or_none is None or read_or_none.kind in {"gpt", "dos"}


def test_an_open_file_is_read_up_to_the_disks_end(path: Path) -> None:
    with path.open("rb") as file:
        reader = FileReader(file.fileno(), size=20 * MIB)
        assert table.read(reader) == read(path)
        assert reader.read(20 * MIB - 10, 100) == reader.read(20 * MIB - 10, 10)
        assert reader.read(21 * MIB, 10) == b""


def test_an_empty_table(tmp_path: Path) -> None:
    found = read(make(tmp_path / "disk", "label: gpt\n"))
    assert (found.kind, found.partitions, found.problems) == ("gpt", (), ())


def test_a_header_of_another_place(data: bytes) -> None:
    found = read(data[:HEADER] + data[BACKUP:] + data[ENTRIES:])
    assert "its header is of sector" in found.problems[0]
