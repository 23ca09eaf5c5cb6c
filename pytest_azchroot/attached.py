"""The image's disk on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pytest_azchroot.clouds import Disk
from pytest_azchroot.sandbox import Completed, Sandbox


@dataclass(frozen=True)
class AttachedDisk:
    """The image's disk on this machine: the value of the fixture ``disk``."""

    id: str
    """A path or a resource id, as the cloud names it."""
    size: int
    """Bytes."""
    source: str
    """Where its bytes came from."""
    device: str
    """Its block device, for commands that :meth:`run` runs."""
    partition: Callable[[int], str]
    """The node of a partition by number; 0 is the disk itself. Raises SandboxError where there is none."""
    run: Callable[..., Completed]
    """Runs a tool of the build machine that sees the disk's nodes: ``disk.run("mkfs.ext4", disk.partition(1))``."""


def attached(disk: Disk, sandbox: Sandbox, *, environment: Mapping[str, str]) -> AttachedDisk:
    """The disk that a sandbox holds.

    :param environment: variables for the commands that it runs.
    """
    return AttachedDisk(
        id=disk.id,
        size=disk.size,
        source=disk.source,
        device=sandbox.device,
        partition=sandbox.partition,
        run=_argv_or_string(partial(sandbox.outside, env=environment)),
    )


def _argv_or_string(run: Callable[..., Completed]) -> Callable[..., Completed]:
    """One string is a shell command; several arguments, or a list, are an argv."""

    def call(*command: Any, **options: Any) -> Completed:
        return run(command[0] if len(command) == 1 else list(command), **options)

    return call
