"""Disks of several layouts, whose userland has a real dpkg."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_azchroot.sandbox import Sandbox

DPKG = ("dpkg", "dpkg-deb", "dpkg-query", "dpkg-split", "ldconfig", "start-stop-daemon", "tar")
APPLETS = ("chown", "dd", "diff", "find", "setsid", "sha256sum", "tail")


def dpkg(root: Path) -> None:
    """Put dpkg and what it needs into a userland of busybox. Its database is empty."""
    for applet in APPLETS:
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    for name in ("usr/bin", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log", "boot", "etc"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").touch()
    for program in DPKG:
        found = shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin")
        assert found, f"{program} is not installed"
        shutil.copy(found, root / "usr/bin" / program)
        linked = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)


def package(name: str, directory: Path) -> Path:
    """A package with a file of its own, whose configuration writes to /etc and /boot."""
    tree = directory / f"{name}.tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: n <n@example.org>\nDescription: {name}\n"
    (tree / "DEBIAN/control").write_text(control)
    script = tree / "DEBIAN/postinst"
    script.write_text(f"#!/bin/sh\nset -e\necho configured >/etc/{name}.conf\necho initrd >/boot/{name}.img\n")
    script.chmod(0o755)
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share" / name).write_text("content\n")
    path = directory / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, path], check=True, capture_output=True)
    shutil.rmtree(tree)
    return path


@dataclass(frozen=True)
class Layout:
    """What is where on a disk."""

    root: str
    """Its file system's type."""
    size: int
    """MiB of it."""
    others: Sequence[str] = ()
    """Directories that are partitions of their own."""
    subvolumes: Sequence[str] = ()
    """Directories that are subvolumes; then the root is one too."""


LAYOUTS = {
    "ext4": Layout("ext4", 64),
    "ext4 with boot and var": Layout("ext4", 64, ("boot", "var")),
    "xfs with boot and var": Layout("xfs", 300, ("boot", "var")),
    "btrfs with boot": Layout("btrfs", 128, ("boot",), ("var", "home")),
}


def make(path: Path, layout: Layout, userland: Path) -> Path:
    """A GPT disk that holds a userland, and an fstab that says where what is mounted."""
    with path.open("wb") as file:
        file.truncate((layout.size + 4 + 32 * len(layout.others)) << 20)
    sizes = [layout.size, *(32 for _ in layout.others)]
    table = "label: gpt\n" + "".join(f"size={size}M\n" for size in sizes)
    subprocess.run(["sfdisk", "--quiet", path], input=table, text=True, check=True, stdout=subprocess.DEVNULL)
    with Sandbox.start(path, hostname="image") as sandbox:
        sandbox.outside(["sh", "-ec", _script(sandbox, layout), "sh", str(userland)])
        sandbox.close()
    return path


def _script(sandbox: Sandbox, layout: Layout) -> str:
    """Mounts everything below /mnt of the sandbox, fills it, and unmounts it."""
    top, at = sandbox.partition(1), "/mnt"
    lines = [f"mkfs.{layout.root} -q {top}"]
    options = ""
    if layout.subvolumes:
        lines.append(f"mount {top} {at}; btrfs -q subvolume create {at}/@")
        lines += [f"btrfs -q subvolume create {at}/@{name}" for name in layout.subvolumes]
        lines.append(f"umount {at}")
        options = "-o subvol=@"
    lines += [f"mount {options} {top} {at}", f"mkdir {at}/etc"]
    rows = [(top, "/", layout.root, "subvol=@" if layout.subvolumes else "defaults")]
    rows += [(top, f"/{name}", layout.root, f"subvol=@{name}") for name in layout.subvolumes]
    for number, name in enumerate(layout.others, 2):
        lines.append(f"mkfs.ext4 -q {sandbox.partition(number)}")
        rows.append((sandbox.partition(number), f"/{name}", "ext4", "defaults"))
    lines += [f"mkdir -p {at}{point}; mount -o {words} {node} {at}{point}" for node, point, _, words in rows[1:]]
    lines.append(f'cp -a "$1/." {at}')
    uuid = "$(blkid -p -s UUID -o value {})"
    lines += [f"echo UUID={uuid.format(node)} {shlex.join(row)} >>{at}/etc/fstab" for node, *row in rows]
    lines.append(f"umount -R {at}")
    return "\n".join(lines)
