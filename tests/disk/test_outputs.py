"""All outputs or none, complete before they have a name."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_azchroot.disk import outputs, vhd
from pytest_azchroot.disk.copy import copy
from pytest_azchroot.disk.image import identify
from pytest_azchroot.disk.partial import Partial, partial
from pytest_azchroot.errors import DiskError, PublishError

from .conftest import MIB, Mount

SIZE = 24 * MIB


@contextmanager
def working(disk: Path, directory: Path, name: str = "a.vhd") -> Iterator[Partial]:
    """A working disk with the content of ``disk``."""
    with partial(directory, name) as file, disk.open("rb") as source:
        copy(source.fileno(), file.fd, length=SIZE)
        yield file


def outputs_in(directory: Path, *names: str) -> list[outputs.Output]:
    return [outputs.output(directory, name) for name in names]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def content(path: Path) -> bytes:
    """The disk in a published file, as qemu-img reads it."""
    driver = {".vhd": "vpc", ".raw": "raw"}.get(path.suffix, path.suffix[1:])
    raw = path.parent.parent / "read.raw"
    subprocess.run(["qemu-img", "convert", "-f", driver, "-O", "raw", path, raw], check=True)
    return raw.read_bytes()


@pytest.mark.parametrize("name", ["a.vhd", "a.raw", "a.vhdx", "a.qcow2"])
def test_each_kind_holds_the_disk(disk: Path, out: Path, name: str) -> None:
    with working(disk, out) as file:
        outputs.publish(file, outputs_in(out, name), size=SIZE)
    assert names(out) == [name]
    assert content(out / name) == disk.read_bytes()
    assert identify(out / name).size == SIZE


def test_a_vhd_pleases_azure(disk: Path, out: Path) -> None:
    with working(disk, out) as file:
        outputs.publish(file, outputs_in(out, "a.vhd"), size=SIZE)
    data = (out / "a.vhd").read_bytes()
    assert vhd.check_azure(vhd.parse(data[-512:]), len(data)) == []
    info = ["qemu-img", "info", "-f", "vpc", str(out / "a.vhd")]
    assert f"({SIZE} bytes)" in subprocess.run(info, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", ["a.vhd", "a.raw"])
def test_the_working_disk_itself_is_published(disk: Path, out: Path, name: str) -> None:
    with working(disk, out) as file:
        inode = os.fstat(file.fd).st_ino
        outputs.publish(file, outputs_in(out, name), size=SIZE)
    assert (out / name).stat().st_ino == inode


def test_many_at_once(disk: Path, out: Path) -> None:
    wanted = ("a.qcow2", "b.vhd", "c.raw", "d.vhd", "e.vhdx")
    with working(disk, out) as file:
        outputs.publish(file, outputs_in(out, *wanted), size=SIZE)
    assert names(out) == list(wanted)
    assert {name: content(out / name) == disk.read_bytes() for name in wanted} == dict.fromkeys(wanted, True)
    assert (out / "b.vhd").read_bytes()[-512:] != (out / "d.vhd").read_bytes()[-512:], "ids are unique"


@pytest.mark.root
def test_an_output_on_another_file_system(disk: Path, out: Path, mount: Mount) -> None:
    other = mount("tmpfs", 64 * MIB)
    with working(disk, out) as file:
        outputs.publish(file, [*outputs_in(out, "a.vhd"), *outputs_in(other, "b.vhd")], size=SIZE)
    assert (out / "a.vhd").read_bytes()[:SIZE] == (other / "b.vhd").read_bytes()[:SIZE] == disk.read_bytes()


def test_one_taken_name_and_nothing_is_published(disk: Path, out: Path) -> None:
    (out / "b.qcow2").write_bytes(b"old")
    with working(disk, out) as file, pytest.raises(PublishError, match=r"b\.qcow2 exists; --azchroot-overwrite"):
        outputs.publish(file, outputs_in(out, "a.vhd", "b.qcow2"), size=SIZE)
    assert names(out) == ["b.qcow2"]
    assert (out / "b.qcow2").read_bytes() == b"old"


def taking(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Somebody else makes ``path`` after the check and before the link."""
    publish = Partial.publish

    def late(self: Partial, name: str, **options: Any) -> None:
        if name == path.name:
            path.write_bytes(b"theirs")
        publish(self, name, **options)

    monkeypatch.setattr(Partial, "publish", late)


def test_a_name_taken_meanwhile_takes_the_others_back(disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taking(monkeypatch, out / "b.raw")
    with working(disk, out) as file:
        with pytest.raises(PublishError, match=r"nothing was published: output .*b\.raw exists"):
            outputs.publish(file, outputs_in(out, "a.vhd", "b.raw"), size=SIZE)
        assert os.fstat(file.fd).st_size == SIZE
        assert "a.vhd" not in names(out)
    assert names(out) == ["b.raw"]
    assert (out / "b.raw").read_bytes() == b"theirs"


def test_after_a_failure_it_can_be_published_again(disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with working(disk, out) as file:
        with monkeypatch.context() as patch:
            taking(patch, out / "b.raw")
            with pytest.raises(PublishError):
                outputs.publish(file, outputs_in(out, "a.vhd", "b.raw"), size=SIZE)
        (out / "b.raw").unlink()
        outputs.publish(file, outputs_in(out, "a.vhd", "b.raw"), size=SIZE)
    assert names(out) == ["a.vhd", "b.raw"]
    assert content(out / "a.vhd") == disk.read_bytes()


def interrupting(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Ctrl-C right after ``name`` was given."""
    publish = Partial.publish

    def late(self: Partial, given: str, **options: Any) -> None:
        publish(self, given, **options)
        if given == name:
            raise KeyboardInterrupt

    monkeypatch.setattr(Partial, "publish", late)


@pytest.mark.parametrize("name", ["a.vhd", "b.qcow2"])
def test_an_interrupt_between_names_leaves_none(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    interrupting(monkeypatch, name)
    with working(disk, out) as file, pytest.raises(KeyboardInterrupt):
        outputs.publish(file, outputs_in(out, "a.vhd", "b.qcow2"), size=SIZE)
    assert names(out) == []


def test_an_interrupt_when_all_is_done_leaves_complete_files(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give = outputs._give_names

    def late(*arguments: Any, **options: Any) -> None:
        give(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs, "_give_names", late)
    with working(disk, out) as file, pytest.raises(KeyboardInterrupt):
        outputs.publish(file, outputs_in(out, "a.vhd"), size=SIZE)
    assert content(out / "a.vhd") == disk.read_bytes()
    assert identify(out / "a.vhd").format == "fixed VHD"


def test_what_replaced_a_file_stays_and_is_named(disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "a.vhd").write_bytes(b"old")
    publish = Partial.publish

    def failing(self: Partial, name: str, **options: Any) -> None:
        if name == "b.raw":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        publish(self, name, **options)

    monkeypatch.setattr(Partial, "publish", failing)
    with working(disk, out) as file, pytest.raises(PublishError, match=r"only .*a\.vhd could be published"):
        outputs.publish(file, outputs_in(out, "a.vhd", "b.raw"), size=SIZE, overwrite=True)
    assert content(out / "a.vhd") == disk.read_bytes()
    assert names(out) == ["a.vhd"]


def failing(monkeypatch: pytest.MonkeyPatch, kind: Any, method: str, *names: str) -> None:
    """It fails for these files, and does what it does for others."""
    original = getattr(kind, method)

    def fail(first: Any, *arguments: Any, **options: Any) -> None:
        if not names or arguments[0] in names:
            raise OSError(errno.EIO, f"{method} {arguments[0] if names else ''}".strip())
        original(first, *arguments, **options)

    monkeypatch.setattr(kind, method, fail)


def test_a_name_that_cannot_be_taken_back_keeps_no_other(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, Partial, "publish", "d.raw")
    failing(monkeypatch, Partial, "withdraw", "a.vhd", "c.raw")
    with working(disk, out) as file, pytest.raises(PublishError) as caught:
        outputs.publish(file, outputs_in(out, "a.vhd", "b.raw", "c.raw", "d.raw"), size=SIZE)
    assert str(caught.value).startswith("nothing was published: publishing ")
    assert [each[: each.index(" (in ")] for each in caught.value.later] == [
        "OSError: [Errno 5] withdraw a.vhd",
        "OSError: [Errno 5] withdraw c.raw",
    ]
    assert names(out) == ["a.vhd", "c.raw"]


@pytest.mark.parametrize("error", [DiskError("first", why="of the disk", hint="buy one"), KeyboardInterrupt()])
def test_a_footer_that_stays_comes_second(
    disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def give(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(outputs, "_give_names", give)
    failing(monkeypatch, vhd, "remove_footer")
    expected = PublishError if isinstance(error, DiskError) else KeyboardInterrupt
    with working(disk, out) as file, pytest.raises(expected) as caught:
        outputs.publish(file, outputs_in(out, "a.vhd"), size=SIZE)
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert told.startswith("first: of the disk\nhint: buy one\nthen: " if isinstance(error, DiskError) else "\nthen: ")
    assert told.count("[Errno 5] remove_footer") == 1


def test_overwrite_replaces(disk: Path, out: Path) -> None:
    for name in ("a.vhd", "b.qcow2"):
        (out / name).write_bytes(b"old")
    with working(disk, out) as file:
        outputs.publish(file, outputs_in(out, "a.vhd", "b.qcow2"), size=SIZE, overwrite=True)
    assert names(out) == ["a.vhd", "b.qcow2"]
    assert content(out / "b.qcow2") == disk.read_bytes()


def test_qemus_failure_gives_its_words(disk: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = out.parent / "bin" / "qemu-img"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'qemu-img: the moon is in the way' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    with working(disk, out) as file, pytest.raises(PublishError, match="the moon is in the way"):
        outputs.publish(file, outputs_in(out, "a.vhd", "b.qcow2"), size=SIZE)
    assert names(out) == []


@pytest.mark.root
@pytest.mark.parametrize("name", ["b.raw", "b.qcow2", "b.vhdx"])
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_file_system_is_named(disk: Path, out: Path, mount: Mount, kind: str, name: str) -> None:
    other = mount(kind, 2 * MIB)
    before = names(other)
    with working(disk, out) as file, pytest.raises(PublishError) as caught:
        outputs.publish(file, [*outputs_in(out, "a.vhd"), *outputs_in(other, name)], size=SIZE)
    assert f"the file system at {other} is full (3.0 MiB were needed" in str(caught.value)
    assert (names(out), names(other)) == ([], before)


def test_an_unknown_suffix_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"\.qcow2, \.raw, \.vhd, \.vhdx"):
        outputs.output(tmp_path, "a.vmdk")


def test_a_name_given_twice_is_noticed_through_links(out: Path) -> None:
    (out.parent / "link").symlink_to(out)
    wanted = [*outputs_in(out, "a.vhd"), *outputs_in(out.parent / "link", "a.vhd")]
    assert outputs.taken(wanted) == [f"output {out / 'a.vhd'} is named twice"]
