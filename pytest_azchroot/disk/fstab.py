"""What an image says of itself: fstab(5) and os-release(5). Pure: text in, values out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_azchroot.disk import lvm_mapper

_OCTAL = re.compile(rb"\\([0-7]{3})")
_HEX = re.compile(r"(?:\\x[0-9a-fA-F]{2})+")
_TAG = re.compile(r"(UUID|LABEL|PARTUUID|PARTLABEL|ID)=(.*)", re.DOTALL)
_LINK = re.compile(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.+)")
_MAPPER = re.compile(r"/dev/(?:mapper/|disk/by-id/dm-name-)([^/]+)")
_VOLUME = re.compile(r"/dev/(?!block/|bus/|char/|cciss/|disk/|fd/|ida/|mapper/|md/|ram/|zd/)([^/]+/[^/]+)")
_DEVICE = re.compile(r"/dev/((?:sd|vd|hd|xvd)[a-z]+|(?:nvme\d+n|mmcblk|loop)\d+)(?:(?<=\d)p)?(\d+)?")

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "sshfs", "s3fs", "ceph", "glusterfs", "9p", "afs", "davfs"})
_NO_DISK = frozenset(
    {"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
     "fusectl", "hugetlbfs", "mqueue", "none", "overlay", "proc", "pstore", "ramfs", "securityfs", "selinuxfs", "sysfs",
     "tmpfs", "tracefs", "virtiofs"}
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """What a line wants to mount, taken apart."""

    kind: str
    """``uuid``, ``label``, ``partuuid``, ``partlabel``; ``device`` for the likes of ``/dev/sda1``; ``volume`` for the
    likes of ``/dev/mapper/vg-lv`` and ``/dev/vg/lv``; ``other``."""
    value: str
    """For a device the disk's name, ``sda``; for a volume its path, ``vg/lv``."""
    number: int | None = None
    """For a device the partition; 0 is the disk."""


@dataclass(frozen=True)
class Line:
    """One line of fstab. Missing fields have the defaults of fstab(5)."""

    source: str
    path: str
    type: str
    options: tuple[str, ...]
    line: int
    """Its number, from 1."""

    def has(self, *names: str) -> bool:
        """Whether one of these options is set, with or without a value."""
        return any(option.partition("=")[0] in names for option in self.options)

    def value(self, name: str) -> str | None:
        """The last value of an option, as for mount(8)."""
        found = [option.partition("=")[2] for option in self.options if option.startswith(f"{name}=")]
        return found[-1] if found else None

    @property
    def is_swap(self) -> bool:
        """Whether it is no mount at all."""
        return self.type == "swap" or not self.path.startswith("/")

    @property
    def is_network(self) -> bool:
        """Whether its file system is elsewhere."""
        remote = self.source.startswith("//") or re.match(r"[^/=]+:/", self.source) is not None
        kinds = {self.type, *self.type.split(".")}  # fuse.sshfs
        return bool(kinds & _NETWORK) or self.has("_netdev") or remote

    @property
    def is_bind(self) -> bool:
        """Whether it shows another place of the tree."""
        return self.has("bind", "rbind") or self.type == "bind"

    @property
    def has_no_disk(self) -> bool:
        """Whether the kernel makes its file system from nothing."""
        return self.type in _NO_DISK


def parse(text: str) -> tuple[Line, ...]:
    r"""The lines of an fstab but comments and those without a mount point; ``\040`` and the like are decoded."""
    return tuple(_lines(text))


def _lines(text: str) -> Iterator[Line]:
    for number, raw in enumerate(text.split("\n"), start=1):
        fields = raw.split()
        if len(fields) < 2 or fields[0].startswith("#"):
            continue
        kind, options, *_ = [*fields[2:], *("auto", "defaults")[max(0, len(fields) - 2) :]]
        source, path, kind, options = map(_decoded, (fields[0], fields[1], kind, options))
        yield Line(source, _clean(path), kind, tuple(filter(None, options.split(","))), number)


def _decoded(field: str) -> str:
    # bytes, not characters: an umlaut is two escapes
    data = field.encode(errors="surrogateescape")
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), data).decode(errors="surrogateescape")


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part) if path.startswith("/") else path


def source(text: str) -> Source:
    """Take a source apart: tags with or without quotes, links of udev, names of disks, partitions and volumes."""
    if tag := _TAG.fullmatch(text):
        value = tag[2]
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        return Source(tag[1].lower(), value) if tag[1] != "ID" else Source("other", text)
    if link := _LINK.fullmatch(text):
        return Source(link[1], _unhex(link[2]))
    if device := _DEVICE.fullmatch(text):
        name, number = device[1], device[2]
        return Source("device", name, int(number or 0))
    if mapped := _MAPPER.fullmatch(text):
        volume = lvm_mapper.split(_unhex(mapped[1]))
        return Source("other", text) if volume is None else Source("volume", "/".join(volume))
    if path := _VOLUME.fullmatch(text):
        return Source("volume", path[1])
    return Source("other", text)


def _unhex(name: str) -> str:
    r"""A name as udev writes it: other bytes than the harmless ones as ``\x20``."""

    def decode(match: re.Match[str]) -> str:
        return bytes.fromhex(match[0].replace("\\x", "")).decode(errors="surrogateescape")

    return _HEX.sub(decode, name)


def os_release(text: str) -> dict[str, str]:
    """The assignments of os-release(5), without their quotes. Lines that a shell could not read are left out."""
    found = {}
    for raw in text.splitlines():
        name, equals, value = raw.strip().partition("=")
        if not equals or name.startswith("#"):
            continue
        try:
            words = shlex.split(value)
        except ValueError:
            continue
        found[name] = words[0] if words else ""
    return found
