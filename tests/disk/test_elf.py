"""What a program was built for, from its first bytes."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from pytest_azchroot.disk import elf
from tests.sandbox.foreign import program


def _architecture(data: bytes) -> elf.Architecture:
    found = elf.header(data)
    assert found is not None
    return found.architecture


@pytest.mark.parametrize(
    ("machine", "bits", "kernel", "debian", "azure"),
    [
        (62, 64, "x86_64", "amd64", "x64"),
        (183, 64, "aarch64", "arm64", "Arm64"),
        (3, 32, "i686", "i386", None),
        (40, 32, "armv7l", "armhf", None),
        (243, 64, "riscv64", "riscv64", None),
    ],
)
def test_an_architecture_has_the_names_that_others_use(
    machine: int, bits: int, kernel: str, debian: str, azure: str | None
) -> None:
    found = _architecture(program(machine, bits=bits))
    assert (found.kernel, found.debian, found.azure, str(found)) == (kernel, debian, azure, kernel)


def test_one_without_a_name_has_its_number() -> None:
    assert str(_architecture(program(75))) == "ELF machine 75 (64 bits, little-endian)"


def test_byte_order_tells_machines_apart() -> None:
    little = program(21)
    big = little[:5] + b"\x02" + little[6:16] + b"\0\x02\0\x15" + little[20:]
    assert (_architecture(little).debian, _architecture(big).debian) == ("ppc64el", "ppc64")


def test_a_loader_is_found_and_a_static_program_has_none() -> None:
    for bits in (32, 64):
        dynamic, static = elf.header(program(3, bits=bits, loader="/lib/ld.so")), elf.header(program(3, bits=bits))
        assert dynamic is not None and static is not None
        assert (dynamic.loader, static.loader) == ("/lib/ld.so", None)


def test_a_program_of_this_machine_is_one_of_this_machine() -> None:
    data = Path(sys.executable).read_bytes()[: elf.ENOUGH]
    assert _architecture(data).kernel == elf.of_machine(os.uname().machine)


@pytest.mark.parametrize(
    ("name", "same"), [("i386", "i686"), ("i586", "i686"), ("armv8l", "armv7l"), ("arm", "armv7l"), ("arm64", "arm64")]
)
def test_kinds_of_one_architecture_are_one(name: str, same: str) -> None:
    assert elf.of_machine(name) == same


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 20, b"\x7fELF\x03\x01" + bytes(100), b"\x7fELF" * 40]
)
def test_what_is_no_program_is_none(data: bytes) -> None:
    assert elf.header(data) is None


def test_a_program_cut_anywhere_is_read_or_not_and_nothing_else() -> None:
    for bits in (32, 64):
        whole = program(3, bits=bits, loader="/lib/ld.so")
        for length in range(len(whole)):
            found = elf.header(whole[:length])
            assert found is None or found.loader is None or whole[:length].endswith(found.loader.encode())


def test_hostile_numbers_are_harmless() -> None:
    chance = random.Random(1)
    for bits in (32, 64):
        whole = bytearray(program(183, bits=bits, loader="/lib/ld.so"))
        for _ in range(3000):
            hostile = whole.copy()
            for _ in range(chance.randrange(1, 12)):
                hostile[chance.randrange(4, len(hostile))] = chance.choice(
                    (0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))
                )
            found = elf.header(bytes(hostile))
            assert found is None or found.loader is None or len(found.loader) <= len(whole)
    many = program(183)[:56] + b"\xff\xff" + program(183)[58:]
    assert elf.header(many) is not None
