"""When an image is sealed, what its checks see of it, and what they leave behind."""

from __future__ import annotations

from pathlib import Path

from pytest_azchroot.build import Build
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.sandbox import Process, Sandbox, Write


class Seal:
    """Keeps the checks of an image from changing it.

    No check ever sees a writable image. Before the first one that no step follows the image is sealed; one that
    stands before a step looks at an overlay that is dropped before that step.

    :param build: the image's build.
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._check: str | None = None
        self._module: Path | None = None
        self._known: frozenset[Write] = frozenset()

    def before_step(self) -> None:
        """A step is about to use the image, if it is mounted.

        :raises AzchrootError: it is sealed.
        """
        if (sandbox := self._mounted()) is None:
            return
        if sandbox.is_sealed:
            raise AzchrootError(
                "the image is sealed, so no step can change it any more",
                why="no step was left when it was, so this one was added or repeated later",
            )
        self.look()
        self._check = None
        sandbox.drop_overlay()

    def before_check(self, nodeid: str, *, module: Path, is_last: bool) -> tuple[Process, ...]:
        """A check is about to use the image, if it is mounted.

        :param is_last: whether no step follows.
        :return: processes that had to be ended.
        :raises DirtyImageError: the image does not seal.
        :raises SandboxError: it cannot be covered by overlays.
        """
        if (sandbox := self._mounted()) is None:
            return ()
        self.look()
        ended = self._cover(sandbox, module=module, is_last=is_last)
        self._check, self._module = nodeid, module
        return ended

    def _cover(self, sandbox: Sandbox, *, module: Path, is_last: bool) -> tuple[Process, ...]:
        if is_last and not sandbox.is_sealed:
            self._known = frozenset()
            sealed = self._build.seal()
            return sealed.unmounted.survivors if sealed else ()
        if not sandbox.is_covered:
            self._known = frozenset()
            sandbox.overlay(resolv_conf=self._build.resolv_conf_of_checks)
        elif self._discards and module != self._module:
            return sandbox.fresh_overlay(resolv_conf=self._build.resolv_conf_of_checks)
        return ()

    def look(self) -> None:
        """Note what the last check has written, for the gate."""
        sandbox = self._mounted()
        if sandbox is None or self._check is None or self._discards or not sandbox.is_covered:
            return
        writes = sandbox.writes()
        if new := [write for write in writes if write not in self._known]:
            self._build.ledger.writes.setdefault(self._check, []).extend(_told(new))
        self._known = frozenset(writes)

    @property
    def _discards(self) -> bool:
        return self._build.image.spec.verify_writes == "discard"

    def _mounted(self) -> Sandbox | None:
        """Where there is something to protect: an image that is mounted and still fit to be published."""
        build = self._build
        fit = build.chroot is not None and build.ledger.trouble is None and not build.interrupted
        return build.sandbox if fit else None


_VERBS = {"written": "wrote", "touched": "touched", "deleted": "deleted", "replaced": "replaced"}


def _told(writes: list[Write]) -> list[str]:
    return [_VERBS[each.kind] + (f" {each.path}" if each.count == 1 else f" {each.count} more") for each in writes]
