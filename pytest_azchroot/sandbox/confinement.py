"""What commands in the image may do, and whether their syncs are carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Confinement:
    """How commands in the image are held. Tools of the build machine are not."""

    unconfined: tuple[str, ...] = ()
    """Capabilities of :data:`.capabilities.REFUSED` that they have nevertheless, without ``CAP_``. ``MKNOD`` lets
    device nodes open that are in the image, ``SYS_ADMIN`` lets user namespaces be made."""
    fast_sync: bool = True
    """Their syncs are answered with success and not carried out: see :mod:`.seccomp`."""
    metadata_service: bool = False
    """They reach the metadata service of the VM they are built on: see :mod:`.metadata`."""

    @property
    def of_a_command(self) -> dict[str, Any]:
        """What each command is told; the rest is the same for all of a sandbox."""
        return {"unconfined": self.unconfined, "fast_sync": self.fast_sync}
