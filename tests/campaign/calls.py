"""The system calls at which the campaign kills: what they are called, and the filter by which the kernel stops there.

Those that change something on the machine, and those in which a process waits. Opening a file counts where it is
opened for writing or made, an ioctl(2) where it is one of a block device or a file system.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

# numbers of each architecture's unistd.h: x86_64, arm64 (None: it has no such call)
_NUMBERS: dict[str, tuple[int, int | None]] = {
    "access": (21, 48),  # faccessat on arm64; by it the build says in which stage it is (markers.py)
    "openat": (257, 56),
    "ioctl": (16, 29),
    "write": (1, 64),
    "pwrite64": (18, 68),
    "sendfile": (40, 71),
    "copy_file_range": (326, 285),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "syncfs": (306, 267),
    "close": (3, 57),
    "flock": (73, 32),
    "link": (86, None),
    "linkat": (265, 37),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mount": (165, 40),
    "umount2": (166, 39),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "exit_group": (231, 94),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "kill": (62, 129),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "prctl": (157, 167),
    "setsid": (112, 157),
    "sethostname": (170, 161),
    "socketpair": (53, 199),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "pipe2": (293, 59),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "seccomp": (317, 277),
    "capset": (126, 91),
    "landlock_restrict_self": (446, 446),
}

NAMES = tuple(_NUMBERS)
MARK = "access"

# include/uapi/asm-generic/fcntl.h; O_DIRECTORY, which is a part of O_TMPFILE, has another number on arm64
_CREATE, _UNNAMED, _WRITE = 0o100, 0o20000000, 0o3
_REQUESTS = {
    # include/uapi/linux: loop.h, blkpg.h, fs.h
    0x4C01: "LOOP_CLR_FD",
    0x4C05: "LOOP_GET_STATUS64",
    0x4C0A: "LOOP_CONFIGURE",
    0x4C82: "LOOP_CTL_GET_FREE",
    0x1269: "BLKPG",
    0x1261: "BLKFLSBUF",
    0x125F: "BLKRRPART",
    0xC0185879: "FITRIM",
    0x40049409: "FICLONE",
    0x4020940D: "FICLONERANGE",
}
_WAITING = frozenset({"wait4", "waitid", "poll", "ppoll", "select", "pselect6", "recvmsg"})
_DECISIVE = frozenset(
    {"ioctl(LOOP_CONFIGURE)", "ioctl(LOOP_CLR_FD)", "ioctl(BLKPG)", "unshare", "openat(unnamed)", "openat(create)"}
    | {"link", "linkat", "rename", "renameat", "renameat2"}
)
_TRIVIAL = frozenset({"close", "write", "flock", "pipe2", "prctl", "kill", "setsid", "pidfd_open"})
_RETURNLESS = frozenset({"exit_group"})

# linux/audit.h, asm/unistd.h, linux/filter.h, linux/seccomp.h
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data

Instruction = tuple[int, int, int, int]


def label(name: str, arguments: Sequence[int]) -> str:
    """What to call one call: ``mount``, ``openat(create)``, ``ioctl(LOOP_CONFIGURE)``."""
    if name == "openat":
        flags = arguments[2]
        kind = "unnamed" if flags & _UNNAMED else "create" if flags & _CREATE else "write"
        return f"openat({kind})"
    return f"ioctl({_REQUESTS[arguments[1] & 0xFFFFFFFF]})" if name == "ioctl" else name


def weight(kind: str) -> int:
    """How much a kind of call is worth to be killed at: what makes or names a thing most, what merely waits less than
    what changes the machine."""
    if kind in _DECISIVE:
        return 12
    if kind in _WAITING:
        return 2
    return 1 if kind in _TRIVIAL else 4


def returns(kind: str) -> bool:
    """Whether there is a moment after it that belongs to it."""
    return kind not in _RETURNLESS


def program(machine: str) -> bytes:
    """The seccomp filter that stops a traced process at the calls above, for ``os.uname().machine``. The stop says
    which call it is by its place in :data:`NAMES`.

    :raises KeyError: the numbers of this machine are not known.
    """
    architecture, column = _ARCHITECTURES[machine]
    code: list[Instruction] = [(_LOAD, 0, 0, _NUMBER_AT)]
    for index, (name, numbers) in enumerate(_NUMBERS.items()):
        if (number := numbers[column]) is not None:
            block = _stop(name, index)
            code += [(_JUMP_IF_EQUAL, 0, len(block), number), *block]
    # the calls of a 32-bit program have other numbers
    foreign = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_JUMP_IF_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *each) for each in [*foreign, *code, (_RETURN, 0, 0, _ALLOW)])


def _stop(name: str, index: int) -> list[Instruction]:
    stop, go_on = (_RETURN, 0, 0, _TRACE | index), (_RETURN, 0, 0, _ALLOW)
    if name == "openat":
        return [(_LOAD, 0, 0, _argument(2)), (_JUMP_IF_SET, 0, 1, _CREATE | _UNNAMED | _WRITE), stop, go_on]
    if name == "ioctl":
        tests = [line for request in _REQUESTS for line in ((_JUMP_IF_EQUAL, 0, 1, request), stop)]
        return [(_LOAD, 0, 0, _argument(1)), *tests, go_on]
    return [stop]


def _argument(index: int) -> int:
    return _ARGUMENTS_AT + 8 * index  # the low half, on little-endian machines
