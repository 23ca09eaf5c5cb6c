"""The tables in the reference of the emulator, made of its own: ``python -m tests.docs.emulator_page``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from pytest_azchroot.emulator import arm, regions, sizes
from pytest_azchroot.emulator.azure import got, listed
from tests.docs.markdown import ROOT

PAGE = ROOT / "docs" / "reference" / "emulator.md"

CASE = {
    "virtualmachines": "virtualMachines",
    "vmsizes": "vmSizes",
    "begingetaccess": "beginGetAccess",
    "endgetaccess": "endGetAccess",
    "attachdetachdatadisks": "attachDetachDataDisks",
    "instanceview": "instanceView",
    "poweroff": "powerOff",
}
"""How Azure writes what is compared without case."""

DIFFERENCES = {
    (
        "PUT",
        "disks",
    ): "`encryption`, `networkAccessPolicy` and performance tiers are kept and shown, and do nothing",
    ("PUT", "snapshots"): "incremental ones are whole copies",
    ("PUT", "images"): "its source need not be generalized",
    (
        "PUT",
        "galleries/images/versions",
    ): "copies go nowhere: a region that is named has it at once, with the operation",
    ("PUT", "galleries"): "sharing and soft deletion are kept and shown, and do nothing",
    (
        "PUT",
        "virtualmachines",
    ): "another machine than the one that this machine plays is a model alone, without devices. Its own disk is a name",
    ("DELETE", "virtualmachines"): "not the machine that this machine plays",
    ("GET", "skus/*"): "disks and sizes of virtual machines, and of these the ones below",
    (
        "GET",
        "locations/publishers/artifacttypes/offers/skus/versions",
    ): "what `--image` named. Azure has no version called `latest`; no client was seen to ask for it",
}
"""What a client could notice, beside what the page says of all operations."""


def operations() -> Iterator[str]:
    """A table of everything of Microsoft.Compute that is answered."""
    yield from ("| | does | otherwise than Azure |", "| --- | --- | --- |")
    for (method, kind), handler in arm.ROUTES.items():
        yield f"| `{method} {path(kind, method)}` | {_what(handler)} | {DIFFERENCES.get((method, kind), '')} |"


def path(kind: str, method: str) -> str:
    """``disks/*`` as ``disks``, ``galleries/images`` as ``galleries/{}/images/{}``."""
    parts = [CASE.get(part, part) for part in kind.removesuffix("/*").split("/")]
    whole = not kind.endswith("/*")
    text = "/{}/".join(parts) + ("/{}" if whole else "")
    return re.sub(r"^locations/\{\}/publishers", "locations/{}/publishers", text)


def _what(handler: Any) -> str:
    if handler is got:
        return "one"
    if handler is listed or handler.__name__ == "_list":
        return "all of a group, or of the subscription; below a parent, all of it"
    return re.sub(r"``(.+?)``", r"`\1`", inspect.getdoc(handler) or "").split("\n\n")[0].replace("\n", " ")


def profile_kinds(kinds: list[str]) -> Iterator[str]:
    """The operations that a profile can have seconds for."""
    by_kind: dict[str, list[str]] = {}
    for each in kinds:
        kind, _, verb = each.partition(".")
        by_kind.setdefault(kind, []).append(verb)
    for kind, verbs in by_kind.items():
        yield f"- `{kind}.`: " + ", ".join(f"`{verb}`" for verb in verbs)


def machine_sizes() -> Iterator[str]:
    """Every size, and what of it matters."""
    yield from ("| size | data disks | generations | controller |", "| --- | --- | --- | --- |")
    for size in sizes.SIZES.values():
        yield f"| `{size.name}` | {size.disks} | {size.generations} | {size.controllers} |"


def region_names() -> Iterator[str]:
    """Every region."""
    yield ", ".join(f"`{name}`" for name in regions.REGIONS) + "."


def page(text: str, kinds: list[str]) -> str:
    """A page with its tables as they have to be.

    :param kinds: of operations.
    """
    tables = {
        "operations": operations(),
        "kinds": profile_kinds(kinds),
        "sizes": machine_sizes(),
        "regions": region_names(),
    }
    for name, lines in tables.items():
        begin, end = f"<!-- {name}, made by tests/docs/emulator_page.py -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        assert rest, f"the page has no {begin}"
        _, _, after = rest.partition(end)
        text = "\n".join([before + begin, "", *lines, "", end]) + after
    return text


def made() -> str:
    """The page as it has to be."""
    kinds = sorted(arm.works(None))  # type: ignore[arg-type]  # what the works would do needs an emulator, their names do not
    return page(PAGE.read_text(encoding="utf-8"), kinds)


if __name__ == "__main__":
    PAGE.write_text(made(), encoding="utf-8")
