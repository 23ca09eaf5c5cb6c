"""The sandbox: namespaces in which an image's disk is mounted, changed, and closed.

``caller → keeper → holder``: the caller executes the keeper (:mod:`.keeper`), which starts the holder
(:mod:`.holder`), PID 1 of namespaces of its own. Whoever dies, everything below dies, and the kernel takes mounts,
loop device and partitions away.

Only the standard library is imported here: the keeper runs without site-packages.
"""

from __future__ import annotations

from pytest_azchroot.disk.probe import FileSystem

from .chroot import Chroot
from .confinement import Confinement
from .requirements import requirements
from .result import CommandError, Completed, Process, Sealed, Unmounted, Write
from .sandbox import Sandbox

__all__ = [
    "Chroot",
    "CommandError",
    "Completed",
    "Confinement",
    "FileSystem",
    "Process",
    "Sandbox",
    "Sealed",
    "Unmounted",
    "Write",
    "requirements",
]
