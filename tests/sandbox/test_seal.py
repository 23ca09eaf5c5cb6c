"""After the seal nothing that runs in the image, or reads it, changes the disk."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_azchroot.disk import loop
from pytest_azchroot.errors import DirtyImageError, SandboxError
from pytest_azchroot.sandbox import Sandbox, Write, starting
from pytest_azchroot.sandbox.testinfra import make_host

from .machine import is_alive, loops_below, run

pytestmark = pytest.mark.root

ROOT_SIZES = {"ext4": 64, "btrfs": 128, "xfs": 300}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slowly(path)


def _slowly(path: Path) -> str:
    return run("sha256sum", path).split()[0]


def _writes(sandbox: Sandbox) -> dict[str, str]:
    return {write.path: write.kind for write in sandbox.writes()}


@pytest.fixture
def whole(request: pytest.FixtureRequest, tmp_path: Path, userland: Path) -> Iterator[tuple[Sandbox, Path]]:
    """A mounted image with a root of some kind, and /boot and /var of their own."""
    kind: str = request.param
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate((ROOT_SIZES[kind] + 34) << 20)
    table = f"label: gpt\nsize=16M\nsize=16M\nsize={ROOT_SIZES[kind]}M\n"
    subprocess.run(["sfdisk", "--quiet", path], input=table, text=True, check=True, stdout=subprocess.DEVNULL)
    with Sandbox.start(path, hostname="image") as sandbox:
        sandbox.outside(["mkfs.ext4", "-q", sandbox.partition(1)])
        sandbox.outside(["mkfs.ext4", "-q", sandbox.partition(2)])
        sandbox.outside([f"mkfs.{kind}", "-q", sandbox.partition(3)])
        sandbox.mount(sandbox.partition(3))
        sandbox.mount(sandbox.partition(1), path=f"{sandbox.mount_path}/boot")
        sandbox.mount(sandbox.partition(2), path=f"{sandbox.mount_path}/var")
        sandbox.outside(["cp", "-a", f"{userland}/.", sandbox.mount_path])
        sandbox.lend(None)
        sandbox.write("/etc/motd", b"shipped\n")
        sandbox.write("/boot/kernel", b"kernel\n")
        sandbox.inside("mkdir -p /var/lib/app && echo data >/var/lib/app/data && chmod 2750 /var/lib/app")
        sandbox.inside("chmod 711 /; chown worker:extra /boot; chmod 1755 /var")
        yield sandbox, path
    assert loops_below(tmp_path) == []


HOSTILE = """
rm -rf /etc /var/lib /boot/kernel /opt
mkdir /etc && echo mine >/etc/passwd
dd if=/dev/zero of=/usr/bin/installed bs=1M count=3 2>/dev/null
chmod 000 /home/worker; chown 77 /bin/busybox; mv /root /elsewhere
ln -s /nosuch /boot/link
for d in /dev/image /dev/image1 /dev/image2 /dev/image3; do
    dd if=/dev/zero of=$d bs=4096 count=1 conv=notrunc 2>>/tmp/errors && echo "wrote to $d"
done
setsid sleep 1000 &
setsid sh -c 'trap "" TERM; cd /var; while :; do sleep 0.1; done' &
sync
"""


@pytest.mark.parametrize("whole", ["ext4", "xfs", "btrfs"], indirect=True)
def test_hostile_checks_change_nothing(whole: tuple[Sandbox, Path]) -> None:
    sandbox, path = whole
    sandbox.seal()
    before = _hash(path)
    assert sandbox.inside("cat /etc/motd /boot/kernel /var/lib/app/data").stdout == "shipped\nkernel\ndata\n"
    assert sandbox.inside("stat -c %a /var/lib/app").stdout == "2750\n"
    assert sandbox.inside("stat -c '%a %u' / /boot /var").stdout == "711 0\n755 1234\n1755 0\n"
    done = sandbox.inside(["/bin/busybox", "sh", "-c", HOSTILE], check=False)
    assert "wrote to" not in done.stdout
    assert b"Operation not permitted" in sandbox.read("/tmp/errors")
    written = _writes(sandbox)
    assert written["/etc"] == "replaced"
    assert written["/etc/passwd"] == "written"
    assert written["/var/lib"] == "deleted"
    assert written["/boot/kernel"] == "deleted"
    assert written["/usr/bin/installed"] == "written"
    assert written["/home/worker"] == "touched"
    assert written["/bin/busybox"] == "touched"
    assert written["/boot/link"] == "written"
    assert not any(name.startswith(("/tmp", "/run", "/dev")) for name in written)
    assert sandbox.fresh_overlay() != ()
    assert sandbox.writes() == ()
    assert sandbox.inside("cat /etc/motd /boot/kernel /var/lib/app/data").stdout == "shipped\nkernel\ndata\n"
    sandbox.unmount()
    assert _hash(path) == before
    sandbox.close()
    assert _hash(path) == before


@pytest.mark.parametrize("whole", ["ext4", "xfs", "btrfs"], indirect=True)
def test_the_seal_says_what_it_did(whole: tuple[Sandbox, Path]) -> None:
    sandbox, _ = whole
    sandbox.inside("setsid sleep 1000 &")
    sealed = sandbox.seal()
    [survivor] = sealed.unmounted.survivors
    assert "sleep 1000" in survivor.command
    assert len(sealed.unmounted.checked) == 3
    assert [size is not None for _, size in sealed.unmounted.trimmed] == [True] * 3
    assert sealed.device == sandbox.device
    assert Path(f"/sys/block/{sandbox.device.removeprefix('/dev/')}/ro").read_text() == "1\n"
    assert sandbox.seal() is sealed


def test_what_was_deleted_is_not_in_the_disk_any_more(sandbox: Sandbox, disk: Path) -> None:
    sandbox.inside("yes secret | dd of=/opt/secret bs=1M count=8 2>/dev/null; sync; rm /opt/secret")
    sandbox.unmount()
    assert b"secret\nsecret\n" not in disk.read_bytes()


def test_everything_that_reads_and_writes_goes_to_the_merged_tree(sandbox: Sandbox, tmp_path: Path) -> None:
    host = make_host(sandbox, None)
    sandbox.write("/etc/motd", b"shipped\n")
    sandbox.seal()
    assert host.file("/etc/motd").content_string == "shipped\n"
    sandbox.write("/etc/motd", b"changed\n")
    (tmp_path / "file").write_text("put\n")
    sandbox.put(tmp_path / "file", "/opt/")
    assert host.file("/etc/motd").content_string == "changed\n"
    assert sandbox.read("/opt/file") == b"put\n"
    sandbox.get("/opt/file", tmp_path / "got")
    assert (tmp_path / "got").read_text() == "put\n"
    assert sandbox.outside(["cat", f"{sandbox.mount_path}/etc/motd"]).stdout == "changed\n"
    assert sandbox.writes() == (Write("/etc/motd", "written"), Write("/opt/file", "written"))
    sandbox.fresh_overlay()
    assert host.file("/etc/motd").content_string == "shipped\n"
    sandbox.unmount()
    sandbox.close()


def test_the_image_is_seen_as_it_ships(sandbox: Sandbox) -> None:
    sandbox.write("/etc/hostname", b"own\n")
    sandbox.copy_files(["/etc/hostname"])
    for cover in (sandbox.overlay, sandbox.fresh_overlay, sandbox.seal, sandbox.fresh_overlay):
        cover()
        assert sandbox.read("/etc/hostname") == b"own\n"
        assert "resolv.conf" not in sandbox.inside("ls -A /etc").stdout
        assert sandbox.inside("ls /dev/image1 /proc/self/stat /sys/block").code == 0
        assert sandbox.writes() == ()


def test_the_merged_tree_says_of_itself_what_the_image_would(sandbox: Sandbox) -> None:
    def says() -> list[str]:
        lines = sandbox.inside("head -n1 /proc/mounts; df -k / | tail -n1").stdout.splitlines()
        return [lines[0].split()[0], lines[1].split()[0], lines[1].split()[3]]

    for cover in (sandbox.overlay, sandbox.seal):
        cover()
        device, shown, free = says()
        assert device == shown == sandbox.partition(1)
        assert 0 < int(free) <= 40 << 10, "what is free on the disk, and not in memory"


def test_name_resolution_is_lent_on_demand(sandbox: Sandbox) -> None:
    sandbox.seal(resolv_conf="host")
    assert sandbox.read("/etc/resolv.conf") == Path("/etc/resolv.conf").read_bytes()
    assert sandbox.writes() == ()


@pytest.mark.parametrize(
    ("command", "written"),
    [
        ("touch /tmp/x /var/tmp /run/x; mkdir -p /var/log/x /var/cache; touch /var/log/x/y", {}),
        ("touch /etc/x; rm /etc/x", {}),
        ("touch /etc/passwd", {"/etc/passwd": "touched"}),
        ("chmod 700 /etc", {"/etc": "touched"}),
        ("echo x >>/etc/passwd", {"/etc/passwd": "written"}),
        ("ln /etc/passwd /etc/hard", {"/etc/passwd": "touched", "/etc/hard": "written"}),
        ("rm -r /usr; mkdir -p /usr/bin", {"/usr": "replaced"}),
        ("rm /bin/yes; mkdir /bin/yes", {"/bin/yes": "replaced"}),
        ("cat /etc/passwd /bin/busybox >/dev/null; find / -xdev -type f >/dev/null", {}),
    ],
)
def test_what_counts_as_a_write(sandbox: Sandbox, command: str, written: dict[str, str]) -> None:
    sandbox.inside("mkdir -p /var/tmp /tmp /var/cache /var/log")
    sandbox.overlay()
    sandbox.inside(command)
    assert _writes(sandbox) == written
    sandbox.inside("mkdir /etc/mine")
    assert _writes(sandbox)["/etc/mine"] == "written"


# ---- before the last step


def test_an_overlay_before_the_last_step(sandbox: Sandbox) -> None:
    sandbox.inside("setsid sh -c 'while :; do sleep 0.1; done' & echo first >/etc/step")
    sandbox.overlay()
    sandbox.overlay()
    assert sandbox.inside("cat /etc/step").stdout == "first\n"
    sandbox.inside("echo check >/etc/step; rm /etc/passwd; echo mine >/run/mine")
    assert _writes(sandbox) == {"/etc/step": "written", "/etc/passwd": "deleted"}
    sandbox.drop_overlay()
    sandbox.drop_overlay()
    assert sandbox.inside("cat /etc/step; test -e /etc/passwd; ls /run/mine || echo gone").stdout == "first\ngone\n"
    assert len(sandbox.survivors()) > 0, "what a step has started lives on"
    sandbox.inside("echo second >/etc/step")
    sandbox.overlay()
    assert sandbox.read("/etc/step") == b"second\n"
    sandbox.drop_overlay()
    with pytest.raises(SandboxError, match="there are no overlays"):
        sandbox.writes()
    sandbox.seal()
    assert sandbox.read("/etc/step") == b"second\n"


# ---- what was mounted is mounted again


def test_subvolumes_and_binds_by_hand(tmp_path: Path, userland: Path) -> None:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(160 << 20)
    with Sandbox.start(path, hostname="image") as sandbox:
        device = sandbox.device
        sandbox.outside(["mkfs.btrfs", "-q", device])
        sandbox.outside(
            f"mount {device} /mnt; btrfs -q subvolume create /mnt/@; btrfs -q subvolume create '/mnt/@a,b:c';"
            f"cp -a {userland}/. /mnt/@; mkdir /mnt/@/home/x /mnt/@/data; umount /mnt"
        )
        point = tmp_path / "a:b,c d"
        command = (
            f'f() {{ mkdir "$1"; mount -o subvol=@,nodev {device} "$1"; mount -o \'subvol=@a\\,b:c\' {device} "$1/data"'
            f' || mount --bind "$1/opt" "$1/data"; mount --bind "$1/etc" "$1/home/x"; mount -t tmpfs none "$1/opt"; }}; f'
        )
        sandbox.mount_manually(command, path=str(point))
        sandbox.lend(None)
        sandbox.inside("echo sub >/data/file; echo gone >/opt/file")
        sandbox.seal()
        assert sandbox.inside("cat /data/file; head -n1 /home/x/passwd; ls /opt").stdout.splitlines()[:2] == [
            "sub",
            "root:x:0:0:root:/root:/bin/sh",
        ]
        sandbox.inside("echo x >/home/x/new; echo x >/data/new; echo x >/etc/other")
        assert set(_writes(sandbox)) == {"/home/x/new", "/data/new", "/etc/other"}
        assert "nodev" in sandbox.inside("head -n1 /proc/mounts").stdout
        sandbox.unmount()
        sandbox.close()


def test_a_file_system_that_overlayfs_refuses_is_copied(
    disk: Path, userland: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from pytest_azchroot.sandbox import overlay; overlay.COPIED = {'ext2'}"
    monkeypatch.setattr(starting, "_BOOTSTRAP", starting._BOOTSTRAP.replace("main()", f"{code}; main()"))
    with Sandbox.start(disk, hostname="image") as sandbox:
        sandbox.outside(["sfdisk", "--quiet", "--append", sandbox.device], input="size=4M\n")
        sandbox.outside(["mkfs.ext2", "-q", sandbox.partition(2)])
        sandbox.mount(sandbox.partition(1))
        sandbox.mount(sandbox.partition(2), path=f"{sandbox.mount_path}/boot/efi", options=["noexec"])
        kind = sandbox.outside(["findmnt", "-no", "FSTYPE", f"{sandbox.mount_path}/boot/efi"]).stdout.strip()
        assert kind == "ext2"
        sandbox.write("/boot/efi/loader", b"shipped\n")
        sandbox.write("/boot/efi/other", b"shipped\n")
        sandbox.lend(None)
        sandbox.seal()
        assert sandbox.read("/boot/efi/loader") == b"shipped\n"
        assert "noexec" in sandbox.inside("grep /boot/efi /proc/mounts").stdout
        sandbox.inside("echo x >/boot/efi/loader; rm /boot/efi/other; echo x >/boot/efi/new")
        assert _writes(sandbox) == {
            "/boot/efi/loader": "written",
            "/boot/efi/other": "deleted",
            "/boot/efi/new": "written",
        }
        sandbox.fresh_overlay()
        assert sandbox.read("/boot/efi/loader") == b"shipped\n"


def test_what_cannot_be_mounted_again_is_refused(bare: Sandbox) -> None:
    node = bare.partition(1)
    bare.mount_manually(f"f() {{ mount {node} /mnt; mount --bind /mnt/etc $1; rm -r /mnt/etc; }}; f", path="/opt")
    with pytest.raises(DirtyImageError, match="has been removed"):
        bare.seal()


def test_a_root_from_elsewhere_is_refused(bare: Sandbox, userland: Path) -> None:
    bare.mount_manually(f"mount --bind {userland}", path="/mnt")
    with pytest.raises(DirtyImageError, match="no partition of its disk is mounted there"):
        bare.seal()


# ---- the disk


def test_another_program_may_take_the_loop_device(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # the holder takes the name of a device in use for the one it had
    before = sandbox.device
    code = f"""
from pytest_azchroot.disk import loop
bind = loop._bind
def other(path, **options):
    options["wanted"] = options["wanted"] and {before.removeprefix("/dev/")!r}
    return bind(path, **options)
loop._bind = other
"""
    twin = sandbox.outside(["mktemp"]).stdout.strip()
    run("cp", sandbox._backing or "", twin)
    monkeypatch.setattr(starting, "_BOOTSTRAP", starting._BOOTSTRAP.replace("main()", f"exec({code!r}); main()"))
    try:
        with Sandbox.start(Path(twin), hostname="twin") as second:
            second.mount(second.partition(1))
            assert second.seal().device not in {before, ""}
            assert second.inside("cat /etc/passwd").code == 0
            second.unmount()
            second.close()
    finally:
        os.unlink(twin)


def test_a_block_device_is_sealed_too(disk: Path) -> None:
    device = run("losetup", "--find", "--show", "--partscan", disk).strip()
    try:
        with Sandbox.start(Path(device), hostname="image") as sandbox:
            sandbox.mount(sandbox.partition(1))
            sandbox.lend(None)
            sandbox.seal()
            before = _hash(disk)
            assert sandbox.device != device
            name = sandbox.device.removeprefix("/dev/")
            dd = "dd if=/dev/zero of=/dev/image1 bs=4096 count=1 conv=notrunc"
            assert "Operation not permitted" in sandbox.inside(dd, check=False).output
            sandbox.unmount()
            sandbox.close()
        assert _hash(disk) == before
        assert loop.bound_to(name) is None
        assert loop.bound_to(device.removeprefix("/dev/")) == str(disk), "it is not ours to release"
    finally:
        run("losetup", "--detach", device)


def test_a_disk_without_a_name_is_sealed_too(disk: Path) -> None:
    with Sandbox.start(disk, hostname="image") as sandbox:
        disk.unlink()
        sandbox.mount(sandbox.partition(1))
        sandbox.seal()
        assert sandbox.inside("cat /etc/passwd").code == 0


# ---- a seal that fails


def test_a_failed_seal_is_the_answer_to_everything(sandbox: Sandbox, tmp_path: Path) -> None:
    root = f"/proc/{sandbox.holder}/root{sandbox.mount_path}"
    with subprocess.Popen(["sleep", "1000"], cwd=root) as process:
        try:
            with pytest.raises(DirtyImageError, match=f"{process.pid} .sleep 1000. holds cwd") as caught:
                sandbox.seal()
        finally:
            process.kill()
    (tmp_path / "file").touch()
    requests: list[Callable[[], object]] = [
        sandbox.seal,
        sandbox.unmount,
        sandbox.overlay,
        sandbox.fresh_overlay,
        sandbox.writes,
        sandbox.close,
        lambda: sandbox.inside("true"),
        lambda: sandbox.read("/etc/passwd"),
        lambda: sandbox.put(tmp_path / "file", "/etc/file"),
        lambda: sandbox.lend(None),
        lambda: sandbox.mount("/dev/image1"),
    ]
    for request in requests:
        with pytest.raises(DirtyImageError) as again:
            request()
        assert again.value is caught.value
    sandbox.outside("true")
    processes = [sandbox.keeper, sandbox.holder]
    sandbox.abort()
    assert not any(map(is_alive, processes))


def test_an_interrupted_seal_has_failed(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sandbox._checks, "wait_until_unused", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sandbox.seal()
    with pytest.raises(DirtyImageError, match="not sealed: interrupted"):
        sandbox.inside("true")


def test_a_damaged_file_system_does_not_seal(sandbox: Sandbox) -> None:
    node = sandbox.partition(1)
    sandbox.write("/opt/file", b"x" * 5000)
    sandbox.unmount()
    sandbox.outside(["debugfs", "-w", "-R", "clri /opt/file", node])
    sandbox.mount(node)
    with pytest.raises(DirtyImageError, match="is not clean"):
        sandbox.seal()


def test_a_busy_overlay_is_named(sandbox: Sandbox) -> None:
    sandbox.seal()
    root = f"/proc/{sandbox.holder}/root{sandbox.mount_path}"
    with subprocess.Popen(["sleep", "1000"], cwd=root) as process:
        try:
            with pytest.raises(DirtyImageError, match=f"{process.pid} .sleep 1000. holds cwd"):
                sandbox.unmount()
        finally:
            process.kill()
