"""What becomes of the closed disk: a managed image, a gallery image version, or both, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pytest_azchroot.clouds import Artifact, Disk, Order
from pytest_azchroot.clouds.azure import bodies
from pytest_azchroot.clouds.azure.buckets import VERSIONS
from pytest_azchroot.clouds.azure.client import Operation
from pytest_azchroot.clouds.azure.destinations import version_id
from pytest_azchroot.clouds.azure.leftovers import DIGEST_TAG, RUN_TAG, is_made_of, resource
from pytest_azchroot.clouds.azure.pace import LASTING
from pytest_azchroot.clouds.azure.recipe import fingerprint
from pytest_azchroot.clouds.azure.refusals import AzureError, OperationTimeoutError, explained
from pytest_azchroot.clouds.azure.session import SWEEP, Session, until
from pytest_azchroot.errors import AzchrootError, PublishError, attach
from pytest_azchroot.journal import Entry
from pytest_azchroot.leaving import attached_to
from pytest_azchroot.spec.azure_ids import GalleryImageVersionId, ImageId, parse_image_id

IMAGE, VERSION = "managed-image", "gallery-image-version"


@dataclass(frozen=True)
class Target:
    """Something that is to be made of the disk."""

    kind: str
    """As in :class:`~pytest_azchroot.clouds.Artifact`."""
    id: str
    body: dict[str, Any]
    make: Callable[..., Any]
    get: Callable[..., Any]
    remove: Callable[..., Any]
    names: tuple[str, ...]
    """Those that Azure's client wants to know it by."""
    timeout: float
    """Seconds."""

    @property
    def entry(self) -> str:
        """What the journal calls its kind."""
        return "image" if self.kind == IMAGE else "gallery-version"


@dataclass
class _Making:
    """One of them on its way."""

    target: Target
    entry: Entry
    asked: bool = False
    operation: Operation[Any] | None = None
    """None where it was refused, or nobody knows what became of the question."""
    made: bool = False
    left: bool = False
    """It goes on in Azure, and nobody waits for it any more."""


def publish(session: Session, order: Order, disk: Disk) -> Sequence[Artifact]:
    """Make them all, or none.

    The disk may still be on its way off the machine. Only where Azure says that it is in use the detaching is waited
    for, and what was refused is asked for again.

    :raises PublishError: nothing, or not everything, was published; says which.
    """
    wanted = targets(session, order, disk)
    if order.overwrite:
        for target in wanted:
            _remove(session, order, target)
    makings = [_Making(each, _intend(session, order, disk, each)) for each in wanted]
    try:
        for making in makings:
            making.asked = True
            making.operation = _begin(session, order, disk, making.target)
        for making in makings:
            _finish(session, order, disk, making)
    except BaseException as error:
        with attached_to(error):
            _undo(session, order, disk, makings)
        if isinstance(error, AzchrootError):
            raise _refusal(error, order, makings) from error
        raise
    return [_arrived(disk, making) for making in makings]


def targets(session: Session, order: Order, disk: Disk) -> list[Target]:
    """What the order asks for."""
    spec, machine, source = session.spec, session.machine, session.resolve()
    tags = session.lasting() | ({DIGEST_TAG: disk.digest} if disk.digest else {})
    wanted: list[Target] = []
    if not order.publish:
        return wanted
    if spec.image_resource_id is not None:
        image = parse_image_id(spec.image_resource_id)
        images = session.azure.compute(image.subscription_id).images
        wanted.append(
            Target(
                IMAGE,
                str(image),
                bodies.image_body(source, spec, machine, disk_id=disk.id, tags=tags),
                images.begin_create_or_update,
                images.get,
                images.begin_delete,
                _names(image),
                session.patience,
            )
        )
    version, destination = version_id(spec, machine), spec.shared_image_destination
    if version is not None and destination is not None:
        versions = session.azure.compute(version.subscription_id).gallery_image_versions
        wanted.append(
            Target(
                VERSION,
                str(version),
                bodies.version_body(spec, destination, machine, disk_id=disk.id, tags=tags),
                versions.begin_create_or_update,
                versions.get,
                versions.begin_delete,
                _names(version),
                spec.shared_image_gallery_timeout,
            )
        )
    return wanted


def _names(id: ImageId | GalleryImageVersionId) -> tuple[str, ...]:
    if isinstance(id, ImageId):
        return id.resource_group, id.name
    return id.resource_group, id.gallery, id.image, id.version


def _intend(session: Session, order: Order, disk: Disk, target: Target) -> Entry:
    # What a sweep of another day must know: until when it may still be on its way, and what it is made of. And what
    # the next run must: whether it would make the same.
    facts = {"digest": disk.digest or "", "disk": disk.id, "size": str(disk.size), "until": until(2 * target.timeout)}
    facts["recipe"] = session.recipe or fingerprint(order)
    return session.intend(target.entry, target.id, **facts)


def _begin(session: Session, order: Order, disk: Disk, target: Target) -> Operation[Any]:
    order.say(f"making {_told(target)}")

    ask = partial(session.azure.begin, f"making {_told(target)}", target.make, *target.names, target.body)
    if target.kind == VERSION:
        ask = partial(ask, pace=replace(LASTING, allow=partial(session.broker.may_ask, VERSIONS)))

    try:
        return ask()
    except AzureError as error:
        if not error.is_busy:
            raise
    _wait_detached(session, order, disk)
    return session.insist(ask, order)


def _finish(session: Session, order: Order, disk: Disk, making: _Making) -> None:
    """Wait until it is made; once more where it failed because the disk was in use."""
    assert making.operation is not None
    try:
        found = session.wait(making.operation, order, timeout=making.target.timeout)
    except OperationTimeoutError:
        making.left = True
        raise
    except AzureError as error:
        if error.code is None or "conflict" not in error.code.lower():
            raise
        _wait_detached(session, order, disk)
        making.operation = _begin(session, order, disk, making.target)
        found = session.wait(making.operation, order, timeout=making.target.timeout)
    if not is_made_of(resource(making.entry.kind, found), disk.id):
        raise PublishError(
            f"{_told(making.target)} is made of another disk",
            why="somebody else has made it since this build began",
            hint="name another, or replace it with --azchroot-overwrite",
        )
    making.made = True


def _wait_detached(session: Session, order: Order, disk: Disk) -> None:
    order.say("waiting until the disk is detached")
    with session.calls.waiting("detaching the disk"):
        session.wait_detached(disk.id)


def _arrived(disk: Disk, making: _Making) -> Artifact:
    making.entry.done()
    return Artifact(making.target.kind, making.target.id, disk.size, disk.digest)


# -- the way back


def _undo(session: Session, order: Order, disk: Disk, makings: Sequence[_Making]) -> None:
    """Nothing is published that is not published as a whole. What is still on its way when its time is over is left to
    the next run, with the disk that it is made of."""
    if any(making.left for making in makings):
        _leave(session, makings)
        return
    failed: list[AzchrootError] = []
    for making in makings:
        if not making.asked:
            making.entry.done()
            continue
        making.entry.note(abandoned="yes")
        try:
            if _is_ours(session, disk, making):
                _remove(session, order, making.target)
        except AzchrootError as error:
            failed.append(PublishError(f"{_told(making.target)} may be there", why=error.reason, hint=SWEEP))
        else:
            if not order.interrupted():
                making.entry.done()
    if failed:
        for later in failed[1:]:
            attach(failed[0], later)
        raise failed[0]


def _is_ours(session: Session, disk: Disk, making: _Making) -> bool:
    """Whether it is there, and made by this run. Where the answer was lost, Azure may have begun; where something was
    refused, or accepted for one that is there, a stranger's is in the way."""
    target, accepted = making.target, making.operation is not None
    try:
        with explained(f"looking for {_told(target)}"):
            found = resource(making.entry.kind, target.get(*target.names))
    except AzureError as error:
        if not error.is_missing:
            raise
        return accepted  # it may not be shown yet
    return is_made_of(found, disk.id) and (accepted or found.tags.get(RUN_TAG) == session.journal.run)


def _leave(session: Session, makings: Sequence[_Making]) -> None:
    also = [making.target for making in makings if making.made]
    for making in makings:
        if making.made:
            making.entry.done()
            continue
        making.entry.note(sent="yes", also=json.dumps([(each.kind, each.id) for each in also]))
        session.needed[making.entry.facts["disk"]] = making.target.id


def _remove(session: Session, order: Order, target: Target) -> None:
    session.delete(f"deleting {_told(target)}", target.remove, *target.names, order=order)


def _refusal(error: AzchrootError, order: Order, makings: Sequence[_Making]) -> PublishError:
    left = [making.target for making in makings if making.left]
    what = "nothing was published"
    if order.overwrite:  # two of one name cannot be
        what += ", and what had its name is deleted, as --azchroot-overwrite says"
    hint = error.hint
    if left:
        what = f"{_told(left[0])} is not complete"
        hint = (
            "Azure goes on with it: run again, and it is taken up where it is then; `azchroot sweep` tells what became "
            "of it"
        )
    found = PublishError(what, why=error.reason, hint=hint)
    found.later = error.later
    return found


def _told(target: Target) -> str:
    if target.kind == IMAGE:
        return f"the image {target.names[-1]}"
    return f"the version {target.names[-1]} of the gallery image {'/'.join(target.names[1:-1])}"
