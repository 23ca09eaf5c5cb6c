"""What a step has in hand: commands, scripts and files of the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_azchroot.errors import SandboxError

from .result import Completed
from .sandbox import Sandbox

_SCRIPTS = "/run/azchroot"
"""Where scripts lie while they run: /run is the sandbox's own tmpfs, so nothing of them reaches the image."""


class Chroot:
    """A mounted image, as the steps of a suite change it.

    Commands in the image see ``AZCHROOT_DEVICE`` (the disk's node, the same inside and outside) and
    ``AZCHROOT_MOUNT_PATH``: ``/`` inside, and for a tool of the build machine the directory where the image is
    mounted.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        directory: Path,
        environment: Mapping[str, str],
        timeout: float | None,
        guard: Callable[[], None] | None,
    ) -> None:
        """:param directory: what relative paths of the build machine start from.
        :param environment: variables for every command, such as ``AZCHROOT_IMAGE``.
        :param timeout: seconds, for a command that names none; None is no limit.
        :param guard: called first by every method; raises where the image must not be changed.
        """
        self._sandbox = sandbox
        self._directory = directory
        self._environment = dict(environment)
        self._timeout = timeout
        self._guard = guard or _nothing

    def __repr__(self) -> str:
        return f"<Chroot {self.device}>"  # nothing that asks the sandbox, which may have ended

    @property
    def device(self) -> str:
        """The image's disk, ``/dev/loop3``: what a boot loader is installed on."""
        return self._sandbox.device

    @property
    def mount_path(self) -> str:
        """Where the image is mounted, for tools of the build machine. Only :meth:`run_outside` sees it there."""
        return self._sandbox.mount_path

    def partition(self, number: int) -> str:
        """The node of a partition, ``/dev/loop3p1``; 0 is the disk.

        :raises SandboxError: there is no such partition.
        """
        return self._sandbox.partition(number)

    def run(
        self,
        *command: str | Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        input: str | bytes | None = None,
        ok_codes: Sequence[int] = (0,),
        check: bool = True,
    ) -> Completed:
        """Run a command in the image: ``run("apt-get install -y nginx")`` by ``sh -ec``, ``run("useradd", "x")`` or
        ``run(["useradd", "x"])`` as it is.

        :param user: ``name``, ``uid``, ``name:group`` of the image; default: root.
        :param timeout: seconds.
        :param input: its standard input, which is empty otherwise.
        :raises CommandError: an exit code that is not in ``ok_codes``, unless ``check`` is false; a timeout always.
        :raises SandboxError: it could not be started.
        """
        self._guard()
        return self._sandbox.inside(
            _one(command),
            env={**self._variables("/"), **(env or {})},
            cwd=cwd,
            user=user,
            timeout=self._seconds(timeout),
            input=input,
            ok_codes=ok_codes,
            check=check,
        )

    def script(
        self,
        path: str | Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        input: str | bytes | None = None,
        ok_codes: Sequence[int] = (0,),
        check: bool = True,
    ) -> Completed:
        """Run a script of the build machine in the image: by its ``#!`` line, else by ``sh -e``. It lies in the
        sandbox's /run meanwhile and is never part of the image. Parameters and errors as :meth:`run`."""
        self._guard()
        source = self._directory / path
        try:
            with source.open("rb") as file:
                interpreted = file.read(2) == b"#!"
        except OSError as error:
            raise SandboxError(f"the script {source} cannot be read", why=error.strerror) from error
        inside = f"{_SCRIPTS}/{source.name}"
        self._sandbox.put(source, inside, mode=0o755)
        try:
            return self._sandbox.inside(
                [*(() if interpreted else ("/bin/sh", "-e")), inside, *arguments],
                env={**self._variables("/"), **(env or {})},
                cwd=cwd,
                user=user,
                timeout=self._seconds(timeout),
                input=input,
                ok_codes=ok_codes,
                check=check,
            )
        finally:
            self._sandbox.remove(inside)

    def run_outside(
        self,
        *command: str | Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout: float | None = None,
        input: str | bytes | None = None,
        ok_codes: Sequence[int] = (0,),
        check: bool = True,
    ) -> Completed:
        """Run a tool of the build machine beside the image, which it finds at :attr:`mount_path`
        (``$AZCHROOT_MOUNT_PATH``): Ansible over its chroot connection, a package manager with ``--root``. It starts
        in the image's directory. Parameters and errors as :meth:`run`."""
        self._guard()
        return self._sandbox.outside(
            _one(command),
            env={**self._variables(self.mount_path), **(env or {})},
            cwd=self._directory / (cwd or "."),
            timeout=self._seconds(timeout),
            input=input,
            ok_codes=ok_codes,
            check=check,
        )

    def put(self, source: str | Path, target: str, *, mode: int | None = None, owner: str | None = None) -> None:
        """Copy a file or directory of the build machine into the image; see :meth:`Sandbox.put`."""
        self._guard()
        self._sandbox.put(self._directory / source, target, mode=mode, owner=owner)

    def get(self, source: str, target: str | Path) -> None:
        """Copy a file or directory of the image to the build machine; see :meth:`Sandbox.get`."""
        self._guard()
        self._sandbox.get(source, self._directory / target)

    def write_text(self, path: str, text: str, *, mode: int | None = None, owner: str | None = None) -> None:
        """Write a file of the image in UTF-8; mode and owner as :meth:`Sandbox.write`."""
        self._guard()
        self._sandbox.write(path, text.encode(), mode=mode, owner=owner)

    def read_text(self, path: str) -> str:
        """A file of the image in UTF-8.

        :raises SandboxError: it cannot be read, or is not UTF-8.
        """
        self._guard()
        try:
            return self._sandbox.read(path).decode()
        except UnicodeDecodeError as error:
            raise SandboxError(f"{path} is not UTF-8", why=str(error), hint="fetch its bytes with get()") from error

    def _variables(self, mount_path: str) -> dict[str, str]:
        return {**self._environment, "AZCHROOT_DEVICE": self.device, "AZCHROOT_MOUNT_PATH": mount_path}

    def _seconds(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else timeout


def _one(command: Sequence[str | Sequence[str]]) -> str | Sequence[str]:
    if len(command) == 1:
        return command[0]
    if not command or not all(isinstance(part, str) for part in command):
        raise TypeError("a command is one string, one list of strings, or several strings")
    return [str(part) for part in command]


def _nothing() -> None:
    """No guard."""
