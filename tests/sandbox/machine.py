"""What the tests look at on the build machine: processes, loop devices, mounts."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T", str, bytes)
BUSYBOX = Path("/bin/busybox")
PARTITION_START = 1 << 20


def run(*argv: str | Path) -> str:
    """A tool of the build machine; its output."""
    return subprocess.run([str(part) for part in argv], check=True, capture_output=True, text=True).stdout


@contextmanager
def killed_at_last(process: subprocess.Popen[T]) -> Iterator[subprocess.Popen[T]]:
    """A program that may still run when a test is done with it, or has failed: Popen's own exit waits for its end."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def joined(thread: threading.Thread, *, patience: float = 60.0) -> None:
    """Wait for the end of a thread, but not for ever."""
    thread.join(patience)
    assert not thread.is_alive(), f"{thread.name} does not end"


def eventually(condition: Callable[[], bool], *, patience: float = 10.0) -> bool:
    """Whether a condition comes true; how soon does not matter."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def loops_below(directory: Path) -> list[str]:
    """Loop devices bound to files below a directory."""
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if entry.read_text().startswith(f"{directory}/"):
                found.append(entry.parts[3])
        except OSError:  # released just now
            continue
    return found


def partitions_of(loop: str) -> list[str]:
    """Partitions that the kernel has of a loop device."""
    return [entry.name for entry in Path(f"/sys/block/{loop}").glob(f"{loop}p*")]


def parent_of(pid: int) -> int | None:
    """The parent of a process, None if it has gone or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[1])


def children_of(pid: int) -> list[int]:
    """Direct children of a process."""
    everybody = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [each for each in everybody if parent_of(each) == pid]


def descendants_of(pid: int) -> list[int]:
    """Children and theirs."""
    return [each for child in children_of(pid) for each in (child, *descendants_of(child))]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return parent_of(pid) is not None
