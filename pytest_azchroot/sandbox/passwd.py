"""Users and groups of the image, read from its own files; never by the C library, which would ask the build
machine's name services. Pure: text in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass


class UnknownNameError(LookupError):
    """The image has no such user or group."""


@dataclass(frozen=True)
class User:
    """Who a command runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str


@dataclass(frozen=True)
class Accounts:
    """The text of the image's ``/etc/passwd`` and ``/etc/group``; empty where it has none."""

    passwd: str = ""
    group: str = ""

    def user(self, wanted: str) -> User:
        """A user by ``name``, ``uid``, ``name:group`` or ``uid:gid``, with supplementary groups unless a group is
        given, as su(1) and chroot(1) do.

        :raises UnknownNameError: a name that the image does not know. A number needs no entry.
        """
        name, _, group = wanted.partition(":")
        found = self._user(name)
        if not group:
            return found
        gid = self.group_id(group)
        return User(found.name, found.uid, gid, (gid,), found.home, found.shell)

    def owner(self, wanted: str) -> tuple[int, int]:
        """User and group of ``name``, ``name:group``, ``uid:gid``, ``:group``, as chown(1); -1 keeps.

        A name alone takes the user's own group along.
        """
        name, _, group = wanted.partition(":")
        if not name:
            return -1, self.group_id(group)
        user = self._user(name)
        return user.uid, self.group_id(group) if group else user.gid

    def group_id(self, wanted: str) -> int:
        """:raises UnknownNameError: a name that the image does not know."""
        for fields in _rows(self.group, 4):
            if fields[0] == wanted:
                return int(fields[2])
        if wanted.isdecimal():
            return int(wanted)
        raise UnknownNameError(f"the image has no group {wanted!r}")

    def _user(self, wanted: str) -> User:
        rows = _rows(self.passwd, 7)
        named = [row for row in rows if row[0] == wanted]
        numbered = [row for row in rows if wanted.isdecimal() and row[2] == str(int(wanted))]
        for row in named or numbered:
            name, _, uid, gid, _, home, shell = row[:7]
            return User(name, int(uid), int(gid), self._groups(name, int(gid)), home or "/", shell or "/bin/sh")
        if wanted == "root":
            return User("root", 0, 0, (0,), "/root", "/bin/sh")
        if wanted.isdecimal():
            return User(wanted, int(wanted), int(wanted), (int(wanted),), "/", "/bin/sh")
        raise UnknownNameError(f"the image has no user {wanted!r}")

    def _groups(self, name: str, gid: int) -> tuple[int, ...]:
        member = {int(row[2]) for row in _rows(self.group, 4) if name in row[3].split(",")}
        return (gid, *sorted(member - {gid}))


def _rows(text: str, width: int) -> list[list[str]]:
    lines = (line for line in text.splitlines() if not line.startswith("#") and "\0" not in line)
    rows = (line.split(":") for line in lines)
    return [row for row in rows if len(row) >= width and _is_id(row[2]) and (width == 4 or _is_id(row[3]))]


def _is_id(text: str) -> bool:
    """The largest number of 32 bits is none: it means "as it is" (chown(2), setresuid(2))."""
    return len(text) <= 10 and text.isascii() and text.isdecimal() and int(text) < (1 << 32) - 1
