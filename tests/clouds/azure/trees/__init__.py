"""Machines of Azure as a kernel and udev show them: YAML files here, made directories by :func:`grown`.

A node is a file that holds its number, for real ones cannot be had: :func:`number_in` reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from pytest_azchroot.clouds.azure.blocks import Roots

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.yaml"))
GIB = 1024**3


@dataclass
class Tree:
    """A machine that can be changed."""

    directory: Path
    text: dict[str, Any]
    sequence: Iterator[int]

    @property
    def roots(self) -> Roots:
        """Where it is."""
        return Roots(self.directory / "dev", self.directory / "sys", number=number_in)

    @property
    def luns(self) -> dict[int, str]:
        """The names of its data disks, as they should be found."""
        found: dict[int, str] = self.text["luns"]
        return found

    def node(self, name: str) -> Path:
        """In ``/dev``."""
        return self.roots.dev / name

    def plug(self, name: str, **changes: Any) -> None:
        """Let a disk of the description come, or another one like it."""
        disk = self.text["disks"][name] | changes
        home = self._home(name, disk)
        _write(home / "size", disk["gib"] * GIB // 512)
        if self.text.get("counts", True):
            _write(home / "diskseq", next(self.sequence))
        if "nsid" in disk:
            _write(home / "nsid", disk["nsid"])
        controller = self._controller(name, disk)
        _link(home / "device", controller)
        self._show(name, home, disk.get("number"))
        for number, device in disk.get("partitions", {}).items():
            part = f"{name}{'p' if name[-1].isdigit() else ''}{number}"
            _write(home / part / "partition", number)
            _write(home / part / "size", 2048)
            self._show(part, home / part, device)

    def unplug(self, name: str) -> None:
        """Let a disk leave. Links to it stay, as if udev had not come to it yet."""
        for entry in [*(self.roots.sys / "class/block").iterdir(), *(self.roots.sys / "dev/block").iterdir()]:
            if name in entry.resolve().parts:
                entry.unlink()
        for path in self.roots.dev.glob(f"{name}*"):
            path.unlink()

    def link(self, link: str, target: str) -> None:
        """Make or change a link in ``/dev``."""
        path = self.roots.dev / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def without_links(self) -> None:
        """No udev."""
        for link in self.text["links"]:
            (self.roots.dev / link).unlink()

    def _controller(self, name: str, disk: dict[str, Any]) -> Path:
        """What a disk's ``device`` leads to."""
        controller = self.text["controllers"][disk["at"]]
        home: Path = self.roots.sys / controller["path"]
        if "device_id" in controller:
            _write(home / "device_id", controller["device_id"])
        if "nsid" in disk:
            home = home / disk["at"] if controller.get("virtual") else home / "nvme" / disk["at"]
            _write(home / "model", controller["model"])
            return home
        address: str = disk["address"]
        host, _, target, _ = address.split(":")
        return home / f"host{host}/target{host}:0:{target}" / address

    def _home(self, name: str, disk: dict[str, Any]) -> Path:
        controller = self._controller(name, disk)
        return controller / name if "nsid" in disk else controller / "block" / name

    def _show(self, name: str, home: Path, number: str | None) -> None:
        _link(self.roots.sys / "class/block" / name, home)
        if number is not None:
            _write(home / "dev", number)
            _link(self.roots.sys / "dev/block" / number, home)
            _write(self.node(name), number)


def grown(name: str, directory: Path) -> Tree:
    """A machine by the name of its file, all disks plugged."""
    text = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8"))
    tree = Tree(directory, text, count(7))
    for disk in text["disks"]:
        tree.plug(disk)
    for link, target in text["links"].items():
        tree.link(link, target)
    return tree


def number_in(path: Path) -> int | None:
    """In place of ``st_rdev``."""
    try:
        major, _, minor = path.read_text(encoding="ascii").partition(":")
    except (FileNotFoundError, IsADirectoryError):
        return None
    return os.makedev(int(major), int(minor)) if minor else None


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n", encoding="ascii")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))
