"""Commands in the image do not reach the metadata service of the VM they are built on.

Whoever asks it gets a token of the VM's managed identity, without any password, and the WireServer has the secrets of
the VM's extensions. A step does not need them, and every package that a step installs could take them.

On Azure both have an address that is the same in all regions: 169.254.169.254 (learn.microsoft.com, "Azure Instance
Metadata Service") and 168.63.129.16 (same place, "What is IP address 168.63.129.16?"). The second is the DNS server
too, which stays. Other clouds have their metadata at the first as well.

How: the sandbox has a control group (:mod:`.cgroup`), and BPF programs on it look at the address of every connect(2)
and of every datagram that is sent without one (kernel, Documentation/bpf/libbpf/program_types.rst:
``BPF_PROG_TYPE_CGROUP_SOCK_ADDR``). The links that attach them are descriptors of the holder, so they end with it. Raw
packets go past: ``NET_RAW`` is one of the capabilities that are taken away.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from pathlib import Path

from pytest_azchroot.errors import UnavailableError

from . import cgroup, syscalls

METADATA = "169.254.169.254"
WIRE_SERVER = "168.63.129.16"
_DNS = 53

ALLOWED = "metadata_service: true"

# include/uapi/linux/bpf.h: commands, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, and enum bpf_attach_type. A datagram to an IPv4
# address in IPv6 form is sent as one of IPv4, and seen then (net/ipv6/udp.c, udpv6_sendmsg)
_PROG_LOAD, _LINK_CREATE = 5, 28
_SOCK_ADDR = 18
_CONNECT4, _CONNECT6, _SENDMSG4 = 10, 11, 14

# struct bpf_sock_addr: user_ip4, user_ip6, user_port, in network byte order
_IP4_AT, _IP6_AT, _PORT_AT = 4, 8, 24

# BPF_LDX|MEM|W, BPF_ALU64|MOV|K, BPF_JMP32|JEQ|K, BPF_JMP32|JNE|K, BPF_JMP|EXIT (Documentation/bpf/standardization)
_LOAD, _SET, _IF_EQUAL, _IF_NOT_EQUAL, _EXIT = 0x61, 0xB7, 0x16, 0x56, 0x95

Instruction = tuple[int, int, int, int, int]
"""Operation, destination and source register, offset in memory or in the program, number."""

_ASSET_TAG = Path("/sys/class/dmi/id/chassis_asset_tag")
_AZURE = "7783-7084-3265-9085-8269-3286-77"
"""The chassis asset tag of every Azure VM, by which cloud-init knows one (``ds-identify``)."""


def program(*, six: bool) -> list[Instruction]:
    """What decides on an address: 1 lets it pass, 0 answers EPERM.

    :param six: it is an IPv6 address, of which those count that stand for IPv4 ones (``::ffff:a.b.c.d``, RFC 4291).
    """
    address = _IP6_AT + 12 if six else _IP4_AT
    body: list[Instruction] = [
        (_LOAD, 2, 1, address, 0),
        (_LOAD, 3, 1, _PORT_AT, 0),
        (_IF_EQUAL, 2, 0, 2, _word(METADATA)),
        (_IF_NOT_EQUAL, 2, 0, 3, _word(WIRE_SERVER)),
        (_IF_EQUAL, 3, 0, 2, socket.htons(_DNS)),
        (_SET, 0, 0, 0, 0),
        (_EXIT, 0, 0, 0, 0),
        (_SET, 0, 0, 0, 1),
        (_EXIT, 0, 0, 0, 0),
    ]
    if not six:
        return body
    code = body
    for at, word in ((8, socket.htonl(0xFFFF)), (4, 0), (0, 0)):
        let_pass = len(code) - 2
        code = [(_LOAD, 2, 1, _IP6_AT + at, 0), (_IF_NOT_EQUAL, 2, 0, let_pass, word), *code]
    return code


def _word(address: str) -> int:
    """An address as a program loads it: four bytes in network order, read as this machine reads them."""
    return int.from_bytes(socket.inet_aton(address), sys.byteorder)


def encode(code: list[Instruction]) -> bytes:
    """``struct bpf_insn`` each."""
    return b"".join(
        struct.pack("=BBhI", operation, target | source << 4, offset, number)
        for operation, target, source, offset, number in code
    )


def deny(group: str | None) -> str | None:
    """Take the metadata service from this process and all it starts, for as long as it lives.

    :param group: the path of a control group to be made, None where there can be none.
    :return: why it could not be done; None if it was.
    :raises UnavailableError: it could not, and this machine is one of Azure.
    """
    why = _denied(group)
    if why is not None and is_azure():
        what = "commands in the image would reach the metadata service of this VM, and with it the VM's identity"
        raise UnavailableError(what, why=why, hint=f"if they may, say `{ALLOWED}` in image.yaml")
    return why


def _denied(group: str | None) -> str | None:
    if group is None:
        return "this kernel has no cgroup2"
    try:
        directory = cgroup.enter(group)
    except OSError as error:
        return f"no control group can be made: {error.strerror}"
    try:
        for kind, six in ((_CONNECT4, False), (_CONNECT6, True), (_SENDMSG4, False)):
            _attach(directory, kind, program(six=six))
    except OSError as error:
        cgroup.leave()
        cgroup.remove(group)
        return f"no BPF program can be attached: {error.strerror}"
    finally:
        os.close(directory)
    return None


def _attach(directory: int, kind: int, code: list[Instruction]) -> int:
    """:return: the link, on which it hangs."""
    instructions = ctypes.create_string_buffer(encode(code))
    license = ctypes.create_string_buffer(b"Apache-2.0")
    addresses = (ctypes.addressof(instructions), ctypes.addressof(license))
    # union bpf_attr: the part of BPF_PROG_LOAD up to expected_attach_type, and BPF_LINK_CREATE
    load = struct.pack("=IIQQIIQII16sII", _SOCK_ADDR, len(code), *addresses, 0, 0, 0, 0, 0, b"azchroot", 0, kind)
    loaded = syscalls.bpf(_PROG_LOAD, load)
    try:
        return syscalls.bpf(_LINK_CREATE, struct.pack("=IIII", loaded, directory, kind, 0))
    finally:
        os.close(loaded)


def is_azure(tag: Path = _ASSET_TAG) -> bool:
    """Whether this machine is a VM of Azure."""
    try:
        return tag.read_text(encoding="ascii", errors="replace").strip() == _AZURE
    except OSError:
        return False
