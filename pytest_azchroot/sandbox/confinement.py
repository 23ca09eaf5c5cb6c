"""What commands in the image may do, and whether their syncs are carried out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Confinement:
    """How commands in the image are held. Tools of the build machine are not."""

    unconfined: tuple[str, ...] = ()
    """Capabilities of :data:`.capabilities.REFUSED` that they have nevertheless, without ``CAP_``. ``MKNOD`` lets
    device nodes open that are in the image, ``SYS_ADMIN`` lets user namespaces be made."""
    fast_sync: bool = True
    """Their syncs are answered with success and not carried out: see :mod:`.seccomp`."""
