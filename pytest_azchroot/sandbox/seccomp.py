"""A system call filter of a few lines: named calls answer with an error number instead of being carried out.

``swapon`` is refused to every command: swap on a file of the image keeps the loop device and the file system
alive after all processes are dead (measured), so nothing could clean up behind a killed build.
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

# AUDIT_ARCH_* of include/uapi/linux/audit.h; numbers of each architecture's unistd.h.
# A machine also runs the programs of its 32-bit sibling, whose calls have other numbers.
_NUMBERS: dict[str, dict[int, dict[str, tuple[int, ...]]]] = {
    "x86_64": {
        0xC000003E: {"swapon": (167, 0x40000000 | 167)},  # the second: x32
        0x40000003: {"swapon": (87,)},
    },
    "aarch64": {
        0xC00000B7: {"swapon": (224,)},
        0x40000028: {"swapon": (87,)},
    },
}

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # struct seccomp_data
_FILTER = 2  # SECCOMP_MODE_FILTER

Instruction = tuple[int, int, int, int]


def program(machine: str, rules: Rules) -> list[Instruction]:
    """The filter for a machine (``os.uname().machine``); empty where its numbers are not known."""
    code: list[Instruction] = []
    for architecture, names in _NUMBERS.get(machine, {}).items():
        block: list[Instruction] = [(_LOAD, 0, 0, _NUMBER_AT)]
        for name, answer in rules.items():
            for number in names.get(name, ()):
                block += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | answer)]
        block.append((_RETURN, 0, 0, _ALLOW))
        code += [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_JUMP_IF_EQUAL, 0, len(block), architecture), *block]
    return [*code, (_RETURN, 0, 0, _ALLOW)] if code else []


def install(rules: Rules = NO_SWAP) -> None:
    """Filter this process and all it starts. Needs CAP_SYS_ADMIN: without NO_NEW_PRIVS, so that su still works."""
    code = program(os.uname().machine, rules)
    if not code:
        return
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters)))
    syscalls.prctl(syscalls.PR_SET_SECCOMP, _FILTER, header)
