"""Programs for other machines, made by hand, and a handler for them as long as a test runs."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

EM_386, EM_IA64, EM_X86_64, EM_AARCH64 = 3, 50, 62, 183
_BASE = 0x400000
# a handler lasts as long as binfmt_misc is mounted somewhere; here it is where nobody else sees it
_HELD = """mount -t binfmt_misc none /mnt
printf %s "$1" > /mnt/register
echo registered
cat
echo -1 > /mnt/"$2"
"""

# Arm Architecture Reference Manual: MOVZ, ADR, SVC; numbers of include/uapi/asm-generic/unistd.h
_MOVZ, _ADR, _SVC = 0xD2800000, 0x10000000, 0xD4000001

EXIT_OF_386 = b"\xb8\x01\0\0\0\x31\xdb\xcd\x80"
"""mov eax, 1; xor ebx, ebx; int 0x80."""


def _movz(register: int, value: int) -> int:
    return _MOVZ | value << 5 | register


def _adr(register: int, distance: int) -> int:
    return _ADR | (distance & 3) << 29 | (distance >> 2) << 5 | register


def speaking(words: bytes, *, code: int = 0) -> bytes:
    """Instructions of an aarch64 program that writes something to standard output and exits."""
    lines = [_movz(0, 1), 0, _movz(2, len(words)), _movz(8, 64), _SVC, _movz(0, code), _movz(8, 93), _SVC]
    lines[1] = _adr(1, (len(lines) - 1) * 4)
    return b"".join(struct.pack("<I", line) for line in lines) + words


def program(machine: int, code: bytes = b"\0\0\0\0", *, bits: int = 64, loader: str = "", mark: bytes = b"") -> bytes:
    """A little-endian ELF program of one segment.

    :param loader: the program that loads it; none for a static one.
    :param mark: bytes that go where e_ident is padded, by which a handler can tell it from everybody's programs.
    """
    body = loader.encode() + b"\0" if loader else code
    kind = 3 if loader else 1  # PT_INTERP, PT_LOAD
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1, 0, 0]) + mark.ljust(7, b"\0")
    header, segment = (64, 56) if bits == 64 else (52, 32)
    start = header + segment
    at, length = (start, len(body)) if loader else (0, start + len(body))
    word = "Q" if bits == 64 else "I"
    rest = (2, machine, 1, _BASE + start, header, 0, 0, header, segment, 1, 0, 0, 0)
    head = ident + struct.pack(f"<HHI{word}{word}{word}IHHHHHH", *rest)
    if bits == 64:
        return head + struct.pack("<IIQQQQQQ", kind, 5, at, _BASE, _BASE, length, length, 4096) + body
    return head + struct.pack("<8I", kind, at, _BASE, _BASE, length, length, 5, 4096) + body


@contextmanager
def handler(name: str, beginning: bytes, interpreter: str, *, flags: str = "") -> Iterator[None]:
    """Have the kernel give programs that begin so to an interpreter. Everybody on this machine has the handler then,
    so name and beginning must be nobody else's."""
    magic = "".join(f"\\x{byte:02x}" for byte in beginning)
    line = f":{name}:M::{magic}::{interpreter}:{flags}"
    command = ["unshare", "--mount", "sh", "-ec", _HELD, "sh", line, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
        assert held.stdin is not None and held.stdout is not None
        try:
            assert held.stdout.readline() == "registered\n"
            yield
        finally:
            held.stdin.close()
    assert held.returncode == 0
