"""No form in which a secret can stand in output survives, and nothing else is touched."""

from __future__ import annotations

import json
import shlex
import traceback
from collections.abc import Callable

import pytest
from _pytest._io.saferepr import saferepr

from pytest_azchroot.masking import MASK, Masker

SECRETS = [
    "hunter2",
    "abcd",
    "with blank",
    "it's",
    'say "x" now',
    """both ' and " here""",
    "back\\slash",
    "new\nline here",
    "tab\there",
    "dollar $HOME `x`",
    "ümläut€",
    "*.+?[a](b)",
    "...dots...",
    "\x00\x1bzero",
    "-----BEGIN KEY-----\nMIIEvQIBADAN\n  BgkqhkiG9w0B\n-----END KEY-----\n",
    "aaaaaaaa",
    "x" * 5000,
]

WRITERS: dict[str, Callable[[str], str]] = {
    "verbatim": str,
    "repr": repr,
    "ascii": ascii,
    "repr of more": lambda secret: repr(f"a ' b \" {secret}"),
    "repr of a list": lambda secret: repr(["x", secret]),
    "repr of bytes": lambda secret: repr(secret.encode("ascii", "backslashreplace")),
    "json": json.dumps,
    "json in unicode": lambda secret: json.dumps(secret, ensure_ascii=False),
    "json in json": lambda secret: json.dumps(json.dumps({"a": secret})),
    "shell": shlex.quote,
    "shell, in more": lambda secret: shlex.quote(f"echo {secret}"),
    "shell, in a shell": lambda secret: shlex.quote(f"echo {shlex.quote(secret)}"),
    "repr of a command": lambda secret: repr(f"echo {shlex.quote(secret)}"),
    "json of a command": lambda secret: json.dumps({"command": f"echo {shlex.quote(secret)}"}),
    "traceback": lambda secret: "".join(traceback.format_exception_only(ValueError, ValueError(secret))),
    "twice": lambda secret: f"{secret} and {secret}",
}


def pieces(secret: str) -> list[str]:
    return [line.strip() for line in secret.splitlines() if len(line.strip()) >= 4]


@pytest.mark.parametrize("write", [pytest.param(write, id=name) for name, write in WRITERS.items()])
@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: ascii(secret[:12]))
def test_no_form_of_a_secret_survives(secret: str, write: Callable[[str], str]) -> None:
    masked = Masker([secret]).mask(f"before {write(secret)} after")
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert MASK in masked
    for piece in pieces(secret):
        assert piece not in masked
        assert repr(piece)[1:-1] not in masked


@pytest.mark.parametrize("text", ["", "hunter", "hunter 2", "Hunter2", "***", "no secret ... here", "hun...", "...er2"])
def test_what_holds_no_secret_is_the_same_object(text: str) -> None:
    assert Masker(["hunter2"]).mask(text) is text


def test_without_secrets_nothing_changes() -> None:
    text = "hunter2 ... hunter"
    data = {"a": [text]}
    assert Masker([]).mask(text) is text
    assert Masker([]).mask_data(data) == data


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("hunt...", "***..."),
        ("password=hunter...", "password=***..."),
        ("...ter2", "...***"),
        ("'hunt...ter2'", "'***...***'"),
        ("hunt…ter2", "***…***"),
        ("hun...er2", "hun...er2"),
        ("hunt ...", "hunt ..."),
        ("xhunte...yter2", "x***...yter2"),
        ("hunter2...", "***..."),
        ("hunter2 and hunte... and ...unter2", "*** and ***... and ...***"),
    ],
)
def test_what_truncation_leaves_is_masked(text: str, masked: str) -> None:
    assert Masker(["hunter2"]).mask(text) == masked


def test_truncation_of_an_escaped_secret_is_masked() -> None:
    masker = Masker(["first\nsecond line"])
    assert masker.mask(repr("first\nsecond line")[:-6] + "...'") == "'***...'"


def test_pytests_own_truncation_leaves_nothing() -> None:
    secret = "".join(f"{number:03}-" for number in range(200))
    masked = Masker([secret]).mask(saferepr({"token": secret}, maxsize=100))
    assert not any(f"{number:03}-" in masked for number in range(200))


@pytest.mark.parametrize(
    ("secrets", "text", "masked"),
    [
        (["abcd", "abcdefgh"], "abcdefgh abcd", "*** ***"),
        (["abcdef", "efghij"], "abcdefghij", "***"),
        (["aaaa"], "aaaaaa", "***"),
        (["abcd", "efgh"], "abcdefgh", "******"),
        (["abcd"], "abcabcd", "abc***"),
    ],
)
def test_secrets_that_hold_or_overlap_each_other(secrets: list[str], text: str, masked: str) -> None:
    assert Masker(secrets).mask(text) == masked


def test_each_line_of_a_secret_is_masked_wherever_it_is_indented() -> None:
    masker = Masker(["line one\n  line two\nxy\n"])
    assert masker.mask("E   line two\nE   xy\n> line one") == "E   ***\nE   xy\n> ***"


@pytest.mark.parametrize(
    ("data", "masked"),
    [
        ("a hunter2", "a ***"),
        (["hunter2", 1, None, True], ["***", 1, None, True]),
        ({"hunter2": {"a": ("hunter2", 2.5)}}, {"***": {"a": ("***", 2.5)}}),
        (12345678, "***"),
        ([1234, 123456789], [1234, "***9"]),
        (0.5, 0.5),
        (b"hunter2", b"hunter2"),
    ],
)
def test_data_is_masked_at_any_depth(data: object, masked: object) -> None:
    assert Masker(["hunter2", "12345678"]).mask_data(data) == masked


@pytest.mark.parametrize("secret", ["", "abc", "  a ", "\n\n\n\n"])
def test_what_is_too_short_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="less than 4 characters"):
        Masker(["long enough", secret])


def test_the_masker_does_not_show_its_secrets() -> None:
    assert "hunter2" not in repr(Masker(["hunter2"]))
