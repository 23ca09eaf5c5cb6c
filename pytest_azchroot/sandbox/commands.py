"""Commands beside the image and in it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_azchroot.errors import SandboxError

from . import environment
from .asking import Hear
from .confinement import Confinement
from .connection import Connection
from .pump import Moves
from .result import CommandError, Completed, as_shown, how_it_ended
from .sealing import Sealing

Command = str | Sequence[str]


class Commands(Sealing):
    """Runs commands, and hears them while they run."""

    def __init__(
        self, connection: Connection, *, output: Hear | None, variables: Mapping[str, str], confinement: Confinement
    ) -> None:
        super().__init__(connection)
        self._confinement = confinement
        self._stubs = False
        self._output = output
        self._environment = dict(variables)

    def outside(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout: float | None = None,
        input: bytes | str | None = None,
        check: bool = True,
        ok_codes: Sequence[int] = (0,),
        output: Hear | None = None,
    ) -> Completed:
        """Run a tool of the build machine in the sandbox's mount namespace, beside the image and not in it.

        A string is for ``sh -ec``. When it has ended the partition nodes are made what the partition table says.

        :param timeout: seconds, after which all its processes are ended.
        :raises CommandError: an exit code that is not in ``ok_codes``, unless ``check`` is false; a timeout always.
        :raises SandboxError: it could not be started.
        """
        variables = environment.outside(os.environ, self._environment, env or {})
        return self._run(
            "outside",
            command,
            {"environment": variables, "directory": _text(cwd), "settles": True},
            timeout=timeout,
            content=_bytes(input),
            ok_codes=ok_codes if check else None,
            hear=output or self._output,
        )

    def inside(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        user: str | None = None,
        timeout: float | None = None,
        input: bytes | str | None = None,
        check: bool = True,
        ok_codes: Sequence[int] = (0,),
        output: Hear | None = None,
    ) -> Completed:
        """Run a command in the image: as its root directory, without the build machine's file system, and without
        the capabilities named in :mod:`.capabilities`.

        A string is for ``sh -ec``. Standard input is ``input``, else empty.

        :param user: ``name``, ``uid``, ``name:group`` or ``uid:gid`` of the image.
        :param timeout: seconds, after which all its processes are ended.
        :raises CommandError: an exit code that is not in ``ok_codes``, unless ``check`` is false; a timeout always.
        :raises SandboxError: it could not be started: no such command, directory or user.
        """
        self._refuse()
        variables = environment.inside(self._variables, self._environment, env or {})
        return self._run(
            "inside",
            command,
            {"environment": variables, "directory": _text(cwd), "user": user, **self._confinement.of_a_command},
            timeout=timeout,
            content=_bytes(input),
            ok_codes=ok_codes if check else None,
            hear=output or self._output,
        )

    def attend(
        self, command: Sequence[str], *, env: Mapping[str, str], streams: Moves, size: tuple[int, int] | None
    ) -> int:
        """Run a command in the image for a person who watches it, and end what it leaves.

        :param command: empty for root's shell.
        :param env: in addition to what :meth:`inside` gives.
        :param streams: what hands on its input and output.
        :param size: rows and columns of the terminal that it gets; None for pipes.
        :return: its exit code; negative is a signal.
        :raises SandboxError: it could not be started.
        """
        self._refuse()
        variables = environment.inside(self._variables, self._environment, env)
        asked = attendance(command, variables, confinement=self._confinement, size=size)
        return exit_code(self._connection.attend("attended", asked, streams))

    @property
    def _variables(self) -> Mapping[str, str]:
        return additions(covered=self.is_covered, stubs=self._stubs)

    def _run(
        self,
        operation: str,
        command: Command,
        arguments: Mapping[str, Any],
        *,
        timeout: float | None,
        content: bytes | None,
        ok_codes: Sequence[int] | None,
        hear: Hear | None,
    ) -> Completed:
        argv = ["/bin/sh", "-ec", command] if isinstance(command, str) else [os.fspath(part) for part in command]
        for part in (*argv, *(word for item in arguments["environment"].items() for word in item)):
            if "\0" in part:
                raise SandboxError(f"a command or variable cannot hold a NUL character: {part[:80]!r}")
        if hear is not None and hear is self._output:  # a log wants to know whose output comes; a caller knows
            hear("stdout", f"$ {as_shown(command)}\n".encode(errors="replace"))
        started = time.monotonic()
        code, chunks = self._connection.run(
            operation, {"argv": argv, **arguments}, content=content, timeout=timeout, hear=hear
        )
        duration = time.monotonic() - started
        completed = Completed(as_shown(command), -9 if code is None else code, duration, tuple(chunks))
        if code is None:
            raise CommandError(completed, timeout=timeout)
        if ok_codes is not None and code not in ok_codes:
            raise CommandError(completed)
        return completed


def exit_code(ended: Mapping[str, Any] | None) -> int:
    """Of a command that somebody watched.

    :raises SandboxError: what saw to it was killed.
    """
    assert ended is not None  # it had no time limit
    if ended["value"] is None:
        why = f"what sees to its end {how_it_ended(ended['code'])}; a process in the image can do that"
        raise SandboxError("what became of the command is not known", why=why)
    return int(ended["value"])


def additions(*, covered: bool, stubs: bool) -> Mapping[str, str]:
    """What a command in the image gets in addition, as long as it may change the image and when it may not."""
    if covered:
        return environment.COVERED
    return environment.WITH_STUBS if stubs else {}


def attendance(
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    confinement: Confinement,
    size: tuple[int, int] | None,
) -> dict[str, Any]:
    """What the holder is asked for, for a command that a person watches."""
    return {"argv": [*command], "environment": dict(variables), "size": size, **confinement.of_a_command}


def _text(path: str | Path | None) -> str | None:
    return None if path is None else os.fspath(path)


def _bytes(content: bytes | str | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content
