"""From facts of a disk to its mounts: recorded metadata in, a plan or an error out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pytest_azchroot.disk import discovery
from pytest_azchroot.disk.discovery import Look
from pytest_azchroot.disk.mountplan import MountPlan
from pytest_azchroot.disk.probe import FileSystem
from pytest_azchroot.errors import DiskError

ROOT_X86_64 = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
OS = "PRETTY_NAME='Test OS'\n"
DISK = FileSystem(0, "/dev/loop0", 1 << 30, pttype="gpt")


def fs(number: int, kind: str | None = "ext4", **facts: Any) -> FileSystem:
    facts = {"uuid": f"uuid-{number}", "partuuid": f"part-{number}", **facts}
    return FileSystem(number, f"/dev/loop0p{number}", 1 << 20, type=kind, **facts)


def plan(
    *filesystems: FileSystem,
    looks: Sequence[Look] = (),
    partition: int | None = None,
    options: Sequence[str] = (),
) -> MountPlan:
    found = (DISK, *filesystems)
    return discovery.plan(found, discovery.candidates(found, partition=partition), looks, options=options)


def mounted(text: str, *filesystems: FileSystem) -> list[tuple[int, str]]:
    """What a root on partition 1 with this fstab mounts."""
    found = plan(fs(1, label="root"), *filesystems, partition=1, looks=[Look(1, fstab=text, os_release=OS)])
    return [(each.number, each.path) for each in found.others]


def why_skipped(text: str, *filesystems: FileSystem) -> str:
    found = plan(fs(1), *filesystems, partition=1, looks=[Look(1, fstab=text)])
    assert found.others == ()
    (skipped,) = found.skipped
    return skipped.why


# ---- which one is the root


def test_the_only_linux_file_system() -> None:
    found = plan(fs(1, "vfat"), fs(2, None), fs(3, "ext4"))
    assert (found.root.number, found.by, found.unused) == (3, "the only Linux file system", ("partition 1 (vfat)",))


def test_a_file_system_on_the_whole_disk() -> None:
    whole = FileSystem(0, "/dev/loop0", 1 << 30, type="ext4")
    assert discovery.plan((whole,), discovery.candidates((whole,)), []).root.number == 0


def test_the_user_names_it() -> None:
    found = plan(fs(1), fs(2), partition=2)
    assert (found.root.number, found.by) == (2, "its number, as it was asked for")


def test_the_user_names_what_is_not_there() -> None:
    with pytest.raises(DiskError, match=r"the disk has no partition 7: its partitions are: 1, 2"):
        plan(fs(1), fs(2), partition=7)


def test_the_partitions_type_says_so() -> None:
    found = plan(fs(1), fs(2, parttype=ROOT_X86_64), fs(3))
    assert (found.root.number, found.by) == (2, "the type of its partition")


def test_a_typed_partition_without_a_file_system_says_nothing() -> None:
    assert plan(fs(1, None, parttype=ROOT_X86_64), fs(2)).root.number == 2


def test_of_two_typed_partitions_the_one_that_is_a_root() -> None:
    typed = [fs(1, parttype=ROOT_X86_64), fs(2, parttype=ROOT_X86_64), fs(3)]
    looks = [Look(1), Look(2, os_release=OS)]
    assert plan(*typed, looks=looks).root.number == 2


@pytest.mark.parametrize("source", ["UUID=uuid-2", "PARTUUID=part-2", 'LABEL="r"', "/dev/sdb2", "/dev/nvme0n1p2"])
def test_the_one_whose_fstab_says_so(source: str) -> None:
    looks = [Look(1), Look(2, fstab=f"{source} / ext4", os_release=OS)]
    found = plan(fs(1), fs(2, label="r"), looks=looks)
    assert (found.root.number, found.by, found.system) == (2, "its /etc/fstab and /etc/os-release", "Test OS")


def test_a_copy_whose_fstab_names_another_is_no_root() -> None:
    text = "UUID=uuid-2 / ext4"
    looks = [Look(1, fstab=text, os_release=OS), Look(2, fstab=text, os_release=OS)]
    assert plan(fs(1), fs(2), looks=looks).root.number == 2


def test_a_system_without_a_root_in_its_fstab_counts_less() -> None:
    looks = [Look(1, fstab="", os_release=OS), Look(2, fstab="UUID=uuid-2 / ext4", os_release=OS)]
    assert plan(fs(1), fs(2), looks=looks).root.number == 2
    assert plan(fs(1), fs(2), looks=[looks[0], Look(2)]).root.number == 1


def test_an_fstab_alone_is_enough() -> None:
    assert plan(fs(1), fs(2), looks=[Look(1, fstab="# nothing\n"), Look(2)]).root.number == 1


def test_two_roots_are_an_error_that_lists_them() -> None:
    looks = [Look(1, os_release=OS), Look(2, os_release=OS)]
    with pytest.raises(DiskError) as caught:
        plan(fs(1), fs(2), looks=looks)
    assert "partition 1 (Test OS)\n  partition 2 (Test OS)" in str(caught.value)
    assert "`mount_partition: 2` in image.yaml, `--partition 2` for azchroot" in str(caught.value)


def test_no_root_is_an_error_that_says_what_was_read() -> None:
    looks = [Look(1), Look(2, problem="No such device")]
    with pytest.raises(DiskError) as caught:
        plan(fs(1, label="boot"), fs(2, "f2fs"), looks=looks)
    assert "partition 1 (ext4, boot), partition 2 (f2fs)" in str(caught.value)
    assert "partition 2 was not read: No such device" in str(caught.value)


def test_a_root_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(
        DiskError, match=r"partition 2 \(f2fs\), the root by its number, as it was asked for, cannot be read: No such"
    ):
        plan(fs(1), fs(2, "f2fs"), partition=2, looks=[Look(2, problem="No such device")])


def test_a_disk_without_file_systems() -> None:
    with pytest.raises(DiskError, match="no partition holds a Linux file system"):
        plan(fs(1, "vfat"))


# ---- what nobody here can open


def test_luks_is_refused() -> None:
    with pytest.raises(DiskError, match=r"partition 2 \(crypto_LUKS\) cannot be mounted.*is encrypted \(LUKS\)"):
        plan(fs(1, "vfat"), fs(2, "crypto_LUKS"))


@pytest.mark.parametrize(("kind", "words"), [("crypto_LUKS", "encrypted"), ("LVM2_member", "none of them has")])
def test_a_boot_partition_beside_it_is_not_taken_for_the_root(kind: str, words: str) -> None:
    with pytest.raises(DiskError, match=words):
        plan(fs(1), fs(2, kind), looks=[Look(1)])
    assert plan(fs(1), fs(2, kind), looks=[Look(1, os_release=OS)]).root.number == 1


@pytest.mark.parametrize("facts", [{"partition": 2}, {}])
def test_an_encrypted_root_is_refused_however_it_was_found(facts: dict[str, Any]) -> None:
    with pytest.raises(DiskError, match="encrypted"):
        plan(fs(1), fs(2, "crypto_LUKS", parttype=ROOT_X86_64), **facts)


# ---- logical volumes

PV = fs(2, "LVM2_member")


def lv(path: str, kind: str | None = "ext4", **facts: Any) -> FileSystem:
    node = "/dev/mapper/" + path.replace("-", "--").replace("/", "-")
    return FileSystem(2, node, 1 << 20, type=kind, volume=path, **{"uuid": f"uuid-{path}", **facts})


def test_a_boot_partition_and_a_root_on_a_volume() -> None:
    text = "/dev/mapper/vg-root / xfs\nUUID=uuid-1 /boot ext4\n/dev/vg/var /var ext4\nUUID=uuid-vg/home /home ext4\n/dev/vg/swap none swap\n"
    volumes = [lv("vg/root", "xfs"), lv("vg/var"), lv("vg/home"), lv("vg/swap", "swap"), lv("vg/rest")]
    looks = [Look(1), Look(2, volume="vg/root", fstab=text, os_release=OS), Look(2, volume="vg/var")]
    found = plan(fs(1), PV, *volumes, looks=looks)
    assert [(each.place, each.path) for each in found.mounts] == [
        ("vg/root", "/"),
        (1, "/boot"),
        ("vg/var", "/var"),
        ("vg/home", "/home"),
    ]
    assert found.root.options == ("nouuid",)
    assert found.unused == ("the logical volume vg/rest (ext4)",)


def test_the_only_file_system_is_on_a_volume() -> None:
    found = plan(fs(1, "vfat"), PV, lv("vg/root"))
    assert (found.root.place, found.by) == ("vg/root", "the only Linux file system")


@pytest.mark.parametrize("device", ["/dev/my-vg/root-lv", "/dev/mapper/my--vg-root--lv"])
def test_the_user_names_a_volume(device: str) -> None:
    found = (DISK, fs(1), PV, lv("my-vg/root-lv"), lv("my-vg/other"))
    choice = discovery.candidates(found, lvm_root_device=device)
    chosen = discovery.plan(found, choice, [])
    assert (chosen.root.place, chosen.by) == ("my-vg/root-lv", "its name, as it was asked for")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("/dev/vg/nosuch", "no logical volume vg/nosuch: its logical volumes are: vg/root, vg/thin"),
        ("/dev/sda2", "/dev/sda2, asked for as the root, is not the name of a logical volume"),
        ("/dev/vg/thin", "the logical volume vg/thin cannot be mounted as the root: it is a thin volume"),
    ],
)
def test_the_user_names_a_volume_that_cannot_be(device: str, words: str) -> None:
    there = (DISK, PV, lv("vg/root"), lv("vg/thin", None, problem="is a thin volume"))
    with pytest.raises(DiskError, match=words):
        discovery.candidates(there, lvm_root_device=device)


def test_a_physical_volume_is_no_root_and_its_volumes_are_listed() -> None:
    with pytest.raises(DiskError, match=r"it is a physical volume of LVM.*: vg/root") as caught:
        plan(fs(1), PV, lv("vg/root"), partition=2)
    assert "lvm_root_device" in str(caught.value)


def test_a_damaged_physical_volume_is_said_only_if_it_is_needed() -> None:
    damaged = fs(2, "LVM2_member", problem="is a physical volume of LVM that cannot be read: x")
    assert plan(fs(1), damaged, looks=[Look(1, os_release=OS)]).root.place == 1
    with pytest.raises(DiskError, match="cannot be read: x"):
        plan(fs(1), damaged, looks=[Look(1)])
    with pytest.raises(DiskError, match="cannot be read: x"):
        plan(damaged)


def test_a_line_that_needs_a_volume_that_cannot_be_used() -> None:
    thin = lv("vg/thin", None, problem="is a thin volume")
    with pytest.raises(DiskError, match="which cannot be mounted: it is a thin volume"):
        mounted("/dev/vg/thin /x ext4", PV, thin)
    assert why_skipped("/dev/vg/thin /x ext4 nofail", PV, thin) == "nofail, and it is a thin volume"


def test_an_encrypted_volume_is_refused() -> None:
    with pytest.raises(DiskError, match=r"volume vg/root .*is encrypted"):
        plan(fs(1, "vfat"), PV, lv("vg/root", "crypto_LUKS"))


def test_two_roots_on_volumes_are_listed_with_what_to_do() -> None:
    looks = [Look(2, volume=f"vg/{name}", os_release=OS) for name in ("a", "b")]
    with pytest.raises(DiskError, match=r"the logical volume vg/a \(Test OS\)\n.*vg/b") as caught:
        plan(PV, lv("vg/a"), lv("vg/b"), looks=looks)
    assert "lvm_root_device" in str(caught.value)


# ---- subvolumes


def subvolumes(*names: str, default: str = "", fstab: str = "") -> list[Look]:
    """A btrfs with a system in each of these subvolumes."""
    rows = [Look(1, subvolume=name, default=False, fstab=fstab, os_release=OS) for name in names]
    first = next((row for row in rows if row.subvolume == default), Look(1))
    return [Look(1, subvolume=default, fstab=first.fstab, os_release=first.os_release), *rows]


def test_the_default_subvolume_is_the_root() -> None:
    found = plan(fs(1, "btrfs"), looks=subvolumes("@", default="@", fstab="UUID=uuid-1 / btrfs subvol=@"))
    assert found.root.options == ()


def test_the_subvolume_that_fstab_names_is_the_root() -> None:
    looks = subvolumes("@", "@snapshot", fstab="UUID=uuid-1 / btrfs subvol=/@,compress=zstd")
    assert plan(fs(1, "btrfs"), looks=looks).root.options == ("subvol=@",)


def test_the_only_subvolume_with_a_system_is_the_root() -> None:
    assert plan(fs(1, "btrfs"), looks=subvolumes("root")).root.options == ("subvol=root",)


def test_two_subvolumes_that_could_be() -> None:
    with pytest.raises(DiskError, match="partition 1, subvolume b") as caught:
        plan(fs(1, "btrfs"), looks=subvolumes("a", "b"))
    assert "`mount_options: [subvol=…]`" in (caught.value.hint or "")


def test_the_users_subvolume_goes_before_all() -> None:
    looks = [Look(1, subvolume="b", os_release=OS)]
    assert plan(fs(1, "btrfs"), looks=looks, options=["noatime,subvol=b"]).root.options == ()


def test_other_subvolumes_are_mounted_as_fstab_says() -> None:
    text = "UUID=uuid-1 / btrfs subvol=@\nUUID=uuid-1 /home btrfs subvol=@home,noatime"
    found = plan(fs(1, "btrfs"), looks=subvolumes("@", fstab=text))
    assert [(each.number, each.path, each.options) for each in found.others] == [
        (1, "/home", ("subvol=@home", "noatime"))
    ]


# ---- what else is mounted


@pytest.mark.parametrize(
    "source",
    ["UUID=UUID-2", "PARTUUID=part-2", "LABEL=b", 'PARTLABEL="p l"', "/dev/disk/by-label/b",
     r"/dev/disk/by-partlabel/p\134x20l", "/dev/sda2", "/dev/vda2", "/dev/nvme0n1p2"],
)  # fmt: skip
def test_each_kind_of_name(source: str) -> None:
    text = source.replace(" ", "\\040") + " /boot ext4"
    assert mounted(text, fs(2, label="b", partlabel="p l")) == [(2, "/boot")]


def test_order_is_by_depth() -> None:
    text = "UUID=uuid-3 /boot/efi vfat umask=0077\nUUID=uuid-4 /var/log ext4\nUUID=uuid-2 /boot ext4\n"
    assert mounted(text, fs(2), fs(3, "vfat"), fs(4)) == [(2, "/boot"), (3, "/boot/efi"), (4, "/var/log")]


def test_options_that_only_speak_of_booting_are_left_out() -> None:
    text = "UUID=uuid-2 /var ext4 defaults,noatime,nofail,x-systemd.growfs,discard,X-mount.mkdir,comment=x,ro"
    found = plan(fs(1), fs(2), partition=1, looks=[Look(1, fstab=text)])
    assert found.others[0].options == ("noatime", "discard", "ro")


def test_xfs_is_always_mounted_whatever_has_its_uuid() -> None:
    text = "UUID=uuid-2 /var xfs noatime"
    found = plan(fs(1, "xfs"), fs(2, "xfs"), partition=1, looks=[Look(1, fstab=text)])
    assert [each.options for each in found.mounts] == [("nouuid",), ("noatime", "nouuid")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("UUID=uuid-2 none swap sw", "swap"),
        ("/swap.img none swap sw", "swap"),
        ("tmpfs /tmp tmpfs", "tmpfs is on no disk"),
        ("/srv /home none bind", "a bind mount"),
        ("host:/x /y nfs", "a network file system"),
        ("UUID=uuid-2 /y ext4 noauto", "noauto"),
        ("/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto", "noauto"),
        ("UUID=nosuch /y ext4 nofail", "nofail, and not on this disk"),
        (
            "/dev/disk/cloud/azure_resource-part1 /mnt auto defaults,nofail,comment=cloudconfig",
            "nofail, and not on this disk",
        ),
        ("/dev/sdc2 /data ext4 nofail", "nofail, and not on this disk"),
    ],
)
def test_what_is_left_out_and_why(text: str, why: str) -> None:
    assert why_skipped(text, fs(2)) == why


def test_a_mount_on_first_use_is_a_mount() -> None:
    assert mounted("UUID=uuid-2 /boot ext4 noauto,x-systemd.automount", fs(2)) == [(2, "/boot")]


@pytest.mark.parametrize("source", ["UUID=nosuch", "/dev/sdb2", "/dev/disk/by-id/x", "LABEL=B"])
def test_what_is_needed_and_not_here_is_an_error(source: str) -> None:
    with pytest.raises(DiskError) as caught:
        mounted(f"# one\n{source} /data ext4", fs(2, label="b"))
    assert f"line 2 of the image's /etc/fstab mounts {source} on /data, which is not on this disk" in str(caught.value)
    assert "nofail" in str(caught.value)


def test_the_roots_own_line_tells_the_disks_name() -> None:
    assert mounted("/dev/sdb1 / ext4\n/dev/sdb2 /boot ext4", fs(2)) == [(2, "/boot")]


def test_a_volume_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(DiskError, match="its logical volumes of LVM are: none"):
        mounted("/dev/mapper/vg-var /var ext4", fs(2, "LVM2_member"))


def test_a_name_that_two_have_is_an_error() -> None:
    with pytest.raises(DiskError, match=r"not clear.*partition 2.*and partition 3"):
        mounted("LABEL=x /x ext4", fs(2, label="x"), fs(3, label="x"))


def test_what_cannot_be_mounted_is_an_error_unless_nofail() -> None:
    with pytest.raises(DiskError, match="it is crypto_LUKS"):
        mounted("UUID=uuid-2 /x ext4", fs(2, "crypto_LUKS"))
    assert why_skipped("UUID=uuid-2 /x ext4 nofail", fs(2, "crypto_LUKS")) == "nofail, and it is crypto_LUKS"


def test_ubuntus_image_for_azure() -> None:
    text = (
        "LABEL=cloudimg-rootfs\t/\t ext4\tdiscard,commit=30,errors=remount-ro\t0 1\n"
        "LABEL=BOOT\t/boot\text4\tdefaults\t0 2\n"
        "LABEL=UEFI\t/boot/efi\tvfat\tumask=0077\t0 1\n"
        "/dev/disk/cloud/azure_resource-part1\t/mnt\tauto\tdefaults,nofail,x-systemd.after=cloud-init.service\t0\t2\n"
    )
    parts = [fs(1, label="cloudimg-rootfs"), fs(14, None), fs(15, "vfat", label="UEFI"), fs(16, label="BOOT")]
    looks = [Look(1, fstab=text, os_release='PRETTY_NAME="Ubuntu 24.04"\n'), Look(16)]
    found = plan(*parts, looks=looks)
    assert [(each.number, each.path) for each in found.mounts] == [(1, "/"), (16, "/boot"), (15, "/boot/efi")]
    assert found.others[1].options == ("umask=0077",)
    assert [each.path for each in found.skipped] == ["/mnt"]


@pytest.mark.parametrize(
    "option",
    ["logdev=/run/azchroot/host-dev/sda", '"logdev=/x"', "journal_dev=0x800", "device=/dev/sdb", "loop", "rbind,ro",
     "X-y,move", "remount", "new_option=/dev/sdb"],
)  # fmt: skip
def test_no_option_leads_to_another_device(option: str) -> None:
    """The image's fstab is an image's, and the build machine mounts by it."""
    if "bind" not in option:
        with pytest.raises(DiskError, match=r"cannot be mounted: it has the option .*, which leads to another device"):
            mounted(f"LABEL=x /srv xfs defaults,{option}\n", fs(2, "xfs", label="x"))
    assert why_skipped(f"LABEL=x /srv xfs nofail,{option}\n", fs(2, "xfs", label="x"))
