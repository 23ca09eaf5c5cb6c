"""Partition tables made by real tools on sparse files, and the same damaged by hand."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from pytest_azchroot.disk import table
from pytest_azchroot.disk.partition import BytesReader, Partition, Table

MIB = 1 << 20

UBUNTU = """
label: gpt
14: size=3M, type=21686148-6449-6E6F-744E-656564454649
15: size=5M, type=uefi, name="EFI System Partition"
1: size=+, attrs="LegacyBIOSBootable GUID:63"
"""
"""The layout of Ubuntu's images for Azure: the root is number 1 and the last on the disk."""

LOGICAL = """
label: dos
label-id: 0x1234abcd
1: size=2M, type=83, bootable
2: size=10M, type=5
5: size=2M, type=82
6: size=3M, type=83
"""


def make(path: Path, script: str, *, size: int = 20 * MIB) -> Path:
    """A sparse disk with a table by sfdisk(8)."""
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["sfdisk", "--quiet", path], input=script, text=True, check=True, capture_output=True)
    return path


def make_4096(path: Path, keys: str, *, size: int = 20 * MIB) -> Path:
    """A sparse disk with sectors of 4096 bytes and a table by fdisk(8), which asks for keys."""
    with path.open("wb") as file:
        file.truncate(size)
    command: list[str | Path] = ["fdisk", "--sector-size", "4096", path]
    subprocess.run(command, input=keys, text=True, check=True, capture_output=True)
    return path


def read(data: Path | bytes) -> Table:
    """The table, which is to be there."""
    found = table.read(BytesReader(data if isinstance(data, bytes) else data.read_bytes()))
    assert found is not None
    return found


def by_sfdisk(path: Path) -> list[dict[str, Any]]:
    """What ``sfdisk --json`` says of a disk with sectors of 512 bytes, in the words of :func:`as_sfdisk`."""
    done = subprocess.run(["sfdisk", "--json", path], check=True, capture_output=True, text=True)
    rows = json.loads(done.stdout)["partitiontable"]["partitions"]
    return [
        {
            "number": int(row["node"].removeprefix(str(path))),
            "start": row["start"] * 512,
            "size": row["size"] * 512,
            "type": row["type"].lower(),
            "name": row.get("name"),
            "uuid": row["uuid"].lower() if "uuid" in row else None,
            "bootable": row.get("bootable", False) or "LegacyBIOSBootable" in row.get("attrs", ""),
        }
        for row in rows
    ]


def as_sfdisk(partition: Partition, *, kind: str) -> dict[str, Any]:
    """A partition of ours, in the same words. sfdisk has no UUIDs for MBR."""
    return {
        "number": partition.number,
        "start": partition.start,
        "size": partition.size,
        "type": partition.type.removeprefix("0x"),
        "name": partition.name,
        "uuid": partition.uuid if kind == "gpt" else None,
        "bootable": partition.bootable,
    }


def damaged(data: bytes, *places: int) -> bytes:
    """A copy in which the bytes at these places are others; negative ones count from the end."""
    copy = bytearray(data)
    for place in places:
        copy[place] ^= 0xFF
    return bytes(copy)
