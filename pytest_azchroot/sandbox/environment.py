"""The clean environments of commands: nothing of the caller's but what is named here."""

from __future__ import annotations

from collections.abc import Mapping

from . import stubs

PATH_INSIDE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

COMMON = {
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    # apt and dpkg must not wait for an answer: standard input is /dev/null
    "DEBIAN_FRONTEND": "noninteractive",
}

INSIDE = {
    **COMMON,
    "PATH": PATH_INSIDE,
    # systemd's own chroot test compares /proc/1/root and is wrong in a PID namespace; its ENVIRONMENT.md
    # recommends this variable to image builders
    "SYSTEMD_OFFLINE": "1",
    # read by systemd's ConditionVirtualization and by maintainer scripts
    "container": "azchroot",
}

COVERED = {
    # else a Python in the image that is only asked something leaves byte code in it, which counts as a write
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""What commands get in addition in an image that is only looked at."""

WITH_STUBS = {"PATH": f"{stubs.DIRECTORY}:{PATH_INSIDE}"}
"""What they get in addition where stubs (:mod:`.stubs`) are lent."""

KEPT_OUTSIDE = (
    # where the tools of the build machine are, and how they reach the network
    "PATH",
    "HOME",
    "TZ",
    *(name for word in ("http", "https", "ftp", "all", "no") for name in (f"{word}_proxy", f"{word}_proxy".upper())),
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
"""Variables of the caller that a tool of the build machine gets."""


def inside(*additions: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command in the image. HOME, USER, LOGNAME and SHELL come from its user."""
    return _merged(INSIDE, *additions)


def outside(caller: Mapping[str, str], *additions: Mapping[str, str]) -> dict[str, str]:
    """The environment of a tool of the build machine, run by root."""
    kept = {name: caller[name] for name in KEPT_OUTSIDE if name in caller}
    fallback = {"HOME": "/root", "PATH": PATH_INSIDE, "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh"}
    return _merged(fallback, COMMON, kept, {"PATH": with_system_tools(kept.get("PATH", ""))}, *additions)


def with_system_tools(path: str) -> str:
    """A search path that has the directories of mount, mkfs and the like: a user's own often has not."""
    given = [part for part in path.split(":") if part]
    return ":".join([*given, *(part for part in PATH_INSIDE.split(":") if part not in given)])


def _merged(*parts: Mapping[str, str]) -> dict[str, str]:
    return {name: value for part in parts for name, value in part.items()}
