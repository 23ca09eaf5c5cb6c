"""Roots found on real disks, and mounted with all that their fstab says."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.disk.mountplan import MountPlan
from pytest_azchroot.errors import DiskError, SandboxError
from pytest_azchroot.sandbox import Sandbox, layout
from pytest_azchroot.sandbox.discover import mount_all, plan

from .machine import loops_below, run

pytestmark = pytest.mark.root

OS = "PRETTY_NAME='Test OS'\n"
TWO = "label: gpt\nsize=340M\nsize=340M\n"
THREE = "label: gpt\nsize=60M\nsize=60M\nsize=+\n"


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """An empty disk, large enough for two XFS."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(700 << 20)
    yield path
    assert loops_below(tmp_path) == []


@pytest.fixture
def sandbox(path: Path) -> Iterator[Sandbox]:
    with Sandbox.start(path, hostname="image") as sandbox:
        yield sandbox


def table(sandbox: Sandbox, script: str, *kinds: str, numbers: tuple[int, ...] = (1, 2, 3, 4)) -> None:
    """Partitions, and file systems on them."""
    sandbox.outside(["sfdisk", "--quiet", sandbox.device], input=script)
    for number, kind in zip(numbers, kinds, strict=False):
        if kind:
            sandbox.outside([*kind.split(), sandbox.partition(number)])


def system(sandbox: Sandbox, number: int, *, fstab: str, at: str = ".", system: str | None = OS) -> None:
    """Write what makes a root into a file system, by hand; ``{uuid2}`` and the like are filled in."""
    facts = {}
    for each in sandbox.filesystems():
        for name in ("uuid", "partuuid", "label", "partlabel"):
            facts[f"{name}{each.number}"] = getattr(each, name)
    write(sandbox, number, f"{at}/etc/fstab", fstab.format(**facts))
    if system is not None:
        write(sandbox, number, f"{at}/etc/os-release", system)


def write(sandbox: Sandbox, number: int, path: str, text: str) -> None:
    """Write a file of a file system that is mounted for the moment, beside the image."""
    script = 'mount -o "$1" "$2" /mnt; mkdir -p "$(dirname /mnt/"$3")"; cat >/mnt/"$3"; umount /mnt'
    kind = next(each.type for each in sandbox.filesystems() if each.number == number)
    options = {"xfs": "nouuid", "btrfs": "subvolid=5"}.get(kind or "", "rw")
    sandbox.outside(["sh", "-ec", script, "sh", options, sandbox.partition(number), path], input=text)


def mounted(sandbox: Sandbox, found: MountPlan) -> dict[str, str]:
    """Mount a plan; what is mounted where, as the image names it, the newest last."""
    mount_all(sandbox, found)
    top = sandbox.mount_path
    rows = sandbox.outside("cat /proc/mounts").stdout.splitlines()
    fields = [row.split() for row in rows if row.split()[1].startswith(top)]
    return {field[1].removeprefix(top) or "/": field[0].removeprefix(sandbox.device) for field in fields}


def planned(sandbox: Sandbox, partition: int | None = None) -> MountPlan:
    return plan(sandbox, partition=partition)


# ---- layouts


@pytest.mark.parametrize("kind", ["mkfs.ext4 -q", "mkfs.ext3 -q", "mkfs.xfs -q", "mkfs.btrfs -q"])
def test_a_separate_var(sandbox: Sandbox, kind: str) -> None:
    table(sandbox, TWO, kind, kind)
    system(sandbox, 2, fstab="UUID={uuid2} / auto\nPARTUUID={partuuid1} /var auto defaults 0 2\n")
    found = planned(sandbox)
    assert mounted(sandbox, found) == {"/": "p2", "/var": "p1"}
    assert (found.system, found.by) == ("Test OS", "its /etc/fstab and /etc/os-release")
    sandbox.write("/var/log/x", b"1")
    assert len(sandbox.unmount().checked) == 2
    sandbox.close()


def test_azures_ubuntu(sandbox: Sandbox) -> None:
    script = "label: gpt\n14: size=4M, type=21686148-6449-6E6F-744E-656564454649\n15: size=60M, type=uefi\n16: size=100M\n1: size=+\n"
    table(sandbox, script, "mkfs.vfat -n UEFI", "mkfs.ext4 -q -L BOOT", "mkfs.ext4 -q -L root", numbers=(15, 16, 1))
    system(sandbox, 1, fstab="LABEL=root / ext4\nLABEL=BOOT /boot ext4\nLABEL=UEFI /boot/efi vfat umask=0077\n")
    found = planned(sandbox)
    assert [(each.number, each.path, each.type) for each in found.mounts] == [
        (1, "/", "ext4"),
        (16, "/boot", "ext4"),
        (15, "/boot/efi", "vfat"),
    ]


def test_logical_partitions(sandbox: Sandbox) -> None:
    script = "label: dos\n1: size=60M, type=83\n2: size=+, type=5\n5: size=300M, type=83\n6: size=+, type=83\n"
    table(sandbox, script, "mkfs.ext4 -q", "mkfs.ext4 -q", "mkfs.ext4 -q", numbers=(1, 5, 6))
    system(sandbox, 5, fstab="/dev/sda5 / ext4\n/dev/sda1 /boot ext4\nPARTUUID={partuuid6} /srv ext4\n")
    assert mounted(sandbox, planned(sandbox)) == {"/": "p5", "/boot": "p1", "/srv": "p6"}


def test_each_kind_of_name(sandbox: Sandbox) -> None:
    script = 'label: gpt\nsize=60M, name="b o"\nsize=60M, name=v\nsize=60M\nsize=+\n'
    table(sandbox, script, "mkfs.ext4 -q", "mkfs.ext4 -q", "mkfs.ext4 -q -L l", "mkfs.ext4 -q")
    text = "/dev/disk/by-uuid/{uuid4} / ext4\nPARTLABEL=b\\040o /boot ext4\n/dev/disk/by-partlabel/v /var ext4\n"
    system(sandbox, 4, fstab=text + 'LABEL="l" /var/log ext4\n')
    assert mounted(sandbox, planned(sandbox)) == {"/": "p4", "/boot": "p1", "/var": "p2", "/var/log": "p3"}


def test_a_root_on_the_whole_disk(sandbox: Sandbox) -> None:
    sandbox.outside(["mkfs.ext4", "-q", sandbox.device])
    system(sandbox, 0, fstab="UUID={uuid0} / ext4\n")
    assert mounted(sandbox, planned(sandbox)) == {"/": ""}


def test_a_root_without_anything_in_it_yet(sandbox: Sandbox) -> None:
    table(sandbox, TWO, "mkfs.ext4 -q")
    assert mounted(sandbox, planned(sandbox)) == {"/": "p1"}


def test_an_empty_typed_partition_before_a_full_one(sandbox: Sandbox) -> None:
    root = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
    table(sandbox, f"label: gpt\nsize=60M\nsize=60M, type={root}\n", "mkfs.ext4 -q", "mkfs.ext4 -q")
    system(sandbox, 1, fstab="UUID={uuid1} / ext4\n")
    assert planned(sandbox).root.number == 2


def test_the_users_options_are_the_roots_alone(sandbox: Sandbox) -> None:
    table(sandbox, TWO, "mkfs.ext4 -q", "mkfs.ext4 -q")
    system(sandbox, 1, fstab="UUID={uuid1} / ext4\nUUID={uuid2} /var ext4 nosuid,nofail\n")
    seen: list[str] = []

    def wrapper(command: str) -> str:
        seen.append(command)
        return command

    mount_all(sandbox, planned(sandbox), path="/mnt/x", options=["noatime"], wrapper=wrapper)
    assert seen == [
        f"mount -o noatime {sandbox.partition(1)} /mnt/x",
        f"mount -o nosuid {sandbox.partition(2)} /mnt/x/var",
    ]


# ---- btrfs


@pytest.fixture
def btrfs(sandbox: Sandbox) -> Sandbox:
    """A btrfs with the subvolumes ``@`` and ``@home``, a snapshot of ``@``, and a system in ``@``."""
    table(sandbox, "label: gpt\nsize=+\n", "mkfs.btrfs -q")
    node = sandbox.partition(1)
    sandbox.outside(
        f"mount {node} /mnt; btrfs -q subvolume create /mnt/@; btrfs -q subvolume create /mnt/@home; umount /mnt"
    )
    text = "UUID={uuid1} / btrfs subvol=@ 0 0\nUUID={uuid1} /home btrfs subvol=/@home 0 0\n"
    system(sandbox, 1, at="@", fstab=text)
    sandbox.outside(
        f"mount {node} /mnt; mkdir /mnt/snapshots; btrfs -q subvolume snapshot /mnt/@ /mnt/snapshots/1; umount /mnt"
    )
    return sandbox


def roots(sandbox: Sandbox) -> list[str]:
    """Which directories of the btrfs are mounted where."""
    rows = sandbox.outside("cat /proc/self/mountinfo").stdout.splitlines()
    fields = [row.split() for row in rows]
    return [
        f"{field[4].removeprefix(sandbox.mount_path) or '/'} {field[3]}"
        for field in fields
        if " btrfs " in " ".join(field)
    ]


def test_a_subvolume_that_fstab_names(btrfs: Sandbox) -> None:
    mount_all(btrfs, planned(btrfs))
    assert roots(btrfs) == ["/ /@", "/home /@home"]
    assert btrfs.unmount().checked == (f"{btrfs.partition(1)} (btrfs)",)
    btrfs.close()


def test_a_subvolume_that_is_the_default(btrfs: Sandbox) -> None:
    btrfs.outside(f"mount {btrfs.partition(1)} /mnt; btrfs subvolume set-default /mnt/@; umount /mnt")
    found = planned(btrfs)
    assert found.root.options == ()
    mount_all(btrfs, found)
    assert roots(btrfs) == ["/ /@", "/home /@home"]


def test_a_subvolume_that_the_user_names(btrfs: Sandbox) -> None:
    options = ["subvol=snapshots/1"]
    found = plan(btrfs, partition=1, options=options)
    mount_all(btrfs, found, options=options)
    assert roots(btrfs) == ["/ /snapshots/1", "/home /@home"]


# ---- refusals


def test_what_is_missing_and_may_be(sandbox: Sandbox) -> None:
    table(sandbox, TWO, "mkfs.ext4 -q")
    system(sandbox, 1, fstab="UUID={uuid1} / ext4\nUUID=nosuch /data ext4 nofail\n")
    found = planned(sandbox)
    assert mounted(sandbox, found) == {"/": "p1"}
    assert [each.path for each in found.skipped] == ["/data"]


def test_what_is_missing_and_may_not_be(sandbox: Sandbox) -> None:
    table(sandbox, TWO, "mkfs.ext4 -q")
    system(sandbox, 1, fstab="UUID={uuid1} / ext4\nUUID=nosuch /data ext4\n")
    with pytest.raises(DiskError, match=r"line 2 .* UUID=nosuch on /data, which is not on this disk"):
        planned(sandbox)


@pytest.mark.parametrize("beside", ["", "mkfs.ext4 -q"])
def test_luks(sandbox: Sandbox, beside: str) -> None:
    table(sandbox, TWO, beside)
    # LUKS1 on-disk format specification, 2.3.1: magic, version, cipher, mode, hash, offset, key size, …, UUID
    header = (
        b"LUKS\xba\xbe\0\1" + b"aes".ljust(32, b"\0") + b"xts-plain64".ljust(32, b"\0") + b"sha256".ljust(32, b"\0")
    )
    header = header.ljust(168, b"\0") + b"11111111-2222-3333-4444-555555555555"
    sandbox.outside(["dd", f"of={sandbox.partition(2)}", "conv=fsync"], input=header.ljust(1 << 20, b"\0"))
    with pytest.raises(DiskError, match="encrypted"):
        planned(sandbox)


def test_a_file_system_that_the_kernel_has_not(sandbox: Sandbox) -> None:
    if "vfat" in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel can mount vfat")
    table(sandbox, TWO, "mkfs.ext4 -q", "mkfs.vfat")
    system(sandbox, 1, fstab="UUID={uuid1} / ext4\nUUID={uuid2} /boot/efi vfat\n")
    with pytest.raises(SandboxError) as caught:
        mount_all(sandbox, planned(sandbox))
    assert "the image's /etc/fstab mounts UUID=" in str(caught.value)
    assert "this machine's kernel has no vfat" in str(caught.value)


# ---- a look does no harm


def test_a_look_writes_nothing_and_leaves_nothing(path: Path) -> None:
    with Sandbox.start(path, hostname="image") as sandbox:
        table(sandbox, TWO, "mkfs.ext4 -q", "mkfs.xfs -q")
        system(sandbox, 1, fstab="UUID={uuid1} / ext4\n")
        before_mounts = sandbox.outside("cat /proc/mounts").stdout
        sandbox.ask("flush")
        before = digest(path)
        assert planned(sandbox).root.number == 1
        assert sandbox.outside("cat /proc/mounts").stdout == before_mounts
        assert sandbox.ask("in_use") == []
        sandbox.close()
    assert digest(path) == before


def digest(path: Path) -> str:
    with path.open("rb") as file:
        found = hashlib.sha256()
        while block := file.read(1 << 24):
            found.update(block)
    return found.hexdigest()


def test_a_journal_that_is_to_be_replayed_is_not(path: Path) -> None:
    with Sandbox.start(path, hostname="image") as sandbox:
        table(sandbox, TWO, "mkfs.ext4 -q", "mkfs.ext4 -q")
        system(sandbox, 1, fstab="UUID={uuid1} / ext4\n")
        sandbox.outside(["debugfs", "-w", "-R", "feature needs_recovery", sandbox.partition(1)])
        assert planned(sandbox).root.number == 1
        shown = sandbox.outside(["dumpe2fs", "-h", sandbox.partition(1)]).stdout
    assert "needs_recovery" in shown


def test_links_of_an_image_do_not_lead_the_look_out(sandbox: Sandbox, tmp_path: Path) -> None:
    outside = tmp_path / "os-release"
    outside.write_text("PRETTY_NAME='the build machine'\n")
    table(sandbox, TWO, "mkfs.ext4 -q", "mkfs.ext4 -q")
    links = f"ln -s {outside} /mnt/etc/os-release; ln -s /../../../../../{outside} /mnt/usr/lib/os-release"
    sandbox.outside(
        f"mount {sandbox.partition(1)} /mnt; mkdir -p /mnt/etc /mnt/usr/lib; {links}; mkfifo /mnt/etc/fstab; umount /mnt"
    )
    (row,) = sandbox.look(sandbox.partition(1), "ext4")
    assert (row["fstab"], row["os_release"]) == (None, None)


def test_os_release_behind_its_usual_link(sandbox: Sandbox) -> None:
    table(sandbox, TWO, "mkfs.ext4 -q", "mkfs.ext4 -q")
    write(sandbox, 2, "usr/lib/os-release", OS)
    sandbox.outside(
        f"mount {sandbox.partition(2)} /mnt; mkdir /mnt/etc; ln -s ../usr/lib/os-release /mnt/etc; umount /mnt"
    )
    assert planned(sandbox).root.number == 2


def test_a_huge_fstab_is_not_read(sandbox: Sandbox) -> None:
    table(sandbox, TWO, "mkfs.ext4 -q", "mkfs.ext4 -q")
    write(sandbox, 1, "etc/fstab", "#" * (1 << 20))
    write(sandbox, 2, "etc/os-release", OS)
    assert planned(sandbox).root.number == 2
    with pytest.raises(SandboxError, match="longer than"):
        sandbox.look(sandbox.partition(1), "ext4")
    with pytest.raises(DiskError, match="longer than"):
        planned(sandbox, 1)


def test_an_fstab_does_not_write_to_the_build_machines_disks(sandbox: Sandbox, tmp_path: Path) -> None:
    """XFS may have its log on another device, and writes there before anything else."""
    table(sandbox, TWO, "mkfs.ext4 -q")
    other = tmp_path / "other.raw"
    with other.open("wb") as file:
        file.truncate(128 << 20)
    device = run("losetup", "--find", "--show", other).strip()
    try:
        node = f"{layout.HOST_DEV}/{Path(device).name}"
        sandbox.outside(["mkfs.xfs", "-q", "-f", "-l", f"logdev={node}", sandbox.partition(2)])
        run("blkdiscard", "--zeroout", device)  # mkfs has written a log; a disk that is not used may be empty
        before = other.read_bytes()
        for how in (f"logdev={node}", f"nofail,logdev={node}"):
            system(sandbox, 1, fstab=f"UUID={{uuid1}} / auto\nUUID={{uuid2}} /srv xfs {how}\n")
            with contextlib.suppress(DiskError, SandboxError):
                mount_all(sandbox, planned(sandbox))
                sandbox.unmount()
        run("sync", "-f", other)
        assert other.read_bytes() == before
    finally:
        run("losetup", "-d", device)


# ---- damage


CHECKERS = {"ext4": "`e2fsck -f`", "xfs": "`xfs_repair`"}


def damage(sandbox: Sandbox, number: int) -> None:
    """Change a byte of the superblock that nothing but its checksum guards: of the label of ext4, and of XFS."""
    kind = next(each.type for each in sandbox.filesystems() if each.number == number)
    offset = {"ext4": 1024 + 0x78, "xfs": 108}[kind or ""]
    sandbox.outside(["dd", f"of={sandbox.partition(number)}", "bs=1", f"seek={offset}", "conv=fsync"], input="x")


@pytest.mark.parametrize("kind", CHECKERS)
def test_a_damaged_root_is_called_so(sandbox: Sandbox, kind: str) -> None:
    table(sandbox, TWO, f"mkfs.{kind} -q")
    damage(sandbox, 1)
    with pytest.raises(DiskError, match="cannot be read: the file system is damaged") as caught:
        planned(sandbox)
    assert CHECKERS[kind] in (caught.value.hint or "")


def test_a_btrfs_may_be_damaged_or_unknown(sandbox: Sandbox) -> None:
    table(sandbox, TWO, "mkfs.btrfs -q")
    label = (64 << 10) + 0x12B  # btrfs_super_block
    sandbox.outside(["dd", f"of={sandbox.partition(1)}", "bs=1", f"seek={label}", "conv=fsync"], input="x")
    with pytest.raises(DiskError, match="cannot be read: ") as caught:
        planned(sandbox)
    assert "damaged: check it by `btrfs check`" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", CHECKERS)
def test_damage_beside_the_root_is_called_so(sandbox: Sandbox, kind: str) -> None:
    table(sandbox, TWO, "mkfs.ext4 -q", f"mkfs.{kind} -q")
    system(sandbox, 1, fstab="UUID={uuid1} / ext4\nUUID={uuid2} /var auto\n")
    damage(sandbox, 2)
    with pytest.raises(SandboxError, match="the file system is damaged") as caught:
        mount_all(sandbox, planned(sandbox))
    assert CHECKERS[kind] in (caught.value.hint or "")
