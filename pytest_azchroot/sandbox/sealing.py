"""The end of an image's changes: unmounting strictly, the seal, and the overlays under which it is looked at."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pytest_azchroot.disk import loop
from pytest_azchroot.errors import AzchrootError, DirtyImageError, SandboxError, recast, told

from .connection import Connection
from .result import Process, Sealed, Unmounted, Write, how_it_ended
from .transfer import Transfers

if TYPE_CHECKING:
    from .checks import Checks

Rows = Sequence[tuple[str, str, str]]
ResolvConf = Literal["host", "image"]

_WRITES_PATIENCE = 120.0
"""Seconds; a million files take some ten."""


class Sealing(Transfers):
    """From the last change of an image to its release.

    ::

        mounted ── overlay() ─▶ covered ── drop_overlay() ─▶ mounted ── seal() ─▶ sealed, covered ── unmount(), close()

    While it is covered, everything that goes into the image goes to memory: commands, files, testinfra.
    """

    _checks: Checks

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._mount_path: str | None = None
        self._covered: str | None = None
        self._sealed: Sealed | None = None
        self._failure: DirtyImageError | None = None
        self._lent: list[Rows | None] = []
        self.device: str = connection.description["device"]
        """The disk: ``/dev/loop3``, ``/dev/sdc``. The seal changes it if another program takes the loop device in
        between, and always if it was no loop device; ``/dev/image``, ``/dev/image1`` are the same all the time."""
        self._backing: str | None = connection.description["backing"]
        self._loops: dict[str, str | None] = {}
        """Those of logical volumes, and what they are bound to."""

    def ask(self, operation: str, **arguments: Any) -> Any:
        """A request to the holder, for the modules of this package.

        :raises DirtyImageError: the seal has failed.
        """
        self._refuse()
        return self._connection.ask(operation, **arguments)

    def _refuse(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _transfer(self, *arguments: Any, **options: Any) -> None:
        self._refuse()
        super()._transfer(*arguments, **options)

    # ---- processes

    def _dismiss(self, why: str, *, covered: bool = False) -> tuple[Process, ...]:
        """End what visitors run (:mod:`.visitors`), or only what runs ``covered``, and let none in for now."""
        return tuple(Process(**found) for found in self.ask("dismiss", why=why, covered=covered))

    def visits(self) -> int:
        """How often somebody has entered the image from another terminal while it could be changed."""
        visits: int = self.ask("visits")
        return visits

    def survivors(self) -> tuple[Process, ...]:
        """Processes that have outlived their command; not those of visitors, whom tests have nothing to do with."""
        return tuple(Process(**found) for found in self.ask("survivors"))

    def end(self, processes: Iterable[Process]) -> None:
        """TERM, two seconds, KILL.

        :raises SandboxError: one does not end.
        """
        self.ask("end", pids=[process.pid for process in processes])

    # ---- the end of all changes

    def unmount(self) -> Unmounted:
        """Unmount the image strictly. Unless it was sealed before: let its file systems discard what they do not use,
        write them out, and check them without writing to them.

        :raises DirtyImageError: something held the image, or a file system is not clean: it must not be published.
        """
        survivors = (*self._dismiss("the build closes the image"), *self.survivors())
        self.end(survivors)
        self._uncover()
        if self._sealed is None:
            self.ask("give_back")
        trimmed = self._checks.strictly("unmount")
        self._mount_path = None
        self._lent.clear()
        self._checks.wait_until_unused()
        if self._sealed is not None:
            return Unmounted(survivors, self._sealed.unmounted.checked, self._sealed.unmounted.trimmed)
        self.ask("flush")
        return Unmounted(survivors, self._checks.file_systems(), tuple((node, size) for node, size in trimmed))

    def seal(self, *, resolv_conf: ResolvConf = "image") -> Sealed:
        """End all changes: unmount strictly, unbind the disk, bind it again read-only, mount what was mounted, cover it
        by overlays, and lend again what was lent by :meth:`lend`. Copied files are not lent again: the image is seen
        as it ships. Only the first call does anything.

        :param resolv_conf: ``host`` lends the build machine's name servers to what runs from here on.
        :raises DirtyImageError: as :meth:`unmount`; or it cannot be mounted again. Every request afterwards raises the
            same error.
        """
        if self._sealed is not None:
            return self._sealed
        self._refuse()
        laps = Laps()
        lent = [*self._lent]
        try:
            with laps("unmount"):
                self.drop_overlay()
                self.ask("record")
                unmounted = self.unmount()
            with laps("reopen"):
                again = self.ask("reopen")
                self.device, self._backing = again["device"], again["backing"]
                self._know_loops(again["loops"])
            self._lent = lent
            with laps("overlay"):
                self._cover(resolv_conf)
        except BaseException as error:
            if not isinstance(error, AzchrootError):
                self._failure = DirtyImageError("the image was not sealed", why=f"interrupted by {told(error)}")
                raise
            # the same error, of the kind that this method promises: to show both would say everything twice
            self._failure = recast(error, DirtyImageError).with_traceback(error.__traceback__)
            raise self._failure from error.__cause__
        self._sealed = Sealed(unmounted, self.device, laps.seconds)
        return self._sealed

    def _know_loops(self, names: Iterable[str]) -> None:
        self._loops = {name: loop.bound_to(name) for name in names}

    # ---- overlays

    @property
    def is_covered(self) -> bool:
        """Whether what is written goes to overlays."""
        return self._covered is not None

    @property
    def is_sealed(self) -> bool:
        """Whether the disk is only read from here on."""
        return self._sealed is not None

    def overlay(self, *, resolv_conf: ResolvConf = "image") -> None:
        """Cover the mounted image by overlays until :meth:`drop_overlay`, and lend to it as :meth:`seal` does. Does
        nothing if it is covered.

        What changes the image meanwhile (a process from before) is seen or not: overlayfs promises nothing then.

        :raises SandboxError: overlayfs refuses one of its file systems.
        """
        if not self.is_covered:
            self._cover(resolv_conf)

    def drop_overlay(self) -> None:
        """Take the overlays away, with what was written to them. Does nothing if there are none.

        :raises DirtyImageError: something of this machine holds one; who.
        """
        if self.is_covered:
            self._dismiss("the build drops the overlay that this was written to", covered=True)
            self._uncover()
            self.ask("admit")

    def _uncover(self) -> None:
        if self.is_covered:
            self._checks.strictly("uncover")
            self._covered = None

    def fresh_overlay(self, *, resolv_conf: ResolvConf = "image") -> tuple[Process, ...]:
        """End what still runs, and replace the overlays by empty ones.

        :return: what was still running.
        :raises DirtyImageError: something of this machine holds an overlay.
        """
        survivors = self.survivors()
        self.end(survivors)
        self.drop_overlay()
        self._cover(resolv_conf)
        return survivors

    def writes(self) -> tuple[Write, ...]:
        """What was written to the overlays since they were made, in the order of paths. What is below ``/run``,
        ``/tmp``, ``/var/tmp``, ``/var/log`` and ``/var/cache`` is not meant to last and does not count, nor does what
        is lent. The first thousand are named; one more, of ``/``, counts the rest.

        :raises SandboxError: there are no overlays; or what was written cannot be listed.
        """
        self._refuse()
        code, chunks = self._connection.run("writes", {}, timeout=_WRITES_PATIENCE)
        if code != 0:
            ended = f"took more than {_WRITES_PATIENCE:.0f} seconds" if code is None else how_it_ended(code)
            raise SandboxError("what was written to the image cannot be listed", why=f"the list {ended}")
        return tuple(Write(**json.loads(line)) for line in b"".join(data for _, data in chunks).splitlines())

    def _cover(self, resolv_conf: ResolvConf) -> None:
        lent = [None if rows is None else [list(row) for row in rows] for rows in self._lent]
        self._covered = self.ask("cover", lent=lent, host_resolv_conf=resolv_conf == "host")


class Laps:
    """Seconds, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
