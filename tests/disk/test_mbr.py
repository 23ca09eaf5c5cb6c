"""Master boot records: primary and logical partitions, chains that lie, boot sectors that are none."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from pytest_azchroot.disk import mbr, table
from pytest_azchroot.disk.partition import BytesReader

from .tables import LOGICAL, MIB, as_sfdisk, by_sfdisk, make, read

ROWS = 446


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("mbr") / "disk.raw", LOGICAL)


@pytest.fixture
def data(path: Path) -> bytearray:
    return bytearray(path.read_bytes())


def put(data: bytearray, record: int, row: int, *, kind: int, start: int, size: int) -> None:
    """Write a row of the boot record at a sector."""
    struct.pack_into("<B3xB3xII", data, record * 512 + ROWS + 16 * row, 0, kind, start, size)


def extended_start(data: bytearray) -> int:
    start: int = struct.unpack_from("<I", data, ROWS + 16 + 8)[0]
    return start


def test_a_table_is_what_sfdisk_says(path: Path) -> None:
    found = read(path)
    assert [as_sfdisk(each, kind="dos") for each in found.partitions] == by_sfdisk(path)
    assert (found.kind, found.id, found.problems) == ("dos", "0x1234abcd", ())


def test_uuids_are_made_of_the_disks_id_and_the_number(path: Path) -> None:
    assert [each.uuid for each in read(path).partitions] == [
        "1234abcd-01",
        "1234abcd-02",
        "1234abcd-05",
        "1234abcd-06",
    ]


@pytest.mark.root
def test_the_kernel_sees_the_same(path: Path) -> None:
    rows = subprocess.run(
        ["partx", "--noheadings", "--raw", "--output", "NR,START,SECTORS,UUID", path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    ours = [f"{each.number} {each.start // 512} {each.size // 512} {each.uuid}" for each in read(path).partitions]
    assert ours == rows


def test_known_types_have_the_names_of_sfdisk() -> None:
    done = subprocess.run(
        ["sfdisk", "--list-types", "--label", "dos"], check=True, capture_output=True, text=True
    ).stdout
    rows = (line.split(maxsplit=1) for line in done.splitlines()[2:] if line.strip())
    theirs = {int(row[0], 16): row[1] for row in rows if len(row) == 2}
    assert {kind: theirs.get(kind) for kind in mbr.TYPES} == mbr.TYPES


def test_an_extended_partition_without_logical_ones(tmp_path: Path) -> None:
    found = read(make(tmp_path / "disk", "label: dos\nsize=2M\nsize=10M, type=5\n"))
    assert [each.number for each in found.partitions] == [1, 2]
    assert found.problems == ()


def test_a_chain_that_runs_in_a_circle(data: bytearray) -> None:
    put(data, extended_start(data), 1, kind=5, start=0, size=100)
    found = read(bytes(data))
    assert [each.number for each in found.partitions] == [1, 2, 5]
    assert found.problems[0].startswith("the chain of logical partitions runs in a circle")


@pytest.mark.parametrize("link", [0x7FFFFFFF, 10 * 2048 + 1])
def test_a_chain_that_leaves(data: bytearray, link: int) -> None:
    put(data, extended_start(data), 1, kind=5, start=link, size=100)
    found = read(bytes(data))
    assert [each.number for each in found.partitions] == [1, 2, 5]
    assert found.problems[0].startswith("the chain of logical partitions leaves its extended partition")


def test_a_chain_that_breaks(data: bytearray) -> None:
    put(data, extended_start(data), 1, kind=5, start=9000, size=100)
    found = read(bytes(data))
    assert found.problems[0].startswith("the chain of logical partitions breaks at sector")


def test_a_chain_without_an_end(data: bytearray) -> None:
    start = extended_start(data)
    for number in range(300):
        record = start + number
        data[record * 512 : record * 512 + 512] = bytes(510) + b"\x55\xaa"
        put(data, record, 0, kind=0x83, start=1000, size=1)
        put(data, record, 1, kind=5, start=number + 1, size=1)
    found = read(bytes(data))
    assert len(found.partitions) == 2 + 256
    assert found.problems[0].startswith("the chain of logical partitions has more than 256 links")


def test_a_logical_partition_that_leaves_its_extended_one(data: bytearray) -> None:
    put(data, extended_start(data), 0, kind=0x83, start=2048, size=11 * 2048)
    assert "logical partition 5 leaves its extended partition 2" in read(bytes(data)).problems


def test_partitions_that_overlap_or_leave_the_disk(data: bytearray) -> None:
    put(data, 0, 2, kind=0x83, start=2049, size=100 * MIB)
    assert read(bytes(data)).problems[:2] == (
        "partition 3 reaches beyond the end of the disk",
        "partitions 1 and 3 overlap",
    )


def test_two_extended_partitions(data: bytearray) -> None:
    put(data, 0, 2, kind=0x0F, start=26000, size=1000)
    assert "there are several extended partitions; the first is used" in read(bytes(data)).problems


@pytest.mark.parametrize("kind", [["mkfs.vfat"], ["mkfs.vfat", "-F", "32"]])
def test_the_boot_sector_of_a_file_system_is_no_table(tmp_path: Path, kind: list[str]) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(40 * MIB))
    subprocess.run([*kind, path], check=True, capture_output=True)
    assert table.read(BytesReader(path.read_bytes())) is None


def test_code_where_rows_would_be_is_no_table(data: bytearray) -> None:
    data[ROWS] = 0x33
    assert table.read(BytesReader(bytes(data))) is None


def test_a_file_system_on_the_whole_disk_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(8 * MIB))
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    assert table.read(BytesReader(path.read_bytes())) is None


def test_random_damage_never_raises(data: bytearray) -> None:
    start = extended_start(data) * 512
    for place in [*range(440, 512), *range(start + 440, start + 512)]:
        copy = bytearray(data)
        copy[place] ^= 0xFF
        found = table.read(BytesReader(bytes(copy)))
        assert found is None or len(found.partitions) <= 300
