"""Disk images are known by their content, and those that lead elsewhere are refused."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

import pytest

from pytest_azchroot.disk import qemu, vhd
from pytest_azchroot.disk.image import DiskImage, identify, opened, qemu_node
from pytest_azchroot.errors import DiskError, UnavailableError

from .conftest import MIB, sparse_disk


def converted(disk: Path, name: str, driver: str, options: str | None = None) -> Path:
    path = disk.with_name(name)
    extra = ["-o", options] if options else []
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", driver, *extra, disk, path], check=True)
    return path


def as_raw(image: DiskImage) -> bytes:
    """What :func:`qemu.convert` makes of an image."""
    target = image.path.with_name("converted.raw")
    with opened(image.path) as source, target.open("w+b") as file:
        qemu.convert(
            qemu_node(image, source),
            source=source,
            target=file.fileno(),
            target_format="raw",
            directory=target.parent,
            doing="converting",
        )
    return target.read_bytes()


def test_raw(disk: Path) -> None:
    image = identify(disk)
    assert (image.format, image.size, image.plain) == ("raw", 24 * MIB, True)
    assert image.allocated < 5 * MIB


def test_fixed_vhd_by_us(disk: Path) -> None:
    with disk.open("r+b") as file:
        vhd.append_footer(file.fileno(), size=24 * MIB)
    image = identify(disk)
    assert (image.format, image.size, image.plain) == ("fixed VHD", 24 * MIB, True)


def test_fixed_vhd_by_qemu(disk: Path) -> None:
    image = identify(converted(disk, "any.name", "vpc", "subformat=fixed,force_size=on"))
    assert (image.format, image.size) == ("fixed VHD", 24 * MIB)


@pytest.mark.parametrize(
    ("driver", "options", "kind"),
    [
        ("vpc", "subformat=dynamic,force_size=on", "dynamic VHD"),
        ("vhdx", None, "VHDX"),
        ("vhdx", "subformat=fixed", "VHDX"),
        ("qcow2", None, "qcow2"),
        ("qcow2", "compat=0.10", "qcow2"),
    ],
)
def test_what_qemu_reads(disk: Path, driver: str, options: str | None, kind: str) -> None:
    image = identify(converted(disk, "any.name", driver, options))
    assert (image.format, image.size, image.plain) == (kind, 24 * MIB, False)
    assert as_raw(image) == disk.read_bytes()


def test_a_dynamic_vhd_of_an_unknown_creator_has_the_size_of_its_footer(disk: Path) -> None:
    # qemu would take the geometry for it, and cut the disk.
    path = converted(disk, "box.vhd", "vpc", "subformat=dynamic,force_size=on")
    with path.open("r+b") as file:
        for position in (0, -512):
            file.seek(position, os.SEEK_SET if position == 0 else os.SEEK_END)
            footer = vhd.parse(file.read(512))
            file.seek(-512, os.SEEK_CUR)
            file.write(vhd.pack(replace(footer, creator=b"vbox", geometry=vhd.geometry(footer.size))))
    image = identify(path)
    assert image.size == 24 * MIB
    assert as_raw(image) == disk.read_bytes()


def test_a_path_that_looks_like_options_is_only_a_path(disk: Path) -> None:
    image = identify(converted(disk, "a,driver=raw,x=y.qcow2", "qcow2"))
    assert as_raw(image) == disk.read_bytes()


def test_an_ambiguous_vhd_is_refused(disk: Path) -> None:
    footer = vhd.fixed_footer(24 * MIB, unique_id=uuid4(), timestamp=datetime.now(timezone.utc))
    with disk.open("ab") as file:
        file.write(vhd.pack(replace(footer, creator=b"vpc ")))
    with pytest.raises(DiskError, match="unclear size"):
        identify(disk)


def test_qemus_own_geometry_vhd_is_fine(disk: Path) -> None:
    # Creator "qemu", but its size is its geometry's.
    image = identify(converted(disk, "q.vhd", "vpc", "subformat=fixed"))
    assert image.format == "fixed VHD"
    assert image.size > 24 * MIB


def test_a_backing_file_is_refused(tmp_path: Path) -> None:
    secret, path = tmp_path / "secret", tmp_path / "a.qcow2"
    secret.write_bytes(b"s" * MIB)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, path], check=True)
    with pytest.raises(DiskError, match="backing file"):
        identify(path)


def test_an_external_data_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    options = f"data_file={tmp_path / 'data'}"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "1M"], check=True)
    with pytest.raises(DiskError, match="external data file"):
        identify(path)


def test_an_encrypted_image_is_refused(disk: Path) -> None:
    path = converted(disk, "a.qcow2", "qcow2")
    with path.open("r+b") as file:
        file.seek(32)
        file.write(b"\0\0\0\2")  # crypt_method: LUKS
    with pytest.raises(DiskError, match="encrypted"):
        identify(path)


def test_a_dynamic_vhd_is_known_by_its_beginning(disk: Path) -> None:
    # Its footer may be lost, or be that of a fixed VHD in the disk's last block: the copy in front counts.
    path = converted(disk, "a.vhd", "vpc", "subformat=dynamic,force_size=on")
    with path.open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(vhd.pack(vhd.fixed_footer(MIB, unique_id=uuid4(), timestamp=datetime.now(timezone.utc))))
    assert identify(path).format == "dynamic VHD"


def test_a_differencing_vhd_is_refused(tmp_path: Path) -> None:
    footer = vhd.fixed_footer(MIB, unique_id=uuid4(), timestamp=datetime.now(timezone.utc))
    path = tmp_path / "child.vhd"
    path.write_bytes(vhd.pack(replace(footer, disk_type=vhd.DIFFERENCING)) + bytes(MIB))
    with pytest.raises(DiskError, match="differencing"):
        identify(path)


def test_a_vhd_that_lost_bytes_is_refused(tmp_path: Path) -> None:
    footer = vhd.fixed_footer(2 * MIB, unique_id=uuid4(), timestamp=datetime.now(timezone.utc))
    (tmp_path / "a.vhd").write_bytes(bytes(MIB) + vhd.pack(footer))
    with pytest.raises(DiskError, match="damaged"):
        identify(tmp_path / "a.vhd")


def test_a_damaged_footer_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.vhd").write_bytes(bytes(MIB) + b"conectix" + bytes(504))
    with pytest.raises(DiskError, match=r"a\.vhd: the VHD footer is damaged"):
        identify(tmp_path / "a.vhd")


@pytest.mark.parametrize("suffix", ["vhd", "vhdx", "qcow2"])
def test_a_name_that_promises_more_than_raw_is_refused(tmp_path: Path, suffix: str) -> None:
    path = sparse_disk(tmp_path / f"cut.{suffix}")
    with pytest.raises(DiskError, match="cut short"):
        identify(path)


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"KDMV"])
def test_other_formats_are_named_not_taken_for_raw(tmp_path: Path, magic: bytes) -> None:
    (tmp_path / "disk.raw").write_bytes(magic.ljust(MIB, b"\0"))
    with pytest.raises(DiskError, match="not supported as a source"):
        identify(tmp_path / "disk.raw")


def test_a_damaged_qcow2_gives_qemus_words(disk: Path) -> None:
    path = converted(disk, "a.qcow2", "qcow2")
    with path.open("r+b") as file:
        file.seek(20)
        file.write(b"\0\0\0\xff")  # cluster_bits
    with pytest.raises(DiskError, match=r"[Cc]luster size"):
        identify(path)


@pytest.mark.root
def test_a_block_device_is_to_be_copied(disk: Path) -> None:
    line = ["losetup", "--find", "--show", "--read-only", str(disk)]
    device = subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()
    try:
        with pytest.raises(DiskError, match="is not a file") as caught:
            identify(Path(device))
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert caught.value.hint == f"copy it into a file first: qemu-img convert -f raw -O raw {device} disk.raw"


def test_an_empty_file_is_told_to_builds_and_to_those_who_look(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.touch()
    with pytest.raises(DiskError, match="is empty") as caught:
        identify(path)
    assert caught.value.hint == "was it cut short? A build makes a new disk by `from_scratch: true`"


@pytest.mark.parametrize(("content", "words"), [(b"", "is empty"), (b"x" * 1000, "no disk image")])
def test_what_is_no_disk_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DiskError, match=words):
        identify(tmp_path / "x")


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DiskError, match="not a file"):
        identify(tmp_path / "pipe")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"missing\.raw cannot be opened: No such file"):
        identify(tmp_path / "missing.raw")


def test_without_qemu_the_package_is_named(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = converted(disk, "a.qcow2", "qcow2")
    monkeypatch.setenv("PATH", str(disk.parent))
    with pytest.raises(UnavailableError, match="apt-get install qemu-utils"):
        identify(path)
