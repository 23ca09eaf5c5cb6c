"""Becoming a command, in the image or beside it. This is what runs between fork and exec."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_azchroot.errors import SandboxError

from . import archive, capabilities, cgroup, namespaces, seccomp, syscalls
from .passwd import Accounts, UnknownNameError, User

_BIG_ENOUGH = 1 << 24


@dataclass(frozen=True)
class Command:
    """What to execute."""

    argv: Sequence[str]
    """In the image, empty stands for its user's shell."""
    environment: Mapping[str, str]
    directory: str | None = None
    user: str | None = None
    unconfined: Sequence[str] = ()
    """Capabilities of :data:`.capabilities.REFUSED` that it has nevertheless."""
    fast_sync: bool = False
    """Whether its syncs are answered and not carried out."""


def run_outside(command: Command, *, grouped: bool) -> None:
    """Become a tool of the build machine, in the sandbox's namespaces.

    :param grouped: whether this process is in the sandbox's control group, in which the image is held.
    """
    if grouped:
        cgroup.leave()
    seccomp.install()
    _execute(command.argv, command.environment, command.directory or "/")


def run_inside(command: Command, *, root: str, last_capability: int) -> None:
    """Become a command in the image."""
    called = command.argv[0] if command.argv else "the shell"
    # it is in a control group, and is to see no other to which it could move: neither in a cgroup2 that it is lent
    # nor in one that it mounts
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    namespaces.enter(root, nodes="MKNOD" in command.unconfined, hidden=("cgroup2",))
    try:
        with capabilities.only_for_files():
            user = accounts().user(command.user or "root")
    except UnknownNameError as error:
        raise SandboxError(f"`{called}` cannot run as {command.user}", why=str(error)) from None
    # needs CAP_SYS_ADMIN, and so comes before the rest
    seccomp.install(seccomp.inside(may_unshare="SYS_ADMIN" in command.unconfined, fast_sync=command.fast_sync))
    capabilities.drop(last_capability, given_back=command.unconfined)
    os.setgroups(user.groups)
    os.setgid(user.gid)
    os.setuid(user.uid)
    capabilities.renounce(given_back=command.unconfined)
    argv = command.argv or [_shell(user)]
    identity = _identity(user) | ({} if command.argv else {"SHELL": argv[0]})
    _execute(argv, identity | dict(command.environment), command.directory or "/")


def _shell(user: User) -> str:
    """What the image has of a user's own shell and the usual ones. What only refuses to log in does not count."""
    wanted = (user.shell, "/bin/bash", "/bin/sh")
    shells = [each for each in wanted if os.path.basename(each) not in {"nologin", "false"}]
    return next((each for each in shells if os.access(each, os.X_OK)), shells[-1])


def _identity(user: User) -> dict[str, str]:
    return {"HOME": user.home, "USER": user.name, "LOGNAME": user.name, "SHELL": user.shell}


def accounts() -> Accounts:
    """The users and groups of the root this process is in."""
    return Accounts(passwd=_small_text("/etc/passwd"), group=_small_text("/etc/group"))


def _small_text(path: str) -> str:
    # the image decides what this is, and a FIFO would wait for ever
    try:
        file = archive.open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    with file:
        return file.read(_BIG_ENOUGH).decode(errors="surrogateescape")


def _execute(argv: Sequence[str], environment: Mapping[str, str], directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        raise SandboxError(f"`{argv[0]}` cannot run in {directory}", why=error.strerror) from None
    try:
        os.execvpe(argv[0], list(argv), dict(environment))
    except OSError as error:
        raise _refusal(argv[0], environment.get("PATH", ""), error) from None


def _refusal(name: str, path: str, error: OSError) -> SandboxError:
    what = f"`{name}` cannot be executed"
    if error.errno == errno.ENOENT:
        if "/" not in name:
            return SandboxError(what, why="there is no such command", hint=f"PATH is {path}")
        if os.path.exists(name):
            return SandboxError(what, why="its interpreter or loader is missing", hint="see its first line, or ldd")
        return SandboxError(what, why="there is no such file")
    if error.errno == errno.ENOEXEC:
        hint = "was it built for another architecture? is its first line #!/bin/sh?"
        return SandboxError(what, why="not a format that this machine executes", hint=hint)
    if error.errno == errno.E2BIG:
        return SandboxError(
            what, why="the command line or environment is too long", hint="pass data by input or a file"
        )
    return SandboxError(what, why=error.strerror)
