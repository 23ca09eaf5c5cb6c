"""The VHD footer: against the specification's numbers and against qemu's own footers."""

from __future__ import annotations

import os
import struct
import subprocess
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from uuid import UUID

import pytest

from pytest_azchroot.disk import vhd
from pytest_azchroot.errors import DiskError

NOW = datetime(2024, 2, 29, 12, 0, 1, tzinfo=timezone.utc)
ID = UUID("00112233-4455-6677-8899-aabbccddeeff")


def footer(size: int = 64 * vhd.MIB) -> vhd.Footer:
    return vhd.fixed_footer(size, unique_id=ID, timestamp=NOW)


def qemu_vhd(path: Path, size: int, options: str) -> bytes:
    subprocess.run(["qemu-img", "create", "-q", "-f", "vpc", "-o", options, path, str(size)], check=True)
    with path.open("rb") as file:
        file.seek(-512, os.SEEK_END)
        return file.read()


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    """The footer with some bytes replaced and a checksum that is right again."""
    changed = bytearray(data)
    changed[offset : offset + len(value)] = value
    changed[64:68] = vhd.checksum(bytes(changed)).to_bytes(4, "big")
    return bytes(changed)


def test_a_footer_is_a_sector() -> None:
    assert len(vhd.pack(footer())) == 512


def test_what_was_packed_is_parsed() -> None:
    assert vhd.parse(vhd.pack(footer())) == footer()


def test_bytes_stand_where_the_specification_says() -> None:
    data = vhd.pack(footer())
    assert data[:8] == b"conectix"
    assert data[8:16] == bytes.fromhex("00000002 00010000")
    assert data[16:24] == b"\xff" * 8
    assert data[24:28] == struct.pack(">I", int(NOW.timestamp()) - 946684800)
    assert data[28:32] == b"win "
    assert data[40:48] == data[48:56] == struct.pack(">Q", 64 * vhd.MIB)
    assert data[60:64] == struct.pack(">I", 2)
    assert data[68:84] == ID.bytes
    assert not any(data[84:])


# Beyond 127 GiB qemu's geometry with force_size, always the greatest, is the specification's too.
def test_the_footer_is_qemus_but_for_time_creator_and_id(tmp_path: Path) -> None:
    size = 200 * vhd.GIB
    theirs = qemu_vhd(tmp_path / "q.vhd", size, "subformat=fixed,force_size=on")
    ours = vhd.pack(footer(size))
    # Between them: timestamp, creator with its version and system; checksum, id.
    for part in (slice(0, 24), slice(40, 64), slice(84, 512)):
        assert ours[part] == theirs[part]


@pytest.mark.parametrize("mib", [1, 20, 64, 503, 504, 505, 1024, 4097, 31 * 1024, 40 * 1024, 70 * 1024, 126 * 1024])
def test_the_geometry_is_qemus(tmp_path: Path, mib: int) -> None:
    # Without force_size qemu rounds the size up to its geometry, so that both must agree at that size.
    theirs = vhd.parse(qemu_vhd(tmp_path / "q.vhd", mib * vhd.MIB, "subformat=fixed"))
    assert vhd.geometry(theirs.size) == theirs.geometry
    assert theirs.geometry.size == theirs.size


def test_a_footer_that_qemu_converted_parses_and_pleases_azure(tmp_path: Path) -> None:
    raw, made = tmp_path / "disk.raw", tmp_path / "disk.vhd"
    with raw.open("wb") as file:
        file.truncate(64 * vhd.MIB)
    command = [
        "qemu-img",
        "convert",
        "-O",
        "vpc",
        "-o",
        "subformat=fixed,force_size=on",
        "-f",
        "raw",
        str(raw),
        str(made),
    ]
    subprocess.run(command, check=True)
    parsed = vhd.parse(made.read_bytes()[-512:])
    assert (parsed.size, parsed.creator) == (64 * vhd.MIB, b"qem2")
    assert vhd.check_azure(parsed, made.stat().st_size) == []


def test_an_appended_footer_makes_a_fixed_vhd_for_qemu(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    size = 4097 * vhd.MIB
    with path.open("w+b") as file:
        file.truncate(size)
        vhd.append_footer(file.fileno(), size=size)
    command = ["qemu-img", "info", "-f", "vpc", "--output=json", str(path)]
    assert f'"virtual-size": {size},' in subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_removed_footer_leaves_the_raw_disk(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * vhd.MIB)
    with path.open("r+b") as file:
        vhd.append_footer(file.fileno(), size=vhd.MIB)
        vhd.remove_footer(file.fileno(), size=vhd.MIB)
    assert path.read_bytes() == b"x" * vhd.MIB


def test_a_damaged_footer_is_refused() -> None:
    data = bytearray(vhd.pack(footer()))
    data[50] ^= 1
    with pytest.raises(DiskError, match="checksum"):
        vhd.parse(bytes(data))


def test_no_footer_is_refused() -> None:
    with pytest.raises(DiskError, match="no VHD footer"):
        vhd.parse(bytes(512))


def test_another_version_is_refused() -> None:
    with pytest.raises(DiskError, match=r"version 2\.0"):
        vhd.parse(patched(vhd.pack(footer()), 12, b"\0\2\0\0"))


@pytest.mark.parametrize("size", [0, 511, 513, -512])
def test_a_size_that_is_no_sectors_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="sectors"):
        footer(size)


def test_azure_takes_a_good_one() -> None:
    assert vhd.check_azure(footer(), 64 * vhd.MIB + 512) == []


@pytest.mark.parametrize(
    ("changed", "length", "words"),
    [
        (replace(footer(), disk_type=3), 64 * vhd.MIB + 512, "not a fixed VHD"),
        (footer(), 64 * vhd.MIB, "of footer"),
        (replace(footer(), creator=b"vpc "), 64 * vhd.MIB + 512, "geometry"),
        (footer(64 * vhd.MIB + 512), 64 * vhd.MIB + 1024, "over a whole MiB"),
        (footer(19 * vhd.MIB), 19 * vhd.MIB + 512, "smallest"),
        (footer(1024 * vhd.GIB), 1024 * vhd.GIB + 512, "largest"),
    ],
)
def test_azure_refuses(changed: vhd.Footer, length: int, words: str) -> None:
    (problem,) = vhd.check_azure(changed, length)
    assert words in problem


def test_azures_limits_are_themselves_fine() -> None:
    assert vhd.check_azure_size(vhd.AZURE_MINIMUM) == []
    assert vhd.check_azure_size(vhd.AZURE_OS_MAXIMUM) == []


def test_a_geometry_creator_is_ambiguous_only_where_sizes_differ() -> None:
    agreeing = vhd.geometry(64 * vhd.MIB).size
    assert replace(footer(), creator=b"vpc ").ambiguous
    assert not replace(footer(agreeing), creator=b"vpc ").ambiguous
    assert not footer().ambiguous
    assert not replace(footer(200 * vhd.GIB), creator=b"qemu").ambiguous
