"""Whether somebody has written to a disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def mark(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """What changes with every write to a disk that is a file or a block device: compare two of them.

    Of a file its size and the time of its last change, which the kernel sets whatever way the bytes take: a write, a
    mapping, another loop device. Of a device the sectors written and discarded, those of its partitions included.

    :raises OSError: there is no such disk.
    """
    status = os.stat(path)
    if not stat.S_ISBLK(status.st_mode):
        return status.st_size, status.st_mtime_ns
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    fields = Path(f"/sys/dev/block/{number}/stat").read_text(encoding="ascii").split()
    return tuple(int(fields[place]) for place in (6, 13) if place < len(fields))  # Documentation/block/stat.rst
