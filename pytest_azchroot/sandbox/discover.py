"""Finding an image's root on its disk, and mounting it with all that its fstab says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_azchroot.disk import discovery
from pytest_azchroot.disk.discovery import Look
from pytest_azchroot.disk.mountplan import MountPlan
from pytest_azchroot.disk.probe import FileSystem
from pytest_azchroot.errors import SandboxError

from . import layout
from .sandbox import Sandbox

_SUBVOLUME = ("subvol=", "subvolid=")


def plan(
    sandbox: Sandbox,
    *,
    partition: int | None,
    lvm_root_device: str | None = None,
    options: Sequence[str] = (),
) -> MountPlan:
    """What to mount of the disk, in order. Each file system that may be the root is looked into, read-only.

    :param partition: the root, if the user names it.
    :param lvm_root_device: the same, if it is a logical volume.
    :param options: the user's for the root: a ``subvol=`` there decides.
    :raises DiskError: which one is the root is not clear, or something that its fstab needs is not on the disk.
    """
    filesystems = sandbox.filesystems()
    if any(each.type == "LVM2_member" for each in filesystems):
        sandbox.use_volumes()
        filesystems = sandbox.filesystems()
    choice = discovery.candidates(filesystems, partition=partition, lvm_root_device=lvm_root_device)
    words = [word for option in options for word in option.split(",")]
    subvolume = ",".join(word for word in words if word.startswith(_SUBVOLUME))
    looks = [look for each in choice.candidates for look in _looks(sandbox, each, subvolume)]
    return discovery.plan(filesystems, choice, looks, options=options)


def mount_all(
    sandbox: Sandbox,
    plan: MountPlan,
    *,
    path: str = layout.ROOT,
    options: Sequence[str] = (),
    wrapper: Callable[[str], str] | None = None,
) -> None:
    """Mount a plan: the root at ``path``, everything else below it.

    :param options: the user's, for the root alone.
    :param wrapper: what ``command_wrapper`` makes of each mount command.
    :raises SandboxError: a mount was refused; its words.
    """
    wrap = wrapper or (lambda command: command)
    own = [option for option in plan.root.options if option != "nouuid"]  # mount() sees to that
    sandbox.mount(sandbox.node(plan.root.place), path=path, options=[*own, *options], wrapper=wrap)
    top = sandbox.mount_path
    for each in plan.others:
        try:
            sandbox.mount(sandbox.node(each.place), path=f"{top}{each.path}", options=each.options, wrapper=wrap)
        except SandboxError as error:
            words = f"the image's /etc/fstab mounts {each.source} on {each.path}"
            why, hint = f"{words}\n{error.why or ''}".strip(), _hint(each.type) or error.hint
            raise SandboxError(error.what, why=why, hint=hint) from error


def _looks(sandbox: Sandbox, found: FileSystem, options: str) -> list[Look]:
    if found.type is None:
        return [Look(found.number, volume=found.volume)]
    try:
        rows = sandbox.look(found.node, found.type, options=options)
    except SandboxError as error:
        sandbox.filesystems()  # it raises if the sandbox has died, which is not the file system's fault
        # what this kernel cannot mount may still be no root: whoever needs it hears why it was not read
        return [Look(found.number, volume=found.volume, problem=error.why or error.what, remedy=error.hint)]
    return [Look(number=found.number, volume=found.volume, **row) for row in rows]


def _hint(kind: str | None) -> str | None:
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text("ascii").splitlines()}
    if kind is None or kind in known:
        return None
    return f"this machine's kernel has no {kind}: load the module (modprobe {kind}), or install the package that has it"
