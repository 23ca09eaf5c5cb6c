"""The options of ``azchroot emulator``. Light: nothing of the emulator is imported before it is to run."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PORT, TLS_PORT = 10800, 10843
METADATA_ADDRESS = "169.254.169.254"
_FAMILIES = ("scsi", "nvme")
_OVERLAPS = ("accept", "conflict")


class Where(NamedTuple):
    """An address and a port."""

    address: str
    port: int


def add_to(parser: argparse.ArgumentParser) -> None:
    """Give a parser these options."""
    parser.add_argument(
        "directory",
        type=Path,
        metavar="DIRECTORY",
        help="state, disks, keys and log; made if it is not there. Started again in it, the emulator goes on",
    )
    _listening(parser.add_argument_group("where it listens"))
    _machine(parser.add_argument_group("the virtual machine that this machine plays"))
    _offered(parser.add_argument_group("what there is"))
    _behaviour(parser.add_argument_group("how it behaves"))


def _listening(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--listen", type=_loopback, default="127.0.0.1", metavar="ADDRESS", help="on loopback; %(default)s"
    )
    group.add_argument(
        "--port", type=_port, default=PORT, help="plain HTTP, and a proxy; 0 is any free one; %(default)s"
    )
    group.add_argument("--tls-port", type=_port, default=TLS_PORT, metavar="PORT", help="TLS; 0 as above; %(default)s")
    group.add_argument(
        "--metadata",
        type=_metadata,
        metavar="[ADDRESS:]PORT",
        help="plain HTTP here, too, for clients that know 169.254.169.254:80 alone; that address must be on lo",
    )


def _machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--subscription", metavar="ID", help="its id, a UUID")
    group.add_argument("--tenant", metavar="ID", help="its id, a UUID")
    group.add_argument("--location", default="westus2", metavar="REGION", help="its region; %(default)s")
    group.add_argument("--vm-group", default="rg1", metavar="NAME", help="its resource group; %(default)s")
    group.add_argument("--vm-name", default="vm1", metavar="NAME", help="its name; %(default)s")
    group.add_argument(
        "--vm-size", default="Standard_D4s_v5", metavar="SIZE", help="its size, which limits disks; %(default)s"
    )
    group.add_argument("--vm-zone", metavar="ZONE", help="its availability zone; none")
    group.add_argument(
        "--family", choices=_FAMILIES, default="scsi", help="how its disks look: device names and udev's links; scsi"
    )
    group.add_argument(
        "--devices",
        type=Path,
        metavar="DIR",
        help="where names and links of attached disks appear, /dev for clients that look nowhere else; DIRECTORY/dev",
    )
    group.add_argument("--no-system-identity", action="store_true", help="it has no identity of its own")
    group.add_argument(
        "--identity",
        action="append",
        default=[],
        type=_pair("NAME=CLIENT_ID"),
        metavar="NAME=CLIENT_ID",
        help="an identity assigned to it; repeatable",
    )


def _offered(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--image",
        action="append",
        default=[],
        type=_pair("URN=FILE"),
        metavar="URN=FILE",
        help="a platform image, publisher:offer:sku:version, and the raw, VHD, VHDX or qcow2 file of it; repeatable",
    )
    group.add_argument(
        "--application",
        action="append",
        default=[],
        type=_pair("CLIENT_ID=SECRET"),
        metavar="CLIENT_ID=SECRET",
        help="an application of the tenant; repeatable",
    )
    group.add_argument(
        "--certificate",
        action="append",
        default=[],
        type=_pair("CLIENT_ID=FILE"),
        metavar="CLIENT_ID=FILE",
        help="an application that proves itself with the key of this certificate, in PEM; repeatable",
    )


def _behaviour(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--profile", type=Path, metavar="FILE", help="how long operations take; at once")
    group.add_argument("--faults", type=Path, metavar="FILE", help="a plan of what shall go wrong; nothing")
    group.add_argument(
        "--throttles", action="store_true", help="Azure's rate limits hold, of Resource Manager and metadata"
    )
    group.add_argument(
        "--retry-after", type=_seconds, metavar="SECONDS", help="send Retry-After, as Azure was not seen to; never"
    )
    group.add_argument(
        "--overlap",
        choices=_OVERLAPS,
        default="accept",
        help="a PUT of a machine while another update of it runs: last one wins, or 409; accept",
    )
    group.add_argument("--calls", type=Path, metavar="FILE", help="the log of every call; DIRECTORY/calls.jsonl")


def _loopback(text: str) -> str:
    reason = (
        "the emulator is for this machine alone: whoever reaches it can have its disks, and it hands out tokens "
        "unasked. Give an address in 127.0.0.0/8"
    )
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: {reason}") from None
    if address.version != 4 or not address.is_loopback:
        raise argparse.ArgumentTypeError(f"refused to listen on {text}: {reason}")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _metadata(text: str) -> Where:
    address, _, port = text.rpartition(":")
    return Where(address if address in {"", METADATA_ADDRESS} else _loopback(address), _port(port))


def _seconds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number from 1 on: clients misread anything else")
    return int(text)


class Pair(NamedTuple):
    """What stood before and after the first ``=``."""

    name: str
    value: str


def _pair(form: str) -> Callable[[str], Pair]:
    """A type of argument that is given as this form says."""

    def parsed(text: str) -> Pair:
        name, _, value = text.partition("=")
        if not name or not value:
            raise argparse.ArgumentTypeError(f"{text!r} is not {form}")
        return Pair(name, value)

    return parsed
