"""The parts that take text and return values."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pytest_azchroot.disk.blkpg import Change, Extent, changes, parse
from pytest_azchroot.disk.probe import parse_export
from pytest_azchroot.sandbox import environment, mounts, seccomp
from pytest_azchroot.sandbox.capabilities import NEEDED, REFUSED, missing
from pytest_azchroot.sandbox.devices import link_name
from pytest_azchroot.sandbox.passwd import Accounts, UnknownNameError
from pytest_azchroot.sandbox.result import CommandError, Completed

ACCOUNTS = Accounts(
    passwd="root:x:0:0:root:/root:/bin/bash\nbroken line\nwww:x:33:33::/var/www:\n007:x:70:70::/:/bin/sh\n",
    group="root:x:0:\nwww:x:33:\nadm:x:4:www,other\nssl:x:9:www\n12:x:120:\n",
)


def test_a_user_has_supplementary_groups() -> None:
    user = ACCOUNTS.user("www")
    assert (user.uid, user.gid, user.groups, user.home, user.shell) == (33, 33, (33, 4, 9), "/var/www", "/bin/sh")


def test_a_group_replaces_the_users_own() -> None:
    assert ACCOUNTS.user("www:adm").groups == (4,)


def test_a_name_of_digits_is_a_name_first() -> None:
    assert ACCOUNTS.user("007").uid == 70
    assert ACCOUNTS.group_id("12") == 120
    assert ACCOUNTS.group_id("13") == 13


def test_a_number_needs_no_entry_and_takes_one_if_there() -> None:
    assert ACCOUNTS.user("33").name == "www"
    assert ACCOUNTS.user("5000").groups == (5000,)


def test_root_is_there_without_files() -> None:
    assert Accounts().user("root").uid == 0


@pytest.mark.parametrize(
    ("owner", "ids"), [("www", (33, 33)), ("www:adm", (33, 4)), (":adm", (-1, 4)), ("1:2", (1, 2)), ("33", (33, 33))]
)
def test_owners(owner: str, ids: tuple[int, int]) -> None:
    assert ACCOUNTS.owner(owner) == ids


def test_unknown_names_are_errors() -> None:
    for wanted in ("nobody", "nobody:www", "www:nogroup"):
        with pytest.raises(UnknownNameError):
            ACCOUNTS.owner(wanted)


def test_mountinfo() -> None:
    text = (
        "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
        "37 36 0:5 / /mnt\\0402/x rw - tmpfs none rw\n"
    )
    first, second = mounts.parse(text)
    assert (first.id, first.device, first.point, first.type, first.source) == (
        36,
        "98:0",
        "/mnt 2",
        "ext3",
        "/dev/root",
    )
    assert second.within("/mnt 2")
    assert not second.within("/mn")
    assert second.within("/")


def test_a_literal_row_has_three_parts() -> None:
    with pytest.raises(ValueError, match="is \\[type, source, /target\\]"):
        mounts.literal([["proc", "/proc"]])


def test_partition_numbers_may_have_gaps() -> None:
    text = "1 262144 6029279 gpt 0fc63daf\n14 2048 6144 gpt 21686148\n15 8192 253952 gpt c12a7328\n"
    assert parse(text) == {1: Extent(262144, 6029279), 14: Extent(2048, 6144), 15: Extent(8192, 253952)}


def test_an_extended_partition_is_two_sectors() -> None:
    assert parse("2 2048 100000 dos 0x5\n5 4096 1000 dos 0x83\n") == {2: Extent(2048, 2), 5: Extent(4096, 1000)}


def test_changes_of_partitions() -> None:
    known = {1: Extent(10, 10), 2: Extent(20, 10), 3: Extent(30, 10), 4: Extent(40, 10)}
    wanted = {1: Extent(10, 15), 2: Extent(25, 5), 4: Extent(40, 10), 9: Extent(60, 5)}
    told = [(change.operation, change.number) for change in changes(known, wanted)]
    assert told == [(2, 2), (2, 3), (3, 1), (1, 2), (1, 9)]
    assert changes(known, known) == []
    assert isinstance(changes(known, {})[0], Change)


def test_blkid_export() -> None:
    assert parse_export("LABEL=a\\ b=c\nUUID=1\n\nnoise\n") == {"LABEL": "a b=c", "UUID": "1"}


def test_labels_as_link_names() -> None:
    assert link_name("my root/1") == "my\\x20root\\x2f1"
    assert link_name("a-b_c.1:2@3") == "a-b_c.1:2@3"


def test_a_filter_answers_for_each_architecture() -> None:
    code = seccomp.program("x86_64", {"swapon": errno.EPERM})
    answers = [(value, code[at + 1][3]) for at, (operation, _, _, value) in enumerate(code) if operation == 0x15]
    assert (167, 0x00050000 | errno.EPERM) in answers
    assert (87, 0x00050000 | errno.EPERM) in answers
    assert code[-1] == (0x06, 0, 0, 0x7FFF0000)
    for at, (operation, _, skip, _) in enumerate(code):
        assert operation != 0x15 or at + 1 + skip < len(code), "no jump leads out of the program"


def test_an_unknown_machine_has_no_filter() -> None:
    assert seccomp.program("mips", seccomp.NO_SWAP) == []


def test_the_environment_outside() -> None:
    caller = {"PATH": "/venv/bin", "SECRET": "x", "https_proxy": "http://proxy"}
    result = environment.outside(caller, {"A": "1"}, {"A": "2"})
    assert result["PATH"].startswith("/venv/bin:")
    assert result["PATH"].endswith("/sbin:/bin")
    assert (result["A"], result["https_proxy"]) == ("2", "http://proxy")
    assert "SECRET" not in result


def test_capabilities() -> None:
    assert missing((1 << 41) - 1) == []
    assert [text.split()[0] for text in missing(0)] == [f"CAP_{name}" for name in NEEDED]
    names = {"SYS_ADMIN", "MKNOD", "SYS_PTRACE", "SYS_MODULE", "SYS_TIME", "SYS_RAWIO", "SYS_BOOT", "DAC_READ_SEARCH"}
    assert names <= REFUSED.keys()


def test_an_error_shows_the_last_lines_only() -> None:
    chunks = tuple(("stdout", f"line {number}\n".encode()) for number in range(1000))
    text = str(CommandError(Completed("make", 2, 1.0, chunks)))
    assert text.startswith("`make` exited with 2: \nline 970\n")
    assert text.endswith("line 999")
    assert "it printed nothing" in str(CommandError(Completed("make", 2, 1.0)))


def test_only_the_standard_library_is_needed_in_the_keeper() -> None:
    top = Path(environment.__file__).parents[2]
    code = f"import sys; sys.path.append({str(top)!r}); import pytest_azchroot.sandbox.keeper"
    assert os.spawnl(os.P_WAIT, "/proc/self/exe", "python", "-I", "-S", "-c", code) == 0
