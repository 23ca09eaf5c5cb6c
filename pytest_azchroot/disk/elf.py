"""The beginning of an ELF program: what it was built for. Bytes in, values out.

Sources: the generic ABI's chapters "ELF Header" and "Program Header", elf(5), include/uapi/linux/elf-em.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

MAGIC = b"\x7fELF"
ENOUGH = 1 << 12
"""Bytes that hold the header, the program headers and the loader's name of any linker's output."""

_INTERPRETER = 3  # PT_INTERP
_MOST_SEGMENTS = 64
_PATH_MAX = 4096

_PLACES = {32: ("IIIIHHHHHH", "8I", 1, 4), 64: ("QQQIHHHHHH", "IIQQQQQQ", 2, 5)}
"""By word size: the header after e_version, a program header, and in that the places of p_offset and p_filesz."""

# (e_machine, bits, little-endian): as uname(2) has it, and Debian
_NAMES: dict[tuple[int, int, bool], tuple[str, str]] = {
    (3, 32, True): ("i686", "i386"),
    (8, 32, False): ("mips", "mips"),
    (8, 32, True): ("mips", "mipsel"),
    (8, 64, True): ("mips64", "mips64el"),
    (20, 32, False): ("ppc", "powerpc"),
    (21, 64, False): ("ppc64", "ppc64"),
    (21, 64, True): ("ppc64le", "ppc64el"),
    (22, 64, False): ("s390x", "s390x"),
    (40, 32, True): ("armv7l", "armhf"),
    (43, 64, False): ("sparc64", "sparc64"),
    (50, 64, True): ("ia64", "ia64"),
    (62, 32, True): ("x86_64", "x32"),
    (62, 64, True): ("x86_64", "amd64"),
    (183, 64, True): ("aarch64", "arm64"),
    (243, 64, True): ("riscv64", "riscv64"),
    (258, 64, True): ("loongarch64", "loong64"),
}
# Azure's names: "Architecture" of the images and gallery images REST API
_AZURE: dict[str, Literal["x64", "Arm64"]] = {"amd64": "x64", "arm64": "Arm64"}


@dataclass(frozen=True)
class Architecture:
    """What runs a program, by its names."""

    kernel: str
    """As ``uname -m`` on such a machine says: ``x86_64``, ``aarch64``."""
    debian: str
    """``amd64``, ``arm64``."""

    @property
    def azure(self) -> Literal["x64", "Arm64"] | None:
        """Azure's name; None for one that Azure has no machines of."""
        return _AZURE.get(self.debian)

    def __str__(self) -> str:
        return self.kernel if self.debian != "x32" else "x32"


@dataclass(frozen=True)
class Header:
    """What the beginning of an ELF file says."""

    machine: int
    """``e_machine``."""
    bits: Literal[32, 64]
    little: bool
    loader: str | None
    """The program that loads it; None for a static one."""

    @property
    def architecture(self) -> Architecture:
        """One without a name is called by its number."""
        kernel, debian = _NAMES.get((self.machine, self.bits, self.little), (None, None))
        if kernel is None or debian is None:
            order = "little" if self.little else "big"
            kernel = debian = f"ELF machine {self.machine} ({self.bits} bits, {order}-endian)"
        return Architecture(kernel, debian)


def header(data: bytes) -> Header | None:
    """Read the beginning of a file, :data:`ENOUGH` bytes of it.

    :return: None where it is no ELF file, or cut short, or says what no linker writes.
    """
    if len(data) < 24 or not data.startswith(MAGIC) or data[4] not in {1, 2} or data[5] not in {1, 2}:
        return None
    bits: Literal[32, 64] = 32 if data[4] == 1 else 64
    little = data[5] == 1
    order = "<" if little else ">"
    layout = f"{order}{_PLACES[bits][0]}"
    if len(data) < 24 + struct.calcsize(layout):
        return None
    (machine,) = struct.unpack_from(f"{order}H", data, 18)
    _, table, _, _, _, size, count, *_ = struct.unpack_from(layout, data, 24)
    starts = [table + index * size for index in range(min(count, _MOST_SEGMENTS))]
    return Header(machine, bits, little, _loader(data, starts, order=order, bits=bits))


def _loader(data: bytes, starts: Iterable[int], *, order: str, bits: int) -> str | None:
    """The name in the first segment of its kind, if it is within the data."""
    _, form, at, length = _PLACES[bits]
    layout = struct.Struct(order + form)
    for start in starts:
        if start + layout.size > len(data):
            return None
        segment = layout.unpack_from(data, start)
        if segment[0] == _INTERPRETER and segment[length] <= _PATH_MAX:
            path = data[segment[at] : segment[at] + segment[length]]
            return path.split(b"\0")[0].decode(errors="surrogateescape") or None
    return None


def of_machine(name: str) -> str:
    """The name that :class:`Architecture` has for what uname(2) says: it tells kinds of one architecture apart."""
    if re.fullmatch(r"i[3-6]86", name):
        return "i686"
    return "armv7l" if re.fullmatch(r"arm(v[5-8].*)?", name) else name


def debian_names(kernel: str) -> tuple[str, ...]:
    """What Debian may call a machine that uname(2) names so: its word size and byte order are not in that."""
    return tuple(debian for name, debian in _NAMES.values() if name == kernel and debian != "x32")
