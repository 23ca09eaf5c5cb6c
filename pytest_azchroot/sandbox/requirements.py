"""What the sandbox needs of the machine, asked before anything is made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pytest_azchroot.disk.loop import CONTROL

from . import capabilities, environment

_TOOLS = {"partx": "util-linux", "blkid": "util-linux", "mount": "mount", "sh": "dash"}
"""Tool → the Debian package that has it."""

_ALL_USERS = ["0", "0", str(2**32 - 1)]
_LINUX = (5, 12)  # mount_setattr

# in a process of its own: what is unshared cannot be shared again
_TRIAL = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x20000 | 0x4000000 | 0x8000000 | 0x20000000) != 0)"


def requirements() -> list[str]:
    """What is missing here, a sentence each, with what to do; empty if all is there."""
    privileges = _privileges()
    return [*_kernel(), *privileges, *([] if privileges else _namespaces()), *_loop_devices(), *_tools()]


def _kernel() -> list[str]:
    release = os.uname().release
    version = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    return [] if version >= _LINUX else [f"Linux {release} is too old: 5.12 or newer is needed"]


def _privileges() -> list[str]:
    if os.geteuid() != 0:
        return ["mounting an image needs root: run as root, or under sudo"]
    if Path("/proc/self/uid_map").read_text(encoding="ascii").split() != _ALL_USERS:
        return ["root of a user namespace cannot mount disks: run as root of the machine, not in a rootless container"]
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    missing = capabilities.missing(int(found[1], 16)) if found else []
    return [f"{name} is missing: in a container, run with --privileged or --cap-add" for name in missing]


def _namespaces() -> list[str]:
    trial = subprocess.run([sys.executable, "-I", "-S", "-c", _TRIAL], check=False, capture_output=True)
    if trial.returncode == 0:
        return []
    what = "PID, mount, IPC and UTS namespaces cannot be made"
    profiles = "with seccomp and AppArmor profiles that allow unshare and mount"
    return [f"{what}: in a container, run with --privileged, or {profiles}"]


def _loop_devices() -> list[str]:
    if os.path.exists(CONTROL):
        return []
    return [f"{CONTROL} is missing: load the kernel module (modprobe loop), or pass the device into the container"]


def _tools() -> list[str]:
    path = environment.outside(os.environ)["PATH"]
    return [
        f"{tool} is not installed: apt-get install {package}"
        for tool, package in _TOOLS.items()
        if shutil.which(tool, path=path) is None
    ]
