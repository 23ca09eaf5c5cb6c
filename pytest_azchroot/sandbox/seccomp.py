"""A system call filter of a few lines: named calls answer with an error number instead of being carried out.

``swapon`` is refused to every command: swap on a file of the image keeps the loop device and the file system
alive after all processes are dead (measured), so nothing could clean up behind a killed build.

Commands in the image are refused more. A *frozen* file system (ioctl_fsfreeze) stays so when all is dead, with its loop
device, and whoever has yet to write to it waits for ever, KILL or not (measured). *Keyrings* belong to a user of the
build machine, whatever sandbox he is in. A *user namespace* gives back every capability that was taken, though only
within it, and with them much of the kernel that nobody has tried yet; container runtimes refuse it too.

*Syncs* of steps may be answered without being carried out. A package manager calls fsync for each file so that a
power failure finds the old system or the new. Of an image whose build fails nothing is used, and one that succeeds is
written out by the strict unmount. The holder and the tools of the build machine are not filtered.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Mapping

from . import syscalls

Rules = Mapping[str, int]
"""Name of a system call → the errno it answers with; 0 means success without doing anything."""

NO_SWAP: Rules = {"swapon": errno.EPERM}
NO_KEYRINGS: Rules = {"add_key": errno.EPERM, "request_key": errno.EPERM, "keyctl": errno.EPERM}
NO_FREEZING: Rules = {"ioctl": errno.EPERM, "ioctl of x32": errno.EPERM}
# clone3 hides its flags in memory; a C library without it falls back to clone
NO_USER_NAMESPACES: Rules = {"clone": errno.EPERM, "unshare": errno.EPERM, "clone3": errno.ENOSYS}
FAST_SYNC: Rules = dict.fromkeys(("fsync", "fdatasync", "sync", "syncfs", "msync", "sync_file_range"), 0)

_NEW_USER = 0x10000000  # CLONE_NEWUSER of include/uapi/linux/sched.h
_FREEZE = 0xC0045877  # FIFREEZE of include/uapi/linux/fs.h

# AUDIT_ARCH_* of include/uapi/linux/audit.h; numbers of each architecture's unistd.h.
# A machine also runs the programs of its 32-bit sibling, whose calls have other numbers.
_X86_64, _I386, _ARM64, _ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
_ARCHITECTURES = {"x86_64": (_X86_64, _I386), "aarch64": (_ARM64, _ARM)}
_NUMBERS: dict[str, tuple[int, int, int, int]] = {
    # x86_64, i386, arm64, arm
    "swapon": (167, 87, 224, 87),
    "add_key": (248, 286, 217, 309),
    "request_key": (249, 287, 218, 310),
    "keyctl": (250, 288, 219, 311),
    "clone": (56, 120, 220, 120),
    "clone3": (435, 435, 435, 435),
    "unshare": (272, 310, 97, 337),
    "ioctl": (16, 54, 29, 54),
    "ioctl of x32": (514, 54, 29, 54),
    "fsync": (74, 118, 82, 118),
    "fdatasync": (75, 148, 83, 148),
    "sync": (162, 36, 81, 36),
    "syncfs": (306, 344, 267, 373),
    "msync": (26, 144, 227, 144),
    "sync_file_range": (277, 314, 84, 341),
}
_COLUMN = {_X86_64: 0, _I386: 1, _ARM64: 2, _ARM: 3}
_X32 = 0x40000000
"""x86_64 with 32-bit pointers has the same architecture, and this bit in its numbers."""

# BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # struct seccomp_data
_FIRST_ARGUMENT_AT, _SECOND_ARGUMENT_AT = 16, 24  # of these the low half
_FILTER = 2  # SECCOMP_MODE_FILTER

Instruction = tuple[int, int, int, int]

_ONLY_IF: Mapping[str, tuple[Instruction, Instruction]] = {
    **dict.fromkeys(("clone", "unshare"), ((_LOAD, 0, 0, _FIRST_ARGUMENT_AT), (_JUMP_IF_SET, 0, 1, _NEW_USER))),
    **dict.fromkeys(("ioctl", "ioctl of x32"), ((_LOAD, 0, 0, _SECOND_ARGUMENT_AT), (_JUMP_IF_EQUAL, 0, 1, _FREEZE))),
}
"""Calls that are filtered only with certain arguments."""


def program(machine: str, rules: Rules) -> list[Instruction]:
    """The filter for a machine (``os.uname().machine``); empty where its numbers are not known."""
    code: list[Instruction] = []
    for architecture in _ARCHITECTURES.get(machine, ()):
        block: list[Instruction] = [(_LOAD, 0, 0, _NUMBER_AT)]
        for name, answer in rules.items():
            number = _NUMBERS[name][_COLUMN[architecture]]
            for each in (number, number | _X32) if architecture == _X86_64 else (number,):
                block += _answer(each, answer, only_if=_ONLY_IF.get(name))
        block.append((_RETURN, 0, 0, _ALLOW))
        code += [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_JUMP_IF_EQUAL, 0, len(block), architecture), *block]
    return [*code, (_RETURN, 0, 0, _ALLOW)] if code else []


def _answer(number: int, answer: int, *, only_if: tuple[Instruction, ...] | None) -> list[Instruction]:
    """Answer a call and end, or go on with its number loaded."""
    refusal = (_RETURN, 0, 0, _ERRNO | answer)
    if only_if is None:
        return [(_JUMP_IF_EQUAL, 0, 1, number), refusal]
    condition = [*only_if, refusal, (_LOAD, 0, 0, _NUMBER_AT)]
    return [(_JUMP_IF_EQUAL, 0, len(condition), number), *condition]


def inside(*, may_unshare: bool, fast_sync: bool) -> Rules:
    """The rules for a command in the image.

    :param may_unshare: whether it may make user namespaces.
    """
    confined = {} if may_unshare else NO_USER_NAMESPACES
    return {**NO_SWAP, **NO_FREEZING, **NO_KEYRINGS, **confined, **(FAST_SYNC if fast_sync else {})}


def install(rules: Rules = NO_SWAP) -> None:
    """Filter this process and all it starts. Needs CAP_SYS_ADMIN: without NO_NEW_PRIVS, so that su still works."""
    code = program(os.uname().machine, rules)
    if not code:
        return
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters)))
    syscalls.prctl(syscalls.PR_SET_SECCOMP, _FILTER, header)
