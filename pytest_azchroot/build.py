"""The way of one image: disk created, attached, mounted, changed by its steps, closed, published.

One :class:`Build` owns every lifetime of an image. Its stages only go forward; what they acquire is released in
reverse by one stack, whatever happens. There are two ways out. The strict one (:meth:`Build.unmount`,
:meth:`Build.detach`) raises where anything is left or unclean, and only after it the image counts as closed. The
lenient one (:meth:`Build.close`) just releases, for builds that have failed or were interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pytest_azchroot import digesting, filesystems
from pytest_azchroot.ahead import Ahead
from pytest_azchroot.attached import AttachedDisk, attached
from pytest_azchroot.clouds import Artifact, Cloud, Disk, Kept, OnMachine, Order, Sent, TakesUp
from pytest_azchroot.disk.space import exhausted
from pytest_azchroot.errors import AzchrootError, DirtyImageError, SandboxError
from pytest_azchroot.gate import Ledger, failures
from pytest_azchroot.image import Image
from pytest_azchroot.leaving import Leaving, is_interrupted
from pytest_azchroot.loading import soon
from pytest_azchroot.printable import abridged
from pytest_azchroot.report import records
from pytest_azchroot.report.packages import Packages, read_packages
from pytest_azchroot.report.provenance import Provenance, provenance
from pytest_azchroot.report.timeline import Timeline
from pytest_azchroot.sandbox import Chroot, Confinement, Sandbox, Sealed
from pytest_azchroot.sandbox.architecture import Runs, require_runnable
from pytest_azchroot.sandbox.starting import Starting

MOUNT_PATH = "/run/azchroot/root"
"""Where an image is mounted unless it says otherwise. Each build has a mount namespace of its own: no collision."""

Output = Callable[[str, bytes], None]
"""Takes ``stdout`` or ``stderr`` and what a command has just written to it."""


class Build:
    """One image on its way.

    :param image: what to build; its disk, device and artifacts are filled in on the way.
    :param cloud: where its disk lives.
    :param order: what it asks of the cloud.
    :param ledger: what is known of its tests; the build notes disks, closing and trouble there.
    :param timeline: times the stages.
    :param output: hears what commands write, as they write it.
    """

    def __init__(
        self,
        image: Image,
        cloud: Cloud,
        *,
        order: Order,
        ledger: Ledger,
        timeline: Timeline,
        output: Output | None = None,
    ) -> None:
        self.image = image
        self.cloud = cloud
        self.order = replace(order, say=timeline.say, interrupted=lambda: self.interrupted or is_interrupted())
        self.ledger = ledger
        self.timeline = timeline
        self.sandbox: Sandbox | None = None
        self.chroot: Chroot | None = None
        self.guard: Callable[[], None] | None = None
        """Called before each use of ``chroot``: raises where it is not allowed."""
        self.command_timeout: float | None = None
        """Seconds that a command may take; image.yaml's ``command_timeout`` goes before it."""
        self.documented = False
        """Somebody wants to know of this image even if it is not published: take digests, look at packages."""
        self.started: datetime | None = None
        self.provenance: Provenance | None = None
        self.packages_before: Packages | None = None
        """Those that it came with; None for a disk from scratch."""
        self.packages: Packages | None = None
        """Those that it is closed with."""
        self.interrupted = False
        """The user wants to leave: do not wait, do not check, let the kernel clean."""
        self._output = output
        self._backing: Path | None = None
        self._half_mounted = False
        self._stack = Leaving()
        self._attached = Leaving()
        self._closed = False
        self.keeping = False
        """Its disk is to outlive it."""
        self._ahead: Ahead[Disk] | None = None
        self._starting: Starting | None = None
        self._digesting: digesting.Digesting | None = None
        self.sent: Sent | None = None
        """What an earlier run has tested and sent, and this one takes up instead of building the image again."""
        self.kept: Kept | None = None
        self.runs: Runs | None = None
        """How programs of the image run here; None where there are none yet."""

    # -- the way in

    def introduce(self) -> None:
        """Ask the cloud on which machine this is, and whether an earlier run has sent what this one is to make.

        :raises AzchrootError: it is no machine of that cloud, or what it says makes no valid configuration.
        """
        if isinstance(self.cloud, OnMachine):
            self.image.vm = self.cloud.machine(self.order)
            self.image.configuration = self.image.configuration.with_vm(self.image.vm)
            self.order = replace(self.order, configuration=self.image.configuration)

    def begin(self) -> None:
        """Begin to make the disk, in the background, where that takes long and nobody has asked for it yet."""
        if isinstance(self.cloud, OnMachine) and self.image.disk is None and self._ahead is None:
            self._ahead = Ahead(self._creating())
            self._stack.callback(self._ahead.abandon)

    def _creating(self) -> AbstractContextManager[Disk]:
        return self.cloud.create(replace(self.order, digest_source=self._accounted))

    def create(self) -> Disk:
        """Make the disk, once. A build whose disk has been deleted again starts from its source."""
        if self.image.disk is None or self._closed:
            self._closed = False
            self.started = self.started or datetime.now(timezone.utc)
            self._starting = Starting(metadata_service=self.image.spec.metadata_service)
            self._stack.callback(self._starting.end)
            if isinstance(self.cloud, OnMachine):
                soon("pytest_azchroot.report.manifest")
            self.provenance = provenance(self.image.configuration.path, outputs=self.image.spec.output)
            making, self._ahead = self._ahead or self._creating(), None  # one that has failed is not asked again
            with self.timeline.stage("create"):
                self.image.disk = disk = self._stack.enter_context(making)
            self._stack.callback(self._keep, disk)
            self.ledger.disks += 1
        return self.image.disk

    def attach(self) -> AttachedDisk:
        """Attach the disk and start the sandbox that holds it."""
        disk = self.create()
        self.ledger.closed = False
        self._attached, self._digesting = self._stack.enter_context(Leaving()), None
        with self.timeline.stage("attach"):
            attachment = self._attached.enter_context(self.cloud.attach(self.order, disk))
            self._backing = attachment.path
            self.sandbox = sandbox = self._attached.enter_context(
                Sandbox.start(
                    attachment.path,
                    hostname=self.image.name,
                    output=self._output,
                    environment={"AZCHROOT_IMAGE": self.image.name},
                    confinement=self._confinement(),
                    read_only=disk.read_only,
                    label=self.image.path,
                    starting=self._starting,
                )
            )
        self._starting = None
        self.image.device, self.image.lun = sandbox.device, attachment.lun
        if sandbox.reaches_metadata and not self.image.spec.metadata_service:
            self.ledger.remarks.append(f"its commands could reach the metadata service: {sandbox.reaches_metadata}")
        return attached(disk, sandbox, environment=self.image.environment)

    def mount(self) -> Chroot:
        """Run the commands around mounting, mount the image and lend it what commands in it need."""
        self._half_mounted = True
        sandbox, spec = self._sandbox(), self.image.spec
        path = self.image.mount_path = self._render(spec.mount_path) if spec.mount_path else MOUNT_PATH
        self._run_outside("pre_mount_commands", spec.pre_mount_commands)
        with self.timeline.stage("mount"):
            filesystems.mount(sandbox, spec, path=path, render=self._render, wrap=self._wrap, sealed=self._read_only)
        self._run_outside("post_mount_commands", spec.post_mount_commands)
        if self._read_only:
            self._lend_sealed(sandbox)
        else:
            self._lend(sandbox)
        self.runs = require_runnable(sandbox)
        self.chroot = Chroot(
            sandbox,
            directory=self.image.path,
            environment=self.image.environment,
            timeout=spec.command_timeout or self.command_timeout,
            guard=self.guard,
        )
        if not spec.from_scratch:
            self.packages_before = self._packages(sandbox)
        if self._read_only:
            self.packages = self.packages_before
        self._half_mounted = False
        return self.chroot

    def _lend(self, sandbox: Sandbox) -> None:
        spec = self.image.spec
        with self.timeline.stage("mount"):
            sandbox.lend(spec.chroot_mounts, resolv_conf="image" if spec.resolv_conf == "image" else "host")
            sandbox.copy_files(spec.copy_files)
            sandbox.lend_stubs(deny_services=spec.deny_services, defer_initramfs=spec.defer_initramfs)

    def _lend_sealed(self, sandbox: Sandbox) -> None:
        """Sealed from the start; and only then lent, as the places to mount on may have to be made."""
        with self._noting_trouble(), self.timeline.stage("seal"):
            self._take_sealed(sandbox.seal())
        with self.timeline.stage("mount"):
            sandbox.lend(self.image.spec.chroot_mounts, resolv_conf=self.resolv_conf_of_checks)

    # -- the strict way out

    def seal(self) -> Sealed | None:
        """End all changes: from here on the disk is only read, and what commands write goes to overlays. Does nothing
        where there is nothing mounted.

        :raises DirtyImageError: something holds the image, or a file system is not clean.
        """
        if self.chroot is None or self.sandbox is None:
            return None
        with self._noting_trouble(), self.timeline.stage("seal"):
            self.sandbox.drop_overlay()
            self._before_unmount(self.sandbox)
            sealed = self.sandbox.seal(resolv_conf=self.resolv_conf_of_checks)
            self._take_sealed(sealed)
        self._begin_digest()
        return sealed

    def _take_sealed(self, sealed: Sealed) -> None:
        self.image.device, self.image.mount_path = sealed.device, self._sandbox().mount_path

    def _before_unmount(self, sandbox: Sandbox) -> None:
        if self.ledger.failed_step is None:
            sandbox.make_up(timeout=self.image.spec.command_timeout or self.command_timeout)
            self._run_outside("pre_unmount_commands", self.image.spec.pre_unmount_commands)
        self.packages = self._packages(sandbox)
        if visits := sandbox.visits():
            times = "once" if visits == 1 else f"{visits} times"
            what = f"azchroot shell entered it {times} before it was sealed, and may have changed it"
            self.ledger.remarks.append(what)

    @property
    def resolv_conf_of_checks(self) -> Literal["host", "image"]:
        """Checks see the image as it ships, unless they are to reach the network."""
        spec = self.image.spec
        return "host" if spec.verify_network and spec.resolv_conf == "host" else "image"

    def unmount(self) -> None:
        """Unmount strictly and check the file systems; afterwards the bits of the image are final.

        After :meth:`seal` they are already, and only the overlays go.

        :raises DirtyImageError: something holds the image, or a file system is not clean.
        """
        if self.chroot is None or self.sandbox is None:
            return
        self.chroot = None
        if self.interrupted or self.ledger.trouble is not None:
            return
        with self._noting_trouble():
            if self.sandbox.is_sealed:
                with self.timeline.stage("close"):
                    self.sandbox.unmount()
                return
            with self.timeline.stage("seal"):
                self._before_unmount(self.sandbox)
                self.sandbox.unmount()

    def detach(self) -> None:
        """Let go of the disk: strictly if the image was unmounted so, else as the kernel does.

        :raises DirtyImageError: something on this machine still holds the disk.
        """
        if self.sandbox is None:
            return
        sandbox, self.sandbox = self.sandbox, None
        with self._noting_trouble(), self.timeline.stage("close"), self._attached:
            if self.ledger.trouble is None and not self.interrupted and not self._half_mounted:
                sandbox.close()
                self._take_digest()
                self.ledger.closed = True

    def publish(self) -> tuple[Artifact, ...]:
        """Turn the closed disk into artifacts, once however often it is asked.

        :raises PublishError: an artifact could not be made.
        """
        if self.image.artifacts:
            return self.image.artifacts
        if self.sent is not None:
            assert isinstance(self.cloud, TakesUp)
            with self.timeline.stage("publish"):
                self.image.artifacts = tuple(self.cloud.take_up(self.order, self.sent))
            return self.image.artifacts
        if self.image.disk is None or not self.ledger.closed:
            raise DirtyImageError(f"{self.image.name} was not closed, so it cannot be published")
        files = [self.image.path / name for name in self.image.spec.output]
        with self.timeline.stage("publish"), records.superseding(files):
            self.image.artifacts = tuple(self.cloud.publish(self.order, self.image.disk))
        return self.image.artifacts

    def hint(self) -> str | None:
        """What this machine lacks, where that may be why something failed in the image."""
        return exhausted(self._backing) if self._backing else None

    # -- the lenient way out

    def interrupt(self) -> None:
        """From now on leave quickly: nothing will be published."""
        self.interrupted = True

    def close(self) -> None:
        """Release all that is still held, in reverse. The disk is deleted unless it became an artifact, or
        is to be kept."""
        self.chroot = self.sandbox = None
        self._closed = True
        self._stack.close()

    def _keep(self, disk: Disk) -> None:
        """The disk is detached, and deleted next."""
        if self.keeping and not disk.read_only:
            self.kept = self.cloud.keep(self.order, disk)

    # -- helpers

    @property
    def _read_only(self) -> bool:
        return self.image.disk is not None and self.image.disk.read_only

    @property
    def _accounted(self) -> bool:
        """Whether digests and packages are worth their time: the image may still be published, or somebody asked.

        They are not where only some tests are run, over and over, to see what they do.
        """
        ledger = self.ledger
        return self.documented or (self.order.publish and not ledger.dropped and not failures(ledger))

    def _packages(self, sandbox: Sandbox) -> Packages | None:
        """The packages that the mounted image has now."""
        if not self._accounted:
            return None
        with self.timeline.stage("packages"):
            return read_packages(sandbox)

    def _take_digest(self) -> None:
        """Note what the closed disk holds. From here on every artifact has to have this digest."""
        disk, path = self.image.disk, self._backing
        if disk is None or path is None or not self._accounted:
            return
        with self.timeline.stage("digest"):
            found = self._digesting.result() if self._digesting else digesting.taken(path, size=disk.size)
            self.image.disk = replace(disk, digest=found)

    def _begin_digest(self) -> None:
        """While the checks run, where it takes long: the disk is sealed."""
        disk, path = self.image.disk, self._backing
        if disk is not None and path is not None and self._accounted and digesting.is_worthwhile(path):
            self._digesting = digesting.Digesting(path, size=disk.size)
            self._attached.callback(self._digesting.stop)

    @contextmanager
    def _noting_trouble(self) -> Any:
        try:
            yield
        except AzchrootError as error:
            self.ledger.trouble = self.ledger.trouble or f"the image did not close: {error.what}"
            raise

    def _confinement(self) -> Confinement:
        spec = self.image.spec
        names = tuple(name.removeprefix("CAP_") for name in spec.unconfined)
        return Confinement(unconfined=names, fast_sync=spec.fast_sync, metadata_service=spec.metadata_service)

    def _sandbox(self) -> Sandbox:
        if self.sandbox is None:
            raise SandboxError(
                f"the disk of {self.image.name} is not attached", hint="ask for the fixture `disk` first"
            )
        return self.sandbox

    def _run_outside(self, option: str, commands: tuple[str, ...]) -> None:
        """Run commands of image.yaml on the build machine, each rendered and wrapped."""
        for template in commands:
            command = self._render(template)
            with self.timeline.stage(option, detail=f"{option}: {abridged(template)}"):
                self._sandbox().outside(self._wrap(command), env=self.image.environment)

    def _render(self, template: str) -> str:
        sandbox = self._sandbox()
        return self.image.configuration.render(
            template, device=sandbox.device, partition=sandbox.partition, mount_path=self.image.mount_path
        )

    def _wrap(self, command: str) -> str:
        return self.image.configuration.render(self.image.spec.command_wrapper, command=command)
