"""The payload digest: what it depends on, and what it does not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_azchroot.cli import main
from pytest_azchroot.disk import vhd
from pytest_azchroot.disk.digest import BLOCK, PATTERN, digest, digest_of
from pytest_azchroot.errors import DiskError

from .conftest import MIB, sparse_disk


def by_the_book(payload: bytes) -> str:
    """The digest of :mod:`pytest_azchroot.disk.digest`, written again from its description alone."""
    hasher = hashlib.sha256(b"azchroot payload 1\n")
    for start in range(0, len(payload), 65536):
        block = payload[start : start + 65536].ljust(65536, b"\0")
        if any(block):
            hasher.update((start // 65536).to_bytes(8, "big") + block)
    hasher.update(len(payload).to_bytes(8, "big"))
    return "azd1:" + hasher.hexdigest()


def of(path: Path, size: int | None = None) -> str:
    with path.open("rb") as file:
        return digest(file.fileno(), size=path.stat().st_size if size is None else size)


def test_it_is_what_its_description_says(disk: Path) -> None:
    assert of(disk) == digest_of(disk) == by_the_book(disk.read_bytes())
    assert PATTERN.fullmatch(of(disk))


def test_it_stays_as_it_is(tmp_path: Path) -> None:
    """Digests are kept for years: a change of this value is a new version of the format."""
    path = tmp_path / "known.raw"
    path.write_bytes(b"\0" * 70000 + b"azchroot" + b"\0" * 1672)
    assert digest_of(path) == "azd1:ae911209319025a022334e5ece9eff61021d833fafa753bc84a78e0451f562e9"


@pytest.mark.parametrize("size", [1, 511, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 512])
@pytest.mark.parametrize("fill", [b"\0", b"x"])
def test_sizes_around_a_block(tmp_path: Path, size: int, fill: bytes) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(fill * size)
    assert of(path) == by_the_book(fill * size)


@pytest.mark.parametrize("position", [0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 5 * BLOCK + 4096, 16 * BLOCK - 1])
def test_one_byte_anywhere(tmp_path: Path, position: int) -> None:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        os.pwrite(file.fileno(), b"x", position)
        file.truncate(16 * BLOCK)
    assert of(path) == by_the_book(path.read_bytes()) != by_the_book(bytes(16 * BLOCK))


def test_holes_are_zeros(disk: Path, tmp_path: Path) -> None:
    full = tmp_path / "full.raw"
    full.write_bytes(disk.read_bytes())
    assert disk.stat().st_blocks < full.stat().st_blocks
    assert of(full) == of(disk)


def test_extents_smaller_than_a_block(tmp_path: Path) -> None:
    """Several extents share a block, and one spans the end of it."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        for position in (4096, 3 * 4096, 15 * 4096, 16 * 4096, 40 * 4096):
            os.pwrite(file.fileno(), b"data" * 1024, position)
        file.truncate(4 * BLOCK)
    assert of(path) == by_the_book(path.read_bytes())


def test_the_same_blocks_elsewhere_are_another_disk(tmp_path: Path) -> None:
    paths = [tmp_path / "a.raw", tmp_path / "b.raw"]
    for number, path in enumerate(paths):
        path.write_bytes(b"".join(bytes([fill]) * BLOCK for fill in ((1, 0, 0), (0, 1, 0))[number]))
    assert of(paths[0]) != of(paths[1])


def test_a_larger_disk_is_another_disk(disk: Path) -> None:
    before = of(disk)
    os.truncate(disk, disk.stat().st_size + MIB)
    assert of(disk) != before


def test_what_comes_after_the_payload_is_not_in_it(disk: Path) -> None:
    before, size = of(disk), disk.stat().st_size
    with disk.open("r+b") as file:
        vhd.append_footer(file.fileno(), size=size)
    assert of(disk, size) == before


@pytest.mark.parametrize("name", ["d.vhd", "d.vhdx", "d.qcow2", "dynamic.vhd"])
def test_the_format_does_not_matter(disk: Path, tmp_path: Path, name: str) -> None:
    options = {
        "d.vhd": ["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
        "d.vhdx": ["-O", "vhdx"],
        "d.qcow2": ["-c", "-O", "qcow2"],
        "dynamic.vhd": ["-O", "vpc", "-o", "subformat=dynamic,force_size=on"],
    }[name]
    made = tmp_path / name
    subprocess.run(["qemu-img", "convert", "-f", "raw", *options, disk, made], check=True)
    assert digest_of(made) == of(disk)


def test_the_name_does_not_matter(disk: Path, tmp_path: Path) -> None:
    made = tmp_path / "really-a-qcow2.raw"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, made], check=True)
    assert digest_of(made) == of(disk)


def test_conversion_leaves_nothing(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setenv("TMPDIR", str(room))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, tmp_path / "d.qcow2"], check=True)
    digest_of(tmp_path / "d.qcow2")
    assert list(room.iterdir()) == []


def test_a_disk_that_is_too_short(disk: Path) -> None:
    with pytest.raises(DiskError, match="ended early"):
        of(disk, 24 * MIB + 1)


def test_a_disk_that_becomes_too_short(disk: Path) -> None:
    def shrink(done: int, total: int) -> None:
        os.truncate(disk, BLOCK + 512)

    with disk.open("rb") as file, pytest.raises(DiskError, match="ended early"):
        digest(file.fileno(), size=disk.stat().st_size, progress=shrink)


def test_a_file_that_changed_meanwhile(disk: Path) -> None:
    def write(done: int, total: int) -> None:
        with disk.open("r+b") as file:
            file.write(b"new")
            os.utime(file.fileno(), ns=(1, 1))

    with pytest.raises(DiskError, match="was changed while it was read"):
        digest_of(disk, progress=write)


def test_progress_reaches_the_end(disk: Path) -> None:
    heard: list[tuple[int, int]] = []
    with disk.open("rb") as file:
        digest(file.fileno(), size=24 * MIB, progress=lambda done, total: heard.append((done, total)))
    assert heard == sorted(heard)
    assert heard[-1] == (24 * MIB, 24 * MIB)


# -- the command


def test_the_command_prints_lines_like_sha256sum(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digest", str(disk), str(disk)]) == 0
    assert capsys.readouterr().out == f"{of(disk)}  {disk}\n" * 2


def test_the_command_goes_on_after_a_bad_file(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digest", "/nowhere.raw", str(disk)]) == 1
    out, err = capsys.readouterr()
    assert out == f"{of(disk)}  {disk}\n"
    assert "/nowhere.raw cannot be opened" in err


def test_the_command_checks(disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["digest", str(disk)])
    sums = tmp_path / "sums"
    sums.write_text(capsys.readouterr().out)
    assert main(["digest", "--check", str(sums)]) == 0
    with disk.open("r+b") as file:
        file.write(b"changed")
    assert main(["digest", "--check", str(sums)]) == 1
    assert capsys.readouterr().out == f"{disk}: OK\n{disk}: FAILED\n"


def test_the_command_checks_by_standard_input(disk: Path) -> None:
    command = [sys.executable, "-m", "pytest_azchroot.cli", "digest", "-c", "-"]
    for wanted, code, word in ((of(disk), 0, "OK"), (f"azd1:{'0' * 64}", 1, "FAILED")):
        done = subprocess.run(command, input=f"{wanted}  {disk}\n", capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (code, f"{disk}: {word}\n", "")
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert "standard input holds no lines" in done.stderr


def test_the_command_cannot_read_its_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digest", "--check", str(tmp_path / "sums")]) == 1
    assert f"{tmp_path}/sums cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "0123  disk.raw\n", "azd1:0123  disk.raw\n"])
def test_the_command_refuses_what_is_no_list(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sums").write_text(text)
    assert main(["digest", "--check", str(tmp_path / "sums")]) == 2
    assert "holds no lines of `azchroot digest`" in capsys.readouterr().err


AS_NOBODY = """
import os, sys
from pytest_azchroot.cli import main
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main(["digest", "/dev/fd/0"]))
"""


def test_the_command_needs_no_root(disk: Path) -> None:
    with disk.open("rb") as file:
        command = [sys.executable, "-c", AS_NOBODY]
        done = subprocess.run(command, stdin=file, cwd="/", capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{of(disk)}  /dev/fd/0\n", "")


def test_sparse_disks_are_not_read_whole(tmp_path: Path) -> None:
    """A terabyte of holes: reading it would outlast any patience."""
    path = sparse_disk(tmp_path / "large.raw", size=1024 * 1024 * MIB)
    assert PATTERN.fullmatch(digest_of(path))
