"""Volumes read from what LVM writes: recorded from the real tools, and written by hand where these would not."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_azchroot.disk import lvm, lvm_header, lvm_text
from pytest_azchroot.disk.lvm import LogicalVolume, Piece, Stripe, VolumeGroup
from pytest_azchroot.disk.partition import BytesReader
from pytest_azchroot.errors import DiskError

from .lvm_writer import AREA, AREA_SIZE, MIB, Group, Volume, label

RECORDED = Path(__file__).parent / "recorded"
SIZE = 64 * MIB
ONE = Group("vg", {"root": Volume([(0, 0, 8)])}, [SIZE])


@dataclass(frozen=True)
class Sparse:
    """A partition of which only the beginning is known."""

    data: bytes
    size: int = SIZE

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length].ljust(max(0, min(length, self.size - offset)), b"\0")


def recorded(name: str) -> tuple[VolumeGroup, ...]:
    """The groups of a recorded disk; its partitions are 1, 2, …"""
    files = sorted(RECORDED.glob(f"lvm-{name}-*.xz"))
    assert files
    readers = [Sparse(lzma.decompress(path.read_bytes())) for path in files]
    return lvm.groups({number: lvm_header.read(reader) for number, reader in enumerate(readers, start=1)})


def volumes(name: str) -> dict[str, LogicalVolume]:
    (group,) = recorded(name)
    return {each.name: each for each in group.volumes}


def written(group: Group, *numbers: int, text: str | bytes | None = None, at: int = 512) -> tuple[VolumeGroup, ...]:
    """Read what a group is when these of its physical volumes are there, all of them by default."""
    there = numbers or range(len(group.sizes))
    found = {
        number + 1: lvm_header.read(Sparse(group.volume(number, text=text, at=at), group.sizes[number]))
        for number in there
    }
    return lvm.groups(found)


def problem(group: Group, *numbers: int, text: str | None = None) -> str:
    """Why the first volume cannot be used."""
    (found,) = written(group, *numbers, text=text)
    assert found.volumes[0].problem is not None
    assert found.volumes[0].pieces == ()
    return found.volumes[0].problem


# ---- as the real tools write it


def test_one_linear_volume() -> None:
    (group,) = recorded("linear")
    assert (group.name, group.extent_size, group.partitions) == ("rootvg", 4 * MIB, (1,))
    (volume,) = group.volumes
    assert (volume.path, volume.size, volume.problem) == ("rootvg/rootlv", 16 * MIB, None)
    assert volume.pieces == (Piece(0, 16 * MIB, (Stripe(1, MIB),)),)
    assert len(volume.id) == len(group.id) == 32


def test_several_volumes_of_several_segments() -> None:
    found = volumes("segments")
    assert [each.path for each in found.values()] == ["my-vg/root-lv", "my-vg/var", "my-vg/swap"]
    assert found["root-lv"].pieces == (
        Piece(0, 16 * MIB, (Stripe(1, MIB),)),
        Piece(16 * MIB, 8 * MIB, (Stripe(1, 25 * MIB),)),
    )
    assert found["swap"].pieces == (Piece(0, 8 * MIB, (Stripe(1, 33 * MIB),)),)


def test_two_physical_volumes() -> None:
    found = volumes("striped")
    assert found["striped"].pieces == (Piece(0, 8 * MIB, (Stripe(1, MIB), Stripe(2, MIB)), 64 << 10),)
    assert [piece.stripes for piece in found["both"].pieces] == [(Stripe(1, 5 * MIB),), (Stripe(2, 5 * MIB),)]
    assert found["both"].size == 2 * 59 * MIB


def test_what_is_more_than_linear_is_named() -> None:
    found = volumes("special")
    assert {name: each.problem for name, each in found.items()} == {
        "pool": "is a pool of thin volumes of LVM (type thin-pool), and only linear and striped ones can be mounted",
        "thin": "is a thin volume of LVM (type thin), and only linear and striped ones can be mounted",
        "mirrored": "is RAID of LVM (type raid1), and only linear and striped ones can be mounted",
        "plain": None,
        "origin": "is in use by a snapshot of LVM (snapshot0, type snapshot)",
    }


def test_a_text_that_goes_round_the_ring() -> None:
    data = lzma.decompress((RECORDED / "lvm-wrapped-1.xz").read_bytes())
    offset, size, _, _ = lvm_header._TEXT.unpack_from(data, AREA + lvm_header._RING.size)
    length = lvm_header._RING.unpack_from(data, AREA)[4]
    assert offset < length < offset + size
    assert volumes("wrapped")["root"].size == 4 * MIB


def test_the_second_copy_is_as_good() -> None:
    data = bytearray(lzma.decompress((RECORDED / "lvm-linear-1.xz").read_bytes()))
    data[AREA + 100] ^= 1
    with pytest.raises(DiskError, match="checksum of a metadata area"):
        lvm_header.read(Sparse(bytes(data)))
    assert volumes("copies")["root"].pieces[0].stripes == (Stripe(1, 2 * MIB),)


def test_a_physical_volume_of_no_group() -> None:
    assert recorded("orphan") == ()


# ---- what holds for groups


def test_the_writer_of_these_tests_writes_what_the_reader_reads() -> None:
    (group,) = written(ONE)
    assert group.volumes[0].pieces == (Piece(0, 8 * MIB, (Stripe(1, MIB),)),)


def test_segments_that_go_on_are_one_piece() -> None:
    (group,) = written(Group("vg", {"a": Volume([(0, 0, 2), (0, 2, 3), (0, 9, 1)])}, [SIZE]))
    assert [(each.start, each.size) for each in group.volumes[0].pieces] == [(0, 5 * MIB), (5 * MIB, MIB)]


def test_hidden_volumes_are_not_there() -> None:
    (group,) = written(Group("vg", {"a": Volume([(0, 0, 2)], status=["READ", "WRITE"])}, [SIZE]))
    assert group.volumes == ()


def test_a_part_on_another_disk_is_missed_by_name() -> None:
    two = Group("vg", {"a": Volume([(0, 0, 2)])}, [SIZE, SIZE])
    missing = "is of the volume group vg, which is not all on this disk: pv1 is missing (UUID P1vg00-0000-0000-0000-0000-0000-000000, which was /dev/sda1)"
    assert problem(two, 0) == missing


def test_an_exported_group() -> None:
    group = Group("vg", ONE.volumes, [SIZE], status=["EXPORTED"])
    assert problem(group) == "is of the volume group vg, which is exported (vgimport(8))"


@pytest.mark.parametrize(
    ("volume", "why"),
    [
        (Volume([(0, 0, 2)], type="writecache"), "is cached (writecache) of LVM (type writecache)"),
        (Volume([(0, 0, 2)], type="raid6_zr"), "is RAID of LVM (type raid6_zr)"),
        (Volume([(0, 0, 2)], type="cache+X"), "is cached of LVM (type cache)"),
        (Volume([(0, 0, 2)], type="vdo"), "is a volume of VDO of LVM (type vdo)"),
        (Volume([(0, 0, 2)], type="new"), "is of a type that is not known of LVM (type new)"),
        (Volume([(0, 0, 2)], status=["READ", "VISIBLE"]), "is set to be read only"),
        (Volume([(0, 0, 2)], status=["READ", "WRITE", "VISIBLE", "PVMOVE"]), "is being moved or converted"),
    ],
)
def test_other_volumes_are_refused_by_name(volume: Volume, why: str) -> None:
    assert problem(Group("vg", {"a": volume}, [SIZE])).startswith(why)


def test_of_two_descriptions_the_newer_counts() -> None:
    old = Group("vg", {"old": Volume([(0, 0, 2)])}, [SIZE, SIZE], seqno=9)
    new = Group("vg", {"new": Volume([(0, 0, 2)])}, [SIZE, SIZE], seqno=10)
    for first, second in ((old, new), (new, old)):
        found = {1: lvm_header.read(Sparse(first.volume(0))), 2: lvm_header.read(Sparse(second.volume(1)))}
        (group,) = lvm.groups(found)
        assert [each.name for each in group.volumes] == ["new"]


def test_two_groups_of_one_disk() -> None:
    other = Group("other", {"x": Volume([(0, 1, 2)])}, [SIZE])
    found = lvm.groups({1: lvm_header.read(Sparse(ONE.volume(0))), 5: lvm_header.read(Sparse(other.volume(0)))})
    assert [(each.name, each.partitions) for each in found] == [("vg", (1,)), ("other", (5,))]


def test_a_copy_of_a_physical_volume_on_the_same_disk() -> None:
    found = {number: lvm_header.read(Sparse(ONE.volume(0))) for number in (1, 2)}
    with pytest.raises(DiskError, match="partitions 1 and 2 are the same physical volume"):
        lvm.groups(found)


def test_two_groups_of_one_name() -> None:
    other = Group("ov", {"x": Volume([(0, 1, 2)])}, [SIZE])
    found = {
        1: lvm_header.read(Sparse(ONE.volume(0))),
        2: lvm_header.read(Sparse(other.volume(0, text=other.text().replace("ov {", "vg {")))),
    }
    with pytest.raises(DiskError, match="two volume groups of the name vg"):
        lvm.groups(found)


# ---- what is broken, or made to break us


def test_a_wrong_checksum_of_the_label() -> None:
    data = bytearray(ONE.volume(0))
    data[512 + 40] ^= 1
    with pytest.raises(DiskError, match="checksum of its label") as caught:
        lvm_header.read(Sparse(bytes(data)))
    assert caught.value.hint


def test_a_wrong_checksum_of_the_text() -> None:
    data = bytearray(ONE.volume(0))
    data[AREA + 600] ^= 1
    with pytest.raises(DiskError, match="checksum of its metadata is wrong"):
        lvm_header.read(Sparse(bytes(data)))


@pytest.mark.parametrize("size", [0, 100, 512, 1024, AREA, AREA + 100, AREA + 512, AREA + 700])
def test_cut_off(size: int) -> None:
    with pytest.raises(DiskError):
        lvm_header.read(BytesReader(ONE.volume(0)[:size]))


def test_every_bit_of_what_is_read_is_guarded() -> None:
    data = ONE.volume(0)
    length = len(ONE.text())
    for at in (*range(512 + 20, 1024, 7), *range(AREA, AREA + 512 + length, 5)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(DiskError):
            lvm_header.read(Sparse(bytes(damaged)))


def test_a_text_from_the_end_of_the_ring_to_its_beginning() -> None:
    (group,) = written(ONE, at=AREA_SIZE - 300)
    assert group.volumes[0].size == 8 * MIB


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("extent_size = 2048", "extent_size = 0"),
        ("extent_size = 2048", "extent_size = 99999999999999999999"),
        ("extent_size = 2048", "extent_size = 9999999999999999999999999999"),
        ("extent_size = 2048", "extent_size = -1"),
        ("extent_size = 2048", 'extent_size = "2048"'),
        ("extent_size = 2048", ""),
        ("segment_count = 1", "segment_count = 1000000000"),
        ("segment_count = 1", "segment_count = 2"),
        ("extent_count = 8", "extent_count = 64"),
        ("extent_count = 8", "extent_count = 4611686018427387904"),
        ("start_extent = 0", "start_extent = 1"),
        ('"pv0", 0', '"pv0", 60'),
        ('"pv0", 0', '"pv0", -1'),
        ('"pv0", 0', '"pv7", 0'),
        ('"pv0", 0', '"pv0"'),
        ('"pv0", 0', '"pv0", "pv0"'),
        ("stripe_count = 1", "stripe_count = 3"),
        ("pe_start = 2048", "pe_start = 9223372036854775807"),
        ("root {", "../../etc {"),
        ("root {", "-x {"),
        ("vg {", ".. {"),
        ("vg {", "v/g {"),
        ("vg {", '"v g" {'),
        ('id = "Gvg', 'id = "/../'),
        ("physical_volumes {", "physical_volumes = 7 x {"),
        ("seqno = 1", "seqno = 1\nseqno = 1"),
        ("seqno = 1", "seqno = [1"),
        ("flags = []", 'flags = "'),
        ("logical_volumes {", "logical_volumes {" + "a {" * 10000),
        ("logical_volumes {", "logical_volumes }"),
        ("logical_volumes {", "logical_volumes {\x01"),
    ],
)  # fmt: skip
def test_nonsense_under_a_right_checksum(old: str, new: str) -> None:
    text = ONE.text()
    assert old in text
    with pytest.raises(DiskError):
        written(ONE, text=text.replace(old, new, 1))


def test_stripes_of_impossible_sizes() -> None:
    with pytest.raises(DiskError, match="impossible size"):
        written(Group("vg", {"a": Volume([(0, 0, 2), (0, 4, 2)], stripe=3 * 512)}, [SIZE]))


def test_what_is_no_utf_8_is_no_name() -> None:
    text = ONE.text().encode()
    (group,) = written(ONE, text=text.replace(b"after", b"n\xe4chst"))
    assert group.volumes[0].name == "root"
    with pytest.raises(DiskError):
        written(ONE, text=text.replace(b"root {", b"r\xf6ot {"))


@pytest.mark.parametrize(
    "text",
    ["{" * 100000, "a{" * 100000, "a = [" * 100000, '"' + "\\" * 100000, "#" * 1000000, " \n" * 500000, "a = " + "9" * 100000, "a = [" + "1," * 100000],
    ids=lambda text: text[:4],
)  # fmt: skip
def test_texts_that_are_made_to_be_slow(text: str) -> None:
    if text[0] in "# ":
        assert lvm_text.parse(text.encode()) == {}
        return
    with pytest.raises(DiskError):
        lvm_text.parse(text.encode())


def test_a_text_that_is_too_long() -> None:
    with pytest.raises(DiskError, match="longer than 16 MiB"):
        lvm_text.parse(b" " * (lvm_text.LONGEST + 1))


def test_a_metadata_area_that_was_never_written() -> None:
    with pytest.raises(DiskError, match="the checksum of a metadata area is wrong"):
        lvm_header.read(Sparse(label("x" * 32, SIZE).ljust(MIB, b"\0")))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Volume([(0, 0, 8)]), Volume([(0, 7, 2)])),
        (Volume([(0, 0, 20)]), Volume([(0, 4, 2)])),
        (Volume([(0, 0, 8)]), Volume([(0, 12, 4), (0, 0, 8)])),
        (Volume([(0, 0, 8), (1, 0, 8)], stripe=64 << 10), Volume([(1, 7, 1)])),
    ],
)
def test_volumes_over_one_another(one: Volume, two: Volume) -> None:
    """LVM makes none; whoever mounts both changes one file system under the other."""
    apart = Volume([(0, 30, 4)])
    (group,) = written(Group("vg", {"one": one, "apart": apart, "two": two}, [SIZE, SIZE]))
    assert {each.name: each.problem for each in group.volumes} == {
        "one": "has extents that vg/two has too",
        "apart": None,
        "two": "has extents that vg/one has too",
    }


def test_a_volume_over_itself() -> None:
    assert problem(Group("vg", {"one": Volume([(0, 0, 8), (0, 4, 8)])}, [SIZE])) == "has extents that vg/one has too"
