"""The Linux calls that Python 3.10 does not have, each raising :class:`OSError` with what was tried."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000

# include/uapi/linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

MOUNT_ATTR_NODEV = 4

# include/uapi/linux/fcntl.h
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36

_CAPABILITY_VERSION_3 = 0x20080522  # include/uapi/linux/capability.h

_FITRIM = 0xC0185879  # _IOWR('X', 121, struct fstrim_range)

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_BPF = {"x86_64": 321, "aarch64": 280}

# the same everywhere (include/uapi/asm-generic/unistd.h)
_FSOPEN = 430
_FSCONFIG = 431
_FSMOUNT = 432
_MOUNT_SETATTR = 442
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_RESTRICT_SELF = 446


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _text(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def mount(source: str | None, target: str, kind: str | None = None, *, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    result = _libc.mount(_text(source), _text(target), _text(kind), ctypes.c_ulong(flags), _text(data))
    _checked(result, f"mount {kind or 'bind'} {source or ''} on {target}")


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    """A bind mount; recursive takes what is mounted below the source along."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def umount(target: str, *, lazily: bool = False) -> None:
    """umount2(2), never through a symbolic link."""
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazily else 0)
    _checked(_libc.umount2(_text(target), flags), f"umount {target}")


def change_mounts(descriptor: int, *, set: int = 0, clear: int = 0) -> None:
    """mount_setattr(2) on the mount that a directory is on and all below it: ``MOUNT_ATTR_*``."""
    attributes = struct.pack("=4Q", set, clear, 0, 0)
    flags = AT_EMPTY_PATH | AT_RECURSIVE
    result = _libc.syscall(_MOUNT_SETATTR, descriptor, b"", flags, attributes, ctypes.c_size_t(len(attributes)))
    _checked(result, "mount_setattr")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(flags), "unshare")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2), which no C library wraps."""
    machine = os.uname().machine
    if machine not in _PIVOT_ROOT:
        raise OSError(f"pivot_root: unknown machine {machine}")
    _checked(_libc.syscall(_PIVOT_ROOT[machine], _text(new), _text(old)), f"pivot_root {new}")


def prctl(option: int, argument: int | bytes, second: object = 0) -> None:
    """prctl(2)."""
    value = argument if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    _checked(_libc.prctl(option, value, second, 0, 0), f"prctl {option}")


def capset(*, effective: int, permitted: int) -> None:
    """capset(2) of this process; nothing is inheritable."""
    words = [(value >> shift) & 0xFFFFFFFF for shift in (0, 32) for value in (effective, permitted, 0)]
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, struct.pack("=6I", *words)), "capset")


def capget() -> tuple[int, int]:
    """capget(2) of this process: effective and permitted."""
    data = ctypes.create_string_buffer(24)
    _checked(_libc.capget(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), data), "capget")
    words = struct.unpack("=6I", data.raw)
    return words[0] | words[3] << 32, words[1] | words[4] << 32


def syncfs(descriptor: int) -> None:
    """syncfs(2): unlike sync(2) it reports write errors (since Linux 5.8)."""
    _checked(_libc.syncfs(descriptor), "syncfs")


def trim(descriptor: int) -> int | None:
    """FITRIM (include/uapi/linux/fs.h): the file system on which this is open discards what it does not use.

    :return: bytes discarded, None where file system or device cannot.
    """
    everything = struct.pack("=QQQ", 0, (1 << 64) - 1, 0)
    try:
        answer = fcntl.ioctl(descriptor, _FITRIM, everything)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOTTY, errno.EROFS, errno.EINVAL}:
            return None
        raise
    return int(struct.unpack("=QQQ", answer)[1])


def landlock_version() -> int:
    """What this kernel knows of landlock(7); 0 where it does not."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def landlock_scope(scoped: int) -> None:
    """Restrict this process and all it starts, for good: ``LANDLOCK_SCOPE_*``. Needs CAP_SYS_ADMIN."""
    attributes = struct.pack("=3Q", 0, 0, scoped)  # handled_access_fs, handled_access_net
    arguments = (attributes, ctypes.c_size_t(len(attributes)), 0)
    ruleset = _checked(_libc.syscall(_LANDLOCK_CREATE_RULESET, *arguments), "landlock_create_ruleset")
    try:
        _checked(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def detached_mount(kind: str) -> int:
    """A file system that is mounted nowhere, until its descriptor is closed: fsopen(2), fsconfig(2), fsmount(2).

    :return: a descriptor of its root, for calls with ``dir_fd``.
    """
    context = _checked(_libc.syscall(_FSOPEN, kind.encode(), 1), f"fsopen {kind}")  # FSOPEN_CLOEXEC
    try:
        _checked(_libc.syscall(_FSCONFIG, context, 6, None, None, 0), "fsconfig")  # FSCONFIG_CMD_CREATE
        return _checked(_libc.syscall(_FSMOUNT, context, 1, MS_NOSUID | MS_NODEV | MS_NOEXEC), "fsmount")
    finally:
        os.close(context)


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2), of which what gives a descriptor."""
    machine = os.uname().machine
    if machine not in _BPF:
        raise OSError(f"bpf: unknown machine {machine}")
    data = ctypes.create_string_buffer(attributes, len(attributes))
    return _checked(_libc.syscall(_BPF[machine], command, data, ctypes.c_size_t(len(data))), f"bpf {command}")
