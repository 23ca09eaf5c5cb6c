"""Resource ids and request paths of Azure Resource Manager. Pure.

Nothing in a path has a case that matters, and ids keep the case that their first writer gave them.
"""

from __future__ import annotations

from dataclasses import dataclass

COMPUTE = "Microsoft.Compute"
KINDS = {
    kind.lower(): kind
    for kind in (
        "disks",
        "snapshots",
        "images",
        "galleries",
        "versions",
        "virtualMachines",
        "locations",
        "publishers",
        "artifacttypes",
        "offers",
        "skus",
        "DiskOperations",
        "operations",
        "capsOperations",
        "vmSizes",
    )
}
"""How Azure writes the types that we know: some clients send other cases."""


@dataclass(frozen=True)
class ArmPath:
    """``/subscriptions/S[/resourceGroups/G][/providers/P/type/name…[/type]]``.

    `types` and `names` alternate; one more type than names is a collection, or an action on the resource before.
    """

    text: str
    """As the caller wrote it, without a slash at the end."""
    subscription: str | None = None
    group: str | None = None
    provider: str | None = None
    types: tuple[str, ...] = ()
    """In Azure's case, where the type is known."""
    names: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    """What follows a subscription or group where there is no provider: ``locations``."""

    @property
    def key(self) -> str:
        """What two spellings of one id have in common."""
        return self.text.lower()

    @property
    def whole(self) -> bool:
        """Whether it names a resource: as many names as types."""
        return bool(self.types) and len(self.types) == len(self.names)

    @property
    def kind(self) -> str:
        """``disks``, ``galleries/images/versions``: all types, in lower case."""
        return "/".join(self.types).lower()

    @property
    def type(self) -> str:
        """``Microsoft.Compute/galleries/images``, in Azure's case."""
        provider = COMPUTE if (self.provider or "").lower() == COMPUTE.lower() else self.provider
        return f"{provider}/{'/'.join(self.types)}"

    @property
    def name(self) -> str:
        """The last name."""
        return self.names[-1] if self.names else ""

    @property
    def shown_type(self) -> str:
        """As messages write a nested resource: ``Microsoft.Compute/galleries/g/images``."""
        return "/".join([self.type.split("/")[0], *self._pairs()[:-1]]) if self.whole else self.type

    @property
    def parent_id(self) -> str:
        """The resource above, or the resource of an action."""
        cut = 2 if self.whole else 1
        return "/".join(self.text.split("/")[:-cut])

    def _pairs(self) -> list[str]:
        return [each for pair in zip(self.types, self.names, strict=False) for each in pair]


def parse(text: str) -> ArmPath | None:
    """Take a path apart; None if it is no path below ``/subscriptions``."""
    trimmed = text.rstrip("/")
    parts = trimmed.split("/")[1:]
    if not trimmed.startswith("/") or not parts or parts[0].lower() != "subscriptions" or "" in parts:
        return None
    subscription = parts[1] if len(parts) > 1 else None
    rest = parts[2:]
    group = None
    if rest and rest[0].lower() == "resourcegroups" and len(rest) > 1:
        group, rest = rest[1], rest[2:]
    if len(rest) > 2 and rest[0].lower() == "providers":
        steps = rest[2:]
        types = tuple(KINDS.get(each.lower(), each) for each in steps[0::2])
        return ArmPath(trimmed, subscription, group, rest[1], types, tuple(steps[1::2]))
    return ArmPath(trimmed, subscription, group, rest=tuple(rest))


def location_key(name: str) -> str:
    """``West US 2`` and ``westus2`` are one region: compare this."""
    return name.replace(" ", "").lower()
