"""A shell in a disk image, or in an image that is being built: ``azchroot shell``."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from pytest_azchroot.disk import image, space, users
from pytest_azchroot.disk.copy import copy
from pytest_azchroot.disk.image import DiskImage
from pytest_azchroot.errors import AzchrootError, DiskError, SandboxError, UnavailableError
from pytest_azchroot.inspection import raw
from pytest_azchroot.leaving import attached_to
from pytest_azchroot.sandbox import Sandbox, architecture, discover, environment, terminal, visiting
from pytest_azchroot.sandbox.result import Process
from pytest_azchroot.sandbox.terminal import Pipes, Screen
from pytest_azchroot.sandbox.visiting import Found, Visit
from pytest_azchroot.spec import BUILTIN_CLOUDS, ConfigError, load

Command = Sequence[str]
"""Empty for the shell."""

_IMAGE_FILE = "image.yaml"
_INTERRUPTED = 128 + signal.SIGINT
_WRITE_PROTECTED = re.compile(r"read-only|write-protected")
"""What mount(8) says of a file system that it would have to repair first (EROFS)."""


class NotBuildingError(AzchrootError):
    """There is no running build to enter, or more than one."""


# ---- a file


class Root(NamedTuple):
    """Which file system is the root, if it is to be another than the one that is found."""

    partition: int | None = None
    """Its number; 0 is the whole disk."""
    lvm_root_device: str | None = None
    """If it is a logical volume, as ``/dev/rootvg/rootlv``."""


def in_file(path: Path, *, command: Command = (), root: Root | None = None, write: bool = False) -> int:
    """A shell, or a command, in a disk image file, mounted in a sandbox of its own.

    :param root: which it is; else it is found.
    :param write: change the file; else what is written goes to memory, and the file is not even opened for writing.
    :return: the exit code; 128 and the number of a signal that ended it.
    :raises DiskError: it is no image, cannot be read or mounted, or is in use.
    :raises DirtyImageError: what was changed is not closed well.
    """
    _require_root()
    with _signals(), _opened(path, write=write) as (found, fd):
        if write:
            return _change(found, fd, command, root or Root())
        return _look(found, fd, command, root or Root())


def _look(found: DiskImage, fd: int, command: Command, root: Root) -> int:
    """Read-only below, overlays above."""
    dropped = "read-only: what you write is dropped when you leave"
    with raw(found, fd) as disk:
        try:
            return _covered(found, disk, command, root, read_only=found.plain, banner=dropped)
        except _UncleanError as error:
            cause = error
    directory = space.scratch()
    doing = f"copying {found.path}, whose file systems were not closed and cannot be mounted read-only,"
    _say(doing.removesuffix(",").replace("copying", "a copy is taken of"))
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            copy(fd, file.fileno(), length=found.size)
        except OSError as error:
            failed = space.explained(error, doing=doing, directory=directory, needed=found.allocated)
            hint = f"{cause.hint}; or {failed.hint}" if failed.hint else cause.hint
            raise DiskError(failed.what, why=failed.why, hint=hint) from error
        return _covered(found, file.fileno(), command, root, read_only=False, banner=f"a copy, {dropped}")


def _covered(found: DiskImage, disk: int, command: Command, root: Root, *, read_only: bool, banner: str) -> int:
    path = Path(f"/proc/{os.getpid()}/fd/{disk}")
    with Sandbox.start(path, hostname=_name(found.path), read_only=read_only) as sandbox:
        plan = discover.plan(sandbox, **root._asdict())
        try:
            discover.mount_all(sandbox, plan)
        except SandboxError as error:
            if read_only and _WRITE_PROTECTED.search(error.why or ""):
                hint = "azchroot shell --write mounts it as a machine would, and repairs it"
                raise _UncleanError(error.what, why=error.why, hint=hint) from error
            raise
        sandbox.overlay()
        return _attend(sandbox, found, command, banner)


def _change(found: DiskImage, fd: int, command: Command, root: Root) -> int:
    """Mounted as in a build; closed as by a build, whatever the command did."""
    path = Path(f"/proc/{os.getpid()}/fd/{fd}")
    with Sandbox.start(path, hostname=_name(found.path)) as sandbox:
        plan = discover.plan(sandbox, **root._asdict())
        discover.mount_all(sandbox, plan)
        try:
            code = _attend(sandbox, found, command, "writable: what you write changes the file")
        except KeyboardInterrupt:
            code = _INTERRUPTED
        except BaseException as error:
            with attached_to(error):
                sandbox.unmount()
                sandbox.close()
            raise
        unmounted = sandbox.unmount()
        sandbox.close()
    _say_left(unmounted.survivors)
    _say(f"{found.path} is closed; checked: {', '.join(unmounted.checked) or 'no file system of a known kind'}")
    return code


def _attend(sandbox: Sandbox, found: DiskImage, command: Command, banner: str) -> int:
    sandbox.lend(None)
    architecture.require_runnable(sandbox)
    sandbox.lend_stubs(deny_services=True, defer_initramfs=False)
    # an overlay is for looking, but who tries an upgrade there shall start no service either
    return _watched(
        lambda streams, env, size: sandbox.attend(
            command, env={**environment.WITH_STUBS, **env}, streams=streams, size=size
        ),
        name=_name(found.path),
        banner=None if command else f"{found.path}, {banner}",
    )


class _UncleanError(DiskError):
    """A file system would have to be repaired, which nobody may here."""


@contextlib.contextmanager
def _opened(path: Path, *, write: bool) -> Iterator[tuple[DiskImage, int]]:
    """The file, until it is closed ours: one may write, or many may read."""
    try:
        fd = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        azure = str(path).lower().startswith("/subscriptions/")
        hint = "this opens files; what is on Azure: pytest --pdb --azchroot-verify=ID DIRECTORY" if azure else None
        raise DiskError(f"{path} cannot be opened", why=error.strerror, hint=hint) from error
    try:
        found = image.identify_open(fd, path)
        if write and not found.plain:
            names = [str(path), str(path.with_suffix(".raw"))]
            hint = f"make a raw disk of it: qemu-img convert -O raw {shlex.join(names)}"
            raise DiskError(f"{path} ({found.format}) cannot be changed in place", hint=hint)
        users.claim(fd, path, write=write)
        yield found, fd
    finally:
        os.close(fd)


# ---- a running build


def in_build(directory: Path, *, command: Command = (), pid: int | None = None) -> int:
    """A shell, or a command, in the image that a running pytest builds, as it is now.

    :param directory: of the image.
    :param pid: of that pytest, where several build the image.
    :return: the exit code; 128 and the number of a signal that ended it.
    :raises NotBuildingError: no such build.
    :raises SandboxError: nobody can enter now, or the build has ended.
    """
    _require_root()
    with _signals(), Visit.begin(_chosen(directory, pid), waiting=_say_waiting) as visit:
        if visit.shut is not None:
            what = f"nobody can enter the image of {directory} now"
            raise SandboxError(what, why=visit.shut, hint="try again in a moment")
        mode = "an overlay: what you write is dropped" if visit.covered else "writable: what you write is in the image"
        code = _watched(
            lambda streams, env, size: visit.enter(command, env=env, streams=streams, size=size),
            name=_name(directory),
            banner=None if command else f"{directory} as it is being built, {mode}",
        )
        if visit.ended is not None:
            _say(f"ended: {visit.ended}")
    return code


def _chosen(directory: Path, pid: int | None) -> Found:
    if not (directory / _IMAGE_FILE).is_file():
        raise NotBuildingError(
            f"there is no {_IMAGE_FILE} in {directory}",
            hint=f"name a disk image file, or a directory with an {_IMAGE_FILE}",
        )
    builds = visiting.find(directory)
    chosen = [each for each in builds if pid in (None, each.session)]
    if len(chosen) == 1:
        return chosen[0]
    if builds:
        sessions = ", ".join(str(each.session) for each in builds)
        what = f"{directory} is being built by {'these' if len(builds) > 1 else 'this'}: pytest {sessions}"
        raise NotBuildingError(what, hint="choose one by --pid")
    hint = f"build it, and stop at the first failure: pytest --pdb {shlex.quote(str(directory))}"
    if kept := _kept(directory):
        hint += "".join(
            ["\nor look into a disk that was kept:", *(f"\n  azchroot shell {shlex.quote(str(path))}" for path in kept)]
        )
    raise NotBuildingError(f"no build of {directory} is running", hint=hint)


def _kept(directory: Path) -> list[Path]:
    """Disks of the image that builds have kept, the newest first."""
    places = [directory, Path(os.environ.get("TMPDIR") or "/var/tmp")]
    with contextlib.suppress(ConfigError):  # without variables of the command line it may not load
        spec = load(directory / _IMAGE_FILE, clouds=BUILTIN_CLOUDS, unknown_variables="ignore").spec
        places += [(directory / name).parent for name in spec.output]
    prefix = directory.resolve().name
    found = {path.resolve(): path for place in places for path in place.glob(f"{glob.escape(prefix)}-*.kept.*")}
    return sorted(found.values(), key=lambda path: path.name, reverse=True)


# ---- for both

_Enter = Callable[[Screen | Pipes, Mapping[str, str], "tuple[int, int] | None"], int]


def _watched(enter: _Enter, *, name: str, banner: str | None) -> int:
    """Run it with our terminal, or with our pipes.

    :param banner: what to say first on a terminal.
    :return: an exit code as a shell would give it.
    """
    with terminal.streams() as streams:
        if isinstance(streams, Screen):
            if banner:
                _say(banner)
                _say("to leave: exit, or Ctrl-D")
            env = {"TERM": os.environ.get("TERM", "dumb"), "PS1": f"[{name}] $PWD # "}
            code = enter(streams, env, terminal.size_of(1))
        else:
            code = enter(streams, {}, None)
    return code if code >= 0 else 128 - code


def _name(path: Path) -> str:
    """What a machine may be called (gethostname(2) holds 64 bytes)."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", path.resolve().name.partition(".")[0])[:63].strip("-") or "image"


def _require_root() -> None:
    if os.geteuid() != 0:
        raise UnavailableError("azchroot shell needs root", why="it makes namespaces and mounts", hint="use sudo")


def _say(text: str) -> None:
    print(f"azchroot: {text}", file=sys.stderr, flush=True)


def _say_waiting() -> None:
    _say("waiting: the build is busy with the image's disk")


def _say_left(processes: Sequence[Process]) -> None:
    for each in processes:
        _say(f"still running, now ended: {each.command}")


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """TERM and HUP leave as Ctrl-C does: with the terminal as it was, and the sandbox closed."""
    terminal.fill()

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
