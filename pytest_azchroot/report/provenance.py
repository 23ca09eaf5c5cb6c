"""Where an image's recipe comes from: the hash of its image.yaml, and the git commit of its directory.

git is asked as whoever owns the directory, not as root: a repository may name programs for git to run (filters,
fsmonitor), and one that somebody else has put above the directory must not get root by that. For the same reason
``safe.directory`` is left as it is: what git finds dubious has no commit here. It is asked read-only, without its
optional locks, so that a git that the user runs meanwhile is not in the way.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 10.0
"""Seconds for git. Where it takes longer, the build goes on without."""

_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_NOT_OURS = ("**/__pycache__/**", "**/*.py[co]", "**/*.manifest.json", "**/*.partial")
"""What building leaves in the directory, where no .gitignore says so. Globs of gitglossary(7), "pathspec"."""


@dataclass(frozen=True)
class Provenance:
    """Where an image's recipe comes from."""

    config_sha256: str | None
    """SHA-256 of the bytes of image.yaml, hexadecimal; None if it cannot be read."""
    commit: str | None = None
    """The commit that is checked out in the directory, hexadecimal; None where there is no repository, or no git."""
    dirty: bool | None = None
    """Whether the directory differs from that commit, files that git does not know included; None without one."""


def provenance(config: Path, *, outputs: Iterable[str] = ()) -> Provenance:
    """Where the image of this image.yaml comes from. It never fails: what cannot be known is None.

    :param outputs: files that building makes in the directory, relative to it: they make it not dirty.
    """
    try:
        sha256 = hashlib.sha256(config.read_bytes()).hexdigest()
    except OSError:
        sha256 = None
    directory = config.absolute().parent
    commit = _git(directory, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not commit:
        return Provenance(sha256)
    left_out = [f":(exclude,glob){glob}" for glob in _NOT_OURS]
    left_out += [f":(exclude,literal){output}" for output in outputs if _is_below(directory, output)]
    status = _git(directory, "status", "--porcelain", "--untracked-files=all", "--", ".", *left_out)
    return Provenance(sha256, commit.strip(), None if status is None else bool(status))


def _is_below(directory: Path, output: str) -> bool:
    """Whether a path is in the directory: git refuses a pathspec outside of its repository."""
    return Path(os.path.normpath(directory / output)).is_relative_to(directory)


def _git(directory: Path, *arguments: str) -> str | None:
    """What git answers; None where it is not there, refuses, or takes too long."""
    try:
        owner = directory.stat()
        as_owner = os.geteuid() == 0 and owner.st_uid != 0
        account = _account(owner.st_uid if as_owner else os.geteuid())
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "HOME": account.pw_dir if account else "/nonexistent",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
        }
        done = subprocess.run(
            [*_GIT, *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
            start_new_session=True,
            user=owner.st_uid if as_owner else None,
            group=owner.st_gid if as_owner else None,
            extra_groups=[] if as_owner else None,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def _account(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None
