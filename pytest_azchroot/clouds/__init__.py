"""What a cloud is: the place where disks live.

A cloud makes a disk from a source, attaches it to the build machine, and turns it into artifacts. Each
acquisition is a context manager, so that its release stands beside it; :class:`pytest_azchroot.build.Build`
enters them and leaves them in reverse. Nothing here or below knows pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from pytest_azchroot.spec import Configuration


def _silent(text: str) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Order:
    """What one image asks of its cloud."""

    name: str
    """The image's name: that of its directory."""
    directory: Path
    """The directory that holds ``image.yaml``; paths in it are relative to this."""
    configuration: Configuration
    publish: bool = True
    """False where the user switched publishing off: destinations need no check then."""
    overwrite: bool = False
    """Whether an artifact of the same name may be replaced."""
    coming: frozenset[str] = frozenset()
    """Artifacts that images before this one are about to publish: a source among them need not exist yet."""
    read_only: bool = False
    """Nobody will change the disk nor publish it: it may be the source itself, opened for reading."""
    digest_source: bool = False
    """Whether somebody will ask for :attr:`Disk.source_digest`. It costs reading the source."""
    say: Callable[[str], None] = field(default=_silent, repr=False, compare=False)
    """Tells the user what is being waited for, while it lasts: a few words."""
    interrupted: Callable[[], bool] = field(default=_never, repr=False, compare=False)
    """Whether the user wants to leave: what is to be released is asked for, and not waited for."""


@dataclass(frozen=True)
class Disk:
    """A disk that a cloud made for one image."""

    id: str
    """A path or a resource id, as the cloud names it."""
    size: int
    """Bytes that the machine sees, footer excluded."""
    source: str
    """Where its bytes came from: ``scratch``, a path, a resource id."""
    source_version: str | None = None
    """The version of the source, where it has one: of a platform image or a gallery image, ``latest`` resolved."""
    read_only: bool = False
    """It is the source itself, so it can only be read."""
    source_digest: str | None = None
    """The payload digest of the source, as :mod:`pytest_azchroot.disk.digest` defines it; None if it was not taken."""
    digest: str | None = None
    """The payload digest of this disk, taken when it was closed; None before. The build sets it, not the cloud."""


@dataclass(frozen=True)
class Attachment:
    """A disk as the build machine can open it: an image file, or a block device."""

    path: Path
    lun: int | None = None
    """The logical unit number of a data disk of Azure; None on other clouds."""


@dataclass(frozen=True)
class Kept:
    """A disk that outlives its build, for people to look at."""

    id: str
    """A path or a resource id."""
    enter: str
    """The command that enters it."""
    remove: str | None
    """The command that removes it; None where it is an artifact, and so not ours to remove."""


@dataclass(frozen=True)
class Artifact:
    """Something that was published."""

    kind: str
    """``vhd``, ``raw``, ``vhdx``, ``qcow2``, ``managed-image``, ``gallery-image-version``."""
    id: str
    """A path or a resource id."""
    size: int
    """Bytes of the disk that the artifact holds."""
    digest: str | None = None
    """The payload digest of the disk that it holds: that of :attr:`Disk.digest`."""


@runtime_checkable
class Cloud(Protocol):
    """Where disks live. Register one with the hook ``pytest_azchroot_clouds``."""

    @property
    def name(self) -> str:
        """What ``cloud:`` in image.yaml calls it."""

    @property
    def options(self) -> frozenset[str]:
        """The keys of image.yaml that this cloud acts on, beside those that every build acts on."""

    def preflight(self, order: Order) -> Iterable[str]:
        """Everything that would fail later and can be known now, a sentence each. Makes nothing."""

    def create(self, order: Order) -> AbstractContextManager[Disk]:
        """Make the disk; on exit delete it, unless it has become an artifact."""

    def attach(self, order: Order, disk: Disk) -> AbstractContextManager[Attachment]:
        """Attach the disk to this machine; on exit detach it."""

    def publish(self, order: Order, disk: Disk) -> Sequence[Artifact]:
        """Turn the closed, detached disk into the artifacts that the order asks for.

        :raises PublishError: nothing, or not everything, was published; says which.
        """

    def keep(self, order: Order, disk: Disk) -> Kept:
        """Let the detached disk outlive :meth:`create`, which has not been left yet.

        :raises AzchrootError: it cannot be kept.
        """


@runtime_checkable
class OnMachine(Protocol):
    """What a cloud has, beside :class:`Cloud`, if it builds on a machine of its own that it can ask about."""

    def machine(self, order: Order) -> object:
        """The machine, for templates (``vm``) and for ``image.vm``. Asked before :meth:`Cloud.preflight`.

        :raises AzchrootError: this is no such machine.
        """


@dataclass(frozen=True)
class Sent:
    """Artifacts that an earlier run has tested and sent on their way, and that it did not see arrive."""

    run: str
    """That run's name."""
    ids: tuple[str, ...]


@runtime_checkable
class TakesUp(Protocol):
    """What a cloud has, beside :class:`Cloud`, whose artifacts may take longer than a run wants to wait."""

    def sent(self, order: Order) -> Sent | None:
        """What an earlier run has sent that the order asks for. Asked before :meth:`Cloud.preflight`."""

    def take_up(self, order: Order, sent: Sent) -> Sequence[Artifact]:
        """Wait for them.

        :raises PublishError: they do not arrive.
        """


@dataclass(frozen=True)
class Account:
    """What an image has asked of its cloud."""

    requests: int
    seconds: float
    """Until they were answered, all together; some run side by side."""
    waited: float
    """Seconds in which the build did nothing but wait for an operation to end."""


@runtime_checkable
class Accountable(Protocol):
    """What a cloud has, beside :class:`Cloud`, that counts what it asks of others."""

    def account(self, order: Order) -> Account:
        """What an image has asked so far."""
