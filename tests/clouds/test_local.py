"""The local cloud: from image.yaml to files."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path

import pytest

from pytest_azchroot.clouds import Cloud, Order
from pytest_azchroot.clouds.local import LocalCloud
from pytest_azchroot.disk import vhd
from pytest_azchroot.errors import DiskError, PublishError
from pytest_azchroot.spec import BUILTIN_CLOUDS, load
from tests.disk.conftest import MIB, Mount, mount, sparse_disk, wait_for_end

__all__ = ["mount"]  # a fixture

SIZE = 24 * MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The directory of an image, with a source beside it."""
    directory = tmp_path / "debian"
    directory.mkdir()
    sparse_disk(tmp_path / "base.raw")
    return directory


def order(directory: Path, text: str, *, publish: bool = True, overwrite: bool = False) -> Order:
    path = directory / "image.yaml"
    path.write_text("cloud: local\n" + text)
    configuration = load(path, clouds=BUILTIN_CLOUDS, environ={})
    return Order(directory.name, directory, configuration, publish=publish, overwrite=overwrite)


def plain(directory: Path, output: str = "a.vhd", *, publish: bool = True, overwrite: bool = False) -> Order:
    return order(directory, f"source: ../base.raw\noutput: {output}\n", publish=publish, overwrite=overwrite)


def problems(asked: Order) -> list[str]:
    return list(LocalCloud().preflight(asked))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != "image.yaml")


def published(asked: Order) -> list[Path]:
    cloud = LocalCloud()
    with cloud.create(asked) as disk, cloud.attach(asked, disk):
        return [Path(each.id) for each in cloud.publish(asked, disk)]


# -- the way in


def test_it_is_a_cloud() -> None:
    assert isinstance(LocalCloud(), Cloud)


def test_a_good_order_passes_and_nothing_is_made(image: Path) -> None:
    assert problems(plain(image)) == []
    assert names(image) == []


def test_the_disk_is_a_copy_of_the_source(image: Path) -> None:
    asked, cloud = plain(image), LocalCloud()
    with cloud.create(asked) as disk, cloud.attach(asked, disk) as attachment:
        assert (disk.size, disk.source) == (SIZE, str(image.parent / "base.raw"))
        assert attachment.path.read_bytes() == (image / "../base.raw").read_bytes()
        assert names(image) == []


def test_the_disk_can_be_written_and_its_source_is_not(image: Path) -> None:
    asked, cloud = plain(image), LocalCloud()
    before = (image / "../base.raw").read_bytes()
    with cloud.create(asked) as disk, cloud.attach(asked, disk) as attachment:
        with attachment.path.open("r+b") as file:
            file.write(b"changed")
        (artifact,) = cloud.publish(asked, disk)
    assert Path(artifact.id).read_bytes().startswith(b"changed")
    assert (image / "../base.raw").read_bytes() == before


def test_unpublished_nothing_is_left(image: Path) -> None:
    with pytest.raises(KeyboardInterrupt), LocalCloud().create(plain(image)):
        raise KeyboardInterrupt
    assert names(image) == []


def test_from_scratch_is_empty_and_sparse(image: Path) -> None:
    asked = order(image, "from_scratch: true\nos_disk_size_gb: 2\npre_mount_commands: ['true']\noutput: a.vhd\n")
    assert problems(asked) == []
    with LocalCloud().create(asked) as disk:
        state = os.stat(disk.id)
        assert (disk.size, disk.source) == (2 * vhd.GIB, "scratch")
        assert (state.st_size, state.st_blocks) == (2 * vhd.GIB, 0)


def test_os_disk_size_enlarges(image: Path) -> None:
    with LocalCloud().create(order(image, "source: ../base.raw\nos_disk_size_gb: 1\noutput: a.vhd\n")) as disk:
        assert disk.size == os.stat(disk.id).st_size == vhd.GIB
        with open(disk.id, "rb") as file:
            assert file.read(SIZE) == (image / "../base.raw").read_bytes()
            assert not any(file.read(MIB))


def test_os_disk_size_never_shrinks(image: Path) -> None:
    os.truncate(image / "../base.raw", 2 * vhd.GIB)
    asked = order(image, "source: ../base.raw\nos_disk_size_gb: 1\noutput: a.vhd\n")
    (problem,) = problems(asked)
    assert problem.startswith("os_disk_size_gb only enlarges: it says 1.0 GiB")
    with pytest.raises(DiskError, match="only enlarges"), LocalCloud().create(asked):
        pass


def test_the_size_is_a_whole_number_of_mib(image: Path) -> None:
    os.truncate(image / "../base.raw", SIZE + 512)
    (path,) = published(plain(image))
    assert path.stat().st_size == SIZE + MIB + vhd.FOOTER_SIZE


@pytest.mark.parametrize(
    ("driver", "options"),
    [("vpc", "subformat=fixed,force_size=on"), ("vpc", "force_size=on"), ("vhdx", ""), ("qcow2", "")],
)
@pytest.mark.parametrize("output", ["a.vhd", "a.qcow2"])
def test_every_source_becomes_every_output(image: Path, driver: str, options: str, output: str) -> None:
    base, source = image.parent / "base.raw", image.parent / "source.img"
    extra = ["-o", options] if options else []
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", driver, *extra, base, source], check=True)
    asked = order(image, f"source: ../source.img\noutput: {output}\n")
    assert problems(asked) == []
    (path,) = published(asked)
    driver = {".vhd": "vpc"}.get(path.suffix, path.suffix[1:])
    command = ["qemu-img", "compare", "-f", "raw", "-F", driver, str(base), str(path)]
    assert "identical" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert names(image) == [output]


def test_a_source_that_changes_while_it_is_copied_is_an_error(image: Path) -> None:
    def write(done: int, total: int) -> None:
        with (image / "../base.raw").open("r+b") as file:
            file.write(b"other")
        os.utime(image / "../base.raw", ns=(done, done))

    with pytest.raises(DiskError, match="changed while it was copied"), LocalCloud(write).create(plain(image)):
        pass


def test_it_says_what_it_does(image: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        published(plain(image))
    assert "is a sparse copy of" in caplog.text
    assert f"publishing {image / 'a.vhd'}" in caplog.text


@pytest.mark.root
def test_extents_are_shared_where_they_can_be(image: Path, mount: Mount, caplog: pytest.LogCaptureFixture) -> None:
    other = mount("xfs", 400 * MIB)
    inside = other / "image"
    inside.mkdir()
    sparse_disk(other / "base.raw")
    with caplog.at_level(logging.INFO):
        (path,) = published(plain(inside))
    assert "shares the extents of" in caplog.text
    assert path.read_bytes()[:SIZE] == (other / "base.raw").read_bytes()


def test_a_source_is_found_from_an_image_behind_a_symbolic_link(image: Path) -> None:
    link = image.parent / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(image)
    assert problems(plain(link)) == []
    (path,) = published(plain(link))
    assert path == image / "a.vhd"


def test_a_source_that_is_coming_need_not_exist_yet(image: Path) -> None:
    asked = order(image, "source: ../other/none.raw\noutput: a.vhd\n")
    assert problems(replace(asked, coming=frozenset({str(image.parent / "other" / "none.raw")}))) == []
    assert len(problems(asked)) == 1


# -- without publishing


def test_unpublished_disks_live_in_tmpdir(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    asked = order(image, "source: ../base.raw\nskip_create_image: true\n")
    assert problems(asked) == []
    with LocalCloud().create(asked) as disk:
        assert os.readlink(disk.id).startswith(str(elsewhere))
    assert published(asked) == []
    assert (names(image), names(elsewhere)) == ([], [])


def test_a_tmpdir_that_is_missing_is_said(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    (problem,) = problems(order(image, "source: ../base.raw\nskip_create_image: true\n"))
    assert problem.startswith(f"{tmp_path / 'nowhere'}, for large temporary files, is no directory (")


def test_disks_that_are_kept_in_one_second_have_names_of_their_own(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Frozen(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr("pytest_azchroot.clouds.local.datetime", Frozen)
    for _ in range(3):
        cloud, asked = LocalCloud(), plain(image)
        with cloud.create(asked) as disk:
            kept = cloud.keep(asked, disk)
        assert Path(kept.id).stat().st_size == SIZE and kept.id in kept.enter
    stem = "debian-20260102T030405Z"
    assert names(image) == sorted(f"{stem}{number}.kept.raw" for number in ("", "-2", "-3"))


def test_without_publishing_destinations_do_not_matter(image: Path) -> None:
    assert problems(plain(image, "missing/a.vhd", publish=False)) == []


# -- preflight


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: ../none.raw\noutput: a.vhd", "none.raw cannot be opened: No such file"),
        ("source: ..\noutput: a.vhd", "is not a file"),
        ("source: ../base.raw\noutput: missing/a.vhd", "does not exist: mkdir -p"),
        ("source: ../base.raw\noutput: taken.vhd", "taken.vhd exists; --azchroot-overwrite replaces it"),
        ("source: ../base.raw\noutput: dangling.vhd", "dangling.vhd exists; --azchroot-overwrite replaces it"),
        ("source: ../base.raw\noutput: dir.vhd", "dir.vhd is a directory"),
        ("source: ../base.raw\noutput: same.raw", "same.raw is the source itself"),
        ("source: ../base.raw\noutput: hard.raw", "hard.raw is the source itself"),
        ("source: ../small.raw\noutput: a.vhd", "the smallest that Azure takes is 20 MiB"),
        ("source: ../huge.raw\noutput: a.vhd", "the largest OS disk is 1023 GiB"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_known_before(image: Path, text: str, words: str, overwrite: bool) -> None:
    base = image / "../base.raw"
    (image / "taken.vhd").touch()
    (image / "dangling.vhd").symlink_to("nowhere")
    (image / "dir.vhd").mkdir()
    (image / "same.raw").symlink_to("../base.raw")
    (image / "hard.raw").hardlink_to(base)
    for name, size in (("small", 19 * MIB), ("huge", 1024 * vhd.GIB)):
        (image.parent / f"{name}.raw").touch()
        os.truncate(image.parent / f"{name}.raw", size)
    found = problems(order(image, text + "\n", overwrite=overwrite))
    if overwrite and "--azchroot-overwrite" in words:
        assert found == []
    else:
        assert [words in each for each in found] == [True]


def test_all_is_said_at_once(image: Path) -> None:
    (image / "taken.vhd").touch()
    asked = order(image, "source: ../none.raw\noutput: [taken.vhd, missing/b.raw]\n")
    assert len(problems(asked)) == 3


def test_qemu_is_asked_for_only_where_it_is_needed(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(image))
    assert problems(plain(image)) == []
    (problem,) = problems(plain(image, "a.qcow2"))
    assert problem == "qemu-img is needed for the output and not installed: apt-get install qemu-utils"


@pytest.mark.root
def test_a_read_only_directory_is_known_before(image: Path, mount: Mount) -> None:
    other = mount("tmpfs", MIB)
    subprocess.run(["mount", "-o", "remount,ro", other], check=True)
    (problem,) = problems(plain(image, str(other / "a.vhd")))
    assert problem == f"the directory of output {other}/a.vhd is not writable"


# -- room


@pytest.mark.root
def test_missing_room_is_known_before(image: Path, mount: Mount) -> None:
    other = mount("tmpfs", 2 * MIB)
    (problem,) = problems(plain(image, str(other / "a.vhd")))
    assert problem.startswith(f"the file system at {other} has 2.0 MiB free, but 3.0 MiB are needed there")


@pytest.mark.root
def test_each_copy_needs_room(image: Path, mount: Mount) -> None:
    other = mount("tmpfs", 8 * MIB)
    assert problems(plain(image, str(other / "a.vhd"))) == []
    (problem,) = problems(plain(image, f"[{other}/a.vhd, {other}/b.raw, {other}/c.qcow2]"))
    assert "9.0 MiB are needed there" in problem


@pytest.mark.root
def test_shared_extents_need_no_room(mount: Mount) -> None:
    other = mount("xfs", 320 * MIB)
    inside = other / "image"
    inside.mkdir()
    (other / "base.raw").write_bytes(os.urandom(MIB) * 180)
    assert problems(plain(inside)) == []
    assert len(problems(plain(inside, "[a.vhd, b.qcow2]"))) == 1


@pytest.mark.root
def test_a_file_system_that_fills_up_is_named(image: Path, mount: Mount) -> None:
    other = mount("tmpfs", 2 * MIB)
    with pytest.raises(DiskError) as caught, LocalCloud().create(plain(image, str(other / "a.vhd"))):
        pass
    assert f"base.raw failed: the file system at {other} is full (3.0 MiB were needed" in str(caught.value)
    assert names(other) == []


# -- publishing


def test_it_never_overwrites_unless_asked(image: Path) -> None:
    asked, cloud = plain(image), LocalCloud()
    with cloud.create(asked) as disk:
        (image / "a.vhd").write_bytes(b"theirs")
        with pytest.raises(PublishError, match="exists"):
            cloud.publish(asked, disk)
    assert (image / "a.vhd").read_bytes() == b"theirs"
    (path,) = published(plain(image, overwrite=True))
    assert path.read_bytes()[:SIZE] == (image / "../base.raw").read_bytes()
    assert names(image) == ["a.vhd"]


def test_a_disk_that_lost_bytes_is_not_published(image: Path) -> None:
    asked, cloud = plain(image), LocalCloud()
    with cloud.create(asked) as disk:
        os.truncate(disk.id, SIZE - MIB)
        with pytest.raises(PublishError, match="are left"):
            cloud.publish(asked, disk)


BUILD = """
import sys, time
from pathlib import Path
from pytest_azchroot.clouds import Order
from pytest_azchroot.clouds.local import LocalCloud
from pytest_azchroot.spec import BUILTIN_CLOUDS, load

path, stop = Path(sys.argv[1]), sys.argv[2]
stage = "create"

def wait(at):
    if at == stop:
        print("ready", flush=True)
        time.sleep(1000)

cloud = LocalCloud(progress=lambda done, total: wait(stage))
configuration = load(path, clouds=BUILTIN_CLOUDS, environ={})
order = Order("debian", path.parent, configuration, overwrite=True)
with cloud.create(order) as disk:
    stage = "publish"
    if stop == "random":
        print("ready", flush=True)
    cloud.publish(order, disk)
    wait("published")
"""


@contextmanager
def build(asked: Order, stop: str, path: str | None = None) -> Iterator[None]:
    """A build in another process that has come to ``stop``, and is killed on exit."""
    environment = {**os.environ, **({"PATH": path} if path else {})}
    command = [sys.executable, "-c", BUILD, str(asked.directory / "image.yaml"), stop]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    try:
        with process.stdout:
            assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("stop", ["create", "publish"])
@pytest.mark.parametrize("output", ["[a.vhd, b.raw]", "[a.raw, b.qcow2]", "a.vhdx"])
def test_kill_9_while_copying_or_converting_leaves_nothing(image: Path, stop: str, output: str) -> None:
    with build(plain(image, output), stop):
        assert names(image) == []
    assert names(image) == []


def test_kill_9_while_qemu_runs_leaves_neither_file_nor_process(image: Path, tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "qemu-img"
    tool.parent.mkdir()
    # It has written all, and says so, but does not end.
    tool.write_text(f'#!/bin/sh\nPATH={os.environ["PATH"]}\nqemu-img "$@" >/dev/null\necho $$ > {tmp_path}/pid\n')
    with tool.open("a") as file:
        file.write("echo '(99.00/100%)'\nexec sleep 1000\n")
    tool.chmod(0o755)
    with build(plain(image, "a.qcow2"), "publish", f"{tool.parent}:{os.environ['PATH']}"):
        pid = int((tmp_path / "pid").read_text())
        assert Path(f"/proc/{pid}").exists()
    wait_for_end(pid)
    assert names(image) == []


def test_kill_9_at_any_moment_of_publishing_leaves_whole_files_only(image: Path) -> None:
    asked = plain(image, "[a.vhd, b.raw]")
    base = (image / "../base.raw").read_bytes()
    for _ in range(6):
        with build(asked, "random"):
            pass
        for name in names(image):
            assert (image / name).read_bytes()[:SIZE] == base, name
            assert (image / name).stat().st_size == SIZE + (512 if name.endswith(".vhd") else 0), name


def test_what_was_published_stays_after_kill_9(image: Path) -> None:
    with build(plain(image), "published"):
        pass
    assert names(image) == ["a.vhd"]
