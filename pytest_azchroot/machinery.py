"""What dead builds left in this machine's kernel: devices of device-mapper, and control groups.

Both are ours by their names alone; a sandbox that lives has its device open, and a process in its group.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_azchroot.disk import lvm_mapper
from pytest_azchroot.errors import AzchrootError, UnavailableError
from pytest_azchroot.removal import Outcome, Removal
from pytest_azchroot.sandbox import syscalls

_DEVICE = re.compile(rf"{lvm_mapper.PREFIX}[0-9a-f]{{32}}")
_GROUP = re.compile(r"azchroot-[0-9a-f]{8}")
_CONTROL = Path("/dev/mapper/control")
_DEVICES = Path("/sys/block")
_APART = 1.0
"""Seconds. A living sandbox opens its device, and enters its group, a few system calls after it has made it."""


def find() -> list[Removal]:
    """Devices that nobody has open, and groups without processes, now and a second ago.

    :raises UnavailableError: this user may not look.
    """
    if os.geteuid() != 0:
        raise UnavailableError("devices and control groups were not looked at", why="only root can")
    before = _idle_devices(), _empty_groups()
    if any(before):
        time.sleep(_APART)
    devices, groups = before[0] & _idle_devices(), before[1] & _empty_groups()
    return [
        *(Removal("delete", "device", name, "nobody has it open: its build is dead") for name in sorted(devices)),
        *(Removal("delete", "group", path, "no process is in it: its build is dead") for path in sorted(groups)),
    ]


def remove(step: Removal) -> Outcome:
    """Carry out a step."""
    ways: dict[str, Callable[[str], None]] = {"device": _remove_device, "group": _remove_group}
    try:
        ways[step.kind](step.id)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENXIO}:
            return Outcome(step, AzchrootError(f"the {step.kind} {step.id} cannot be removed", why=error.strerror))
    return Outcome(step)


def _idle_devices() -> set[str]:
    names = set()
    for file in _DEVICES.glob("dm-*/dm/name"):
        with contextlib.suppress(FileNotFoundError):  # it goes just now
            names.add(file.read_text(encoding="ascii", errors="replace").strip())
    idle = set()
    for name in names:
        if _DEVICE.fullmatch(name):
            with contextlib.suppress(OSError):  # it is gone, or nobody lets us ask
                if _ask(lvm_mapper.STATUS, name).open_count == 0:
                    idle.add(name)
    return idle


def _remove_device(name: str) -> None:
    _ask(lvm_mapper.REMOVE, name, announced=True)


def _ask(operation: int, name: str, *, announced: bool = False) -> lvm_mapper.Status:
    number, data = lvm_mapper.request(operation, name, announced=announced)
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(control, number, data)
    finally:
        os.close(control)
    return lvm_mapper.answer(bytes(data))


@contextlib.contextmanager
def _root() -> Iterator[int]:
    root = syscalls.detached_mount("cgroup2")
    try:
        yield root
    finally:
        os.close(root)


def _empty_groups() -> set[str]:
    """Paths from the root of the hierarchy that this machine shows us."""
    try:
        with _root() as root:
            return set(_empty(root))
    except OSError:  # there is no cgroup2, so there are no groups
        return set()


def _empty(root: int) -> Iterator[str]:
    for directory, names, _, descriptor in os.fwalk(".", dir_fd=root, onerror=None):
        for name in filter(_GROUP.fullmatch, names):
            with contextlib.suppress(OSError):  # it goes just now
                if _is_empty(descriptor, name):
                    yield os.path.normpath(os.path.join(directory, name))


def _is_empty(parent: int, name: str) -> bool:
    """Source: cgroups(7), "Cgroups v2 release notification": ``populated`` counts what is below, too."""
    file = os.open(f"{name}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent)
    with open(file, encoding="ascii") as events:
        return "populated 0" in events.read().splitlines()


def _remove_group(path: str) -> None:
    """A sandbox that is just beginning makes it again."""
    with _root() as root:
        os.rmdir(path, dir_fd=root)
