"""The packages of an image: read, listed, and compared with another list.

dpkg and apk keep plain text, which is read and parsed here, so that an image without a shell tells too. rpm keeps
databases of several formats, which are its own business: it is asked, in the image.

An image may come from a stranger, so what is read is bounded, and what cannot be understood is said and not guessed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_azchroot.errors import AzchrootError, SandboxError
from pytest_azchroot.gate import some

if TYPE_CHECKING:
    from pytest_azchroot.sandbox import Sandbox

LIMIT = 64 << 20
"""Bytes of a package list. The largest known, a Debian with all of its 60 000 packages, would have about that."""

PATIENCE = 60.0
"""Seconds for rpm, which needs about one for 2000 packages."""

DPKG = ("/var/lib/dpkg/status",)
APK = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
"""The second where /lib and /usr/lib are one, or apk 3 says so."""
RPM = tuple(
    f"{directory}/{file}"
    for directory in ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
    for file in ("rpmdb.sqlite", "Packages.db", "Packages")
)
"""rpm's databases: SQLite, NDB, Berkeley. Without one rpm is not asked, because it would make one."""

_RPM_QUERY = ("rpm", "-qa", "--qf", r"%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\n")
_MISSING = tuple(os.strerror(number) for number in (errno.ENOENT, errno.ENOTDIR))
_DPKG_INSTALLED = frozenset({"installed", "triggers-pending", "triggers-awaited"})
"""dpkg(1): the last two are installed and configured, but something is still to be told to another package."""
_DPKG_GONE = frozenset({"not-installed", "config-files"})


@dataclass(frozen=True, order=True)
class Package:
    """An installed package."""

    name: str
    version: str
    """As its manager writes it, with epoch and release."""
    architecture: str
    """As its manager calls it; empty where it has none (keys that rpm trusts)."""
    manager: str
    """``dpkg``, ``apk``, ``rpm``."""


@dataclass(frozen=True)
class Packages:
    """The packages of an image at one moment."""

    packages: tuple[Package, ...] = ()
    """By name, version, architecture."""
    managers: tuple[str, ...] = ()
    """Those that keep a list in the image."""
    notes: tuple[str, ...] = ()
    """What is missing in the list, or odd about it."""


@dataclass(frozen=True)
class Difference:
    """What became of the packages between two moments."""

    added: tuple[Package, ...] = ()
    removed: tuple[Package, ...] = ()
    changed: tuple[tuple[Package, Package], ...] = ()
    """Other versions, before and after."""


# -- the texts of package managers


@dataclass
class Listing:
    """What one manager's text says."""

    packages: list[Package] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    """Packages that are half there, with their state in brackets."""


def parse_dpkg(text: str) -> Listing:
    """The content of dpkg's ``status``. Source: deb-control(5), and dpkg(1), "Package states"."""
    listing = Listing()
    for paragraph in _paragraphs(text):
        fields: dict[str, str] = {}
        for line in paragraph:
            name, colon, value = line.partition(":")
            if colon and not line[0].isspace():  # a line that begins with a space goes on with the field before
                fields.setdefault(name.lower(), value.strip())
        state = fields.get("status", "").rpartition(" ")[2]
        if "package" not in fields or state in _DPKG_GONE:
            continue
        if state in _DPKG_INSTALLED:
            found = Package(fields["package"], fields.get("version", ""), fields.get("architecture", ""), "dpkg")
            listing.packages.append(found)
        else:
            listing.unfinished.append(f"{fields['package']} ({state or 'of no state'})")
    return listing


def parse_apk(text: str) -> Listing:
    """The content of apk's ``installed``. Source: apk-tools, doc/apk-v2.5.scd and src/database.c."""
    listing = Listing()
    for paragraph in _paragraphs(text):
        fields: dict[str, str] = {}
        for line in paragraph:
            if line[1:2] == ":":  # F:, R: and Z: of files follow those of the package, and p: is not P:
                fields.setdefault(line[0], line[2:])
        if "P" in fields:
            listing.packages.append(Package(fields["P"], fields.get("V", ""), fields.get("A", ""), "apk"))
    return listing


def parse_rpm(text: str) -> Listing:
    """What rpm answers: name, version and architecture, tabs between. Keys have the architecture ``(none)``."""
    rows = (line.split("\t") for line in text.split("\n"))
    return Listing([Package(row[0], row[1], row[2].replace("(none)", ""), "rpm") for row in rows if len(row) == 3])


def _paragraphs(text: str) -> Iterator[list[str]]:
    # Not splitlines(): it also splits at characters that may stand in a description.
    paragraph: list[str] = []
    for line in text.split("\n"):
        if line.strip():
            paragraph.append(line.rstrip("\r"))
        elif paragraph:
            yield paragraph
            paragraph = []
    if paragraph:
        yield paragraph


# -- comparing


def difference(before: Iterable[Package], after: Iterable[Package]) -> Difference:
    """What became of a list.

    A package is known by manager, name and architecture. One of which several versions may be installed (kernels)
    has changed where one version went and one came; else versions were added or removed.
    """
    old, new = _versions(before), _versions(after)
    added, removed, changed = [], [], []
    for key in sorted(old.keys() | new.keys()):
        went = sorted(old.get(key, set()) - new.get(key, set()))
        came = sorted(new.get(key, set()) - old.get(key, set()))
        if len(went) == len(came) == 1:
            changed.append((went[0], came[0]))
        else:
            removed += went
            added += came
    return Difference(tuple(added), tuple(removed), tuple(changed))


def _versions(packages: Iterable[Package]) -> dict[tuple[str, str, str], set[Package]]:
    found: dict[tuple[str, str, str], set[Package]] = {}
    for each in packages:
        found.setdefault((each.name, each.architecture, each.manager), set()).add(each)
    return found


# -- reading


def read_packages(sandbox: Sandbox) -> Packages:
    """The packages of the mounted image. It never fails: what could not be read is in the notes."""
    packages: list[Package] = []
    managers: list[str] = []
    notes: list[str] = []
    try:
        there = sandbox.present((*DPKG, *APK, *RPM))
    except AzchrootError as error:
        return Packages(notes=(_told(error),))
    for manager, read in _READERS.items():
        try:
            listing = read(sandbox, there)
        except AzchrootError as error:
            notes.append(f"{manager}: {_told(error)}")
            continue
        if listing is None:
            continue
        managers.append(manager)
        packages += listing.packages
        if listing.unfinished:
            notes.append(f"{manager}: not fully installed: {some(listing.unfinished, 20)}")
    if not managers and not notes:
        notes.append(f"no package manager was found ({', '.join(_READERS)})")
    return Packages(tuple(sorted(packages)), tuple(managers), tuple(notes))


def _told(error: AzchrootError) -> str:
    return error.what + (f": {error.why.strip()}" if error.why else "")


_Reader = Callable[["Sandbox", Sequence[str]], "Listing | None"]
"""Takes the lists that are there, too."""


def _from_file(paths: Sequence[str], parse: Callable[[str], Listing]) -> _Reader:
    def read(sandbox: Sandbox, there: Sequence[str]) -> Listing | None:
        for path in (each for each in paths if each in there):
            data = _content(sandbox, path, LIMIT + 1)
            if data is None:
                continue
            if len(data) > LIMIT:
                raise SandboxError(f"{path} has more than {LIMIT >> 20} MiB, which is no list of packages")
            return parse(data.decode(errors="replace"))
        return None

    return read


def _from_rpm(sandbox: Sandbox, there: Sequence[str]) -> Listing | None:
    if not any(_content(sandbox, path, 1) for path in RPM if path in there):
        return None
    heard = 0

    def bounded(stream: str, data: bytes) -> None:
        nonlocal heard
        heard += len(data)
        if heard > LIMIT:
            raise SandboxError(f"it answers with more than {LIMIT >> 20} MiB, which is no list of packages")

    return parse_rpm(sandbox.inside(_RPM_QUERY, timeout=PATIENCE, output=bounded).stdout)


def _content(sandbox: Sandbox, path: str, limit: int) -> bytes | None:
    """The beginning of a file of the image; None where there is none."""
    try:
        return sandbox.read(path, limit=limit)
    except SandboxError as error:
        if error.what.startswith(_MISSING):
            return None
        raise


_READERS: dict[str, _Reader] = {
    "dpkg": _from_file(DPKG, parse_dpkg),
    "apk": _from_file(APK, parse_apk),
    "rpm": _from_rpm,
}
