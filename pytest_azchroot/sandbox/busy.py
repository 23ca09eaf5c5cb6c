"""Who keeps a file system in use: what umount(8) does not say."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from pytest_azchroot.disk import loop

from . import mounts

_LINKS = ("cwd", "root", "exe")


def users(devices: Collection[int], *, proc: str = "/proc") -> list[str]:
    """Processes, loop devices and swap of this machine that hold something on these devices (``st_dev``), a line each.

    Read in the caller's PID namespace, so it sees those of the sandbox and those outside that reached in.
    """
    found = []
    for entry in sorted(filter(str.isdecimal, os.listdir(proc)), key=int):
        holds = [what for what in _held(f"{proc}/{entry}", devices) if what]
        if holds:
            found.append(f"{entry} ({_command(f'{proc}/{entry}')}) holds {', '.join(holds[:5])}")
    loops = [f"loop device {each}" for each in loop.over_files_on(devices)]
    return [*found, *loops, *_swaps(devices)]


def _held(process: str, devices: Collection[int]) -> Iterator[str]:
    for name in _LINKS:
        if _device(f"{process}/{name}") in devices:
            yield f"{name} {_target(f'{process}/{name}')}"
    try:
        descriptors = os.listdir(f"{process}/fd")
    except OSError:  # it has ended, or is a kernel thread
        return
    for number in descriptors:
        if _device(f"{process}/fd/{number}") in devices:
            yield f"fd {number} {_target(f'{process}/fd/{number}')}"
    yield from _mapped(process, devices)


def _mapped(process: str, devices: Collection[int]) -> Iterator[str]:
    try:
        lines = Path(f"{process}/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    seen = set()
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6:
            major, minor = (int(part, 16) for part in fields[3].split(":"))
            if os.makedev(major, minor) in devices and fields[5] not in seen:
                seen.add(fields[5])
                yield f"map {fields[5]}"


def namespaces_with(device_numbers: Collection[str], *, proc: str = "/proc") -> list[str]:
    """Processes in whose mount namespace a device (``major:minor``) is mounted."""
    found = []
    for entry in sorted(filter(str.isdecimal, os.listdir(proc)), key=int):
        try:
            text = Path(f"{proc}/{entry}/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            continue
        points = [mount.point for mount in mounts.parse(text) if mount.device in device_numbers]
        if points:
            found.append(f"{entry} ({_command(f'{proc}/{entry}')}) sees it mounted at {', '.join(points[:3])}")
    return found


def _swaps(devices: Collection[int]) -> list[str]:
    lines = Path("/proc/swaps").read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    return [f"swap on {path}" for line in lines if _device(path := line.split()[0]) in devices]


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return "?"


def _command(process: str) -> str:
    try:
        line = (
            Path(f"{process}/cmdline").read_bytes().replace(b"\0", b" ").strip()
            or Path(f"{process}/comm").read_bytes().strip()
        )
    except OSError:
        return "?"
    return line.decode(errors="replace")
