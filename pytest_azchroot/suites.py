"""The images of one session, together: their order, their clouds, their secrets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_azchroot import chain
from pytest_azchroot.build import Build
from pytest_azchroot.clouds import Cloud, Order
from pytest_azchroot.collector import ImageDirectory, PublishItem, directory_of, in_written_order
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.gate import Ledger, Policy, some
from pytest_azchroot.image import Image
from pytest_azchroot.masking import Masker
from pytest_azchroot.report.commandlog import CommandLog
from pytest_azchroot.report.timeline import Timeline, Watcher
from pytest_azchroot.selection import CONFIG_NAME
from pytest_azchroot.settings import Settings
from pytest_azchroot.spec import BUILTIN_CLOUDS, ImageSpec, load
from pytest_azchroot.suite import Suite
from pytest_azchroot.verification import to_verify


class Suites:
    """The images of a session, by directory, in the order of their collection."""

    def __init__(self, settings: Settings, log: CommandLog, watcher: Watcher | None) -> None:
        self.settings = settings
        self.log = log
        self.masker = Masker(())
        self._secrets: list[str] = []
        self._watcher = watcher
        self._suites: dict[Path, Suite] = {}

    def __iter__(self) -> Iterator[Suite]:
        return iter(self._suites.values())

    def __len__(self) -> int:
        return len(self._suites)

    @property
    def has_secrets(self) -> bool:
        return bool(self._secrets)

    def at_prompt(self, show: Callable[[str], None] | None) -> None:
        """A debugger's prompt comes or goes.

        :param show: where output of commands is shown from now on.
        """
        if self._watcher:
            self._watcher.end()
        self.log.show = show

    def mask(self, text: str) -> str:
        """The text without the secrets of any image of the session."""
        return self.masker.mask(text)

    def _keep_secret(self, secrets: Iterable[str]) -> None:
        self._secrets += secrets
        self.masker = self.log.masker = Masker(self._secrets)

    def introduce(self, suite: Suite) -> None:
        """Let an image know the machine that it is built on: its configuration may have waited for that.

        :raises AzchrootError: this is no machine of its cloud, or the configuration is not valid there.
        """
        suite.build.introduce()
        self._keep_secret(suite.image.configuration.secrets)

    def select(self, items: list[pytest.Item], index: dict[pytest.Item, int]) -> None:
        """Put the items in their order, and fix for each image what runs of it.

        :param index: the position of each item at its collection.
        """
        self._leave_checks(items)
        publishing = [item.suite for item in items if isinstance(item, PublishItem)]
        for suite in self:
            suite.sources = [
                each for each in publishing if each is not suite and chain.are_met(suite.needs, each.makes)
            ]
        items[:] = in_written_order(
            items, index, lambda directory: [source.directory for source in self._suites[directory.path].sources]
        )
        # from here on in the order in which they are built
        seen = dict.fromkeys(directory.path for item in items if (directory := directory_of(item)))
        self._suites = {path: self._suites[path] for path in (*seen, *self._suites)}
        for suite in self:
            suite.roster.select(items)
            suite.build.order = replace(suite.build.order, read_only=suite.is_read_only)

    def _leave_checks(self, items: list[pytest.Item]) -> None:
        """Deselect what makes an image and what publishes it, where it is there already."""
        gone = [item for item in items if (suite := self.of(item)) and suite.roster.spare(item)]
        if gone:
            items[:] = [item for item in items if item not in set(gone)]
            gone[0].config.hook.pytest_deselected(items=gone)

    def _go_ahead(self, suite: Suite) -> None:
        """An image is sealed, and only looked at from now on: the disk of the next one can be made meanwhile."""
        following = [*self][[*self].index(suite) + 1 :]
        if self.settings.ahead and following and (following[0].can_begin):
            following[0].build.begin()

    def of(self, node: pytest.Item | pytest.Collector) -> Suite | None:
        """The suite that a node belongs to."""
        directory = directory_of(node)
        return directory.suite if directory else None

    def open(self, directory: ImageDirectory) -> Suite:
        """Read an image's configuration and make it a suite, once a directory.

        :raises AzchrootError: the configuration is wrong; says everything that is.
        """
        if directory.path in self._suites:  # the same path given twice, with --keep-duplicates
            return self._suites[directory.path]
        if hasattr(directory.config, "workerinput"):
            raise AzchrootError("images cannot be built by the workers of pytest-xdist yet", hint="run without -n")
        settings = self.settings
        clouds = _clouds(directory)
        acts_on = {**BUILTIN_CLOUDS, **{name: cloud.options for name, cloud in clouds.items()}}
        configuration = load(
            directory.path / CONFIG_NAME,
            clouds=acts_on,
            cloud=settings.cloud,
            variables=settings.variables,
            variable_files=settings.variable_files,
            environ=os.environ,
            unknown_variables="ignore",
        )
        self._keep_secret(configuration.secrets)
        image = Image(directory.path.name, directory.path, configuration)
        if changed := directory.ihook.pytest_azchroot_spec(image=image, spec=configuration.spec):
            image.configuration = configuration = configuration.with_spec(changed)
            self._keep_secret(configuration.secrets)
        if settings.verify is not None:
            image.configuration = configuration = to_verify(
                configuration, settings.verify, directory=settings.directory
            )
        spec = configuration.spec
        if spec.cloud not in clouds:
            raise AzchrootError(
                f"{configuration.path}: no cloud named {spec.cloud!r} can build here",
                why=f"there {'is' if len(clouds) == 1 else 'are'} {some(sorted(clouds), 9)}",
                hint="choose one with --azchroot-cloud, or with `cloud:` in image.yaml",
            )
        policy = Policy(
            checks_required=spec.checks != "none",
            strict=settings.strict,
            require_publish=settings.require_publish,
            switched_off=_switched_off(settings, spec),
            verify=settings.verify is not None,
        )
        order = Order(
            image.name, image.path, configuration, publish=policy.switched_off is None, overwrite=settings.overwrite
        )
        timeline = Timeline(image.name, self._watcher)
        build = Build(image, clouds[spec.cloud], order=order, ledger=Ledger(), timeline=timeline, output=self.log.write)
        build.command_timeout = settings.command_timeout
        build.documented = settings.output is not None
        suite = Suite(directory, build, policy, self.mask, output=settings.output, keep=settings.keep)
        suite.sealed = self._go_ahead
        self._suites[directory.path] = suite
        return suite


def _switched_off(settings: Settings, spec: ImageSpec) -> str | None:
    """Who does not want the image to be published."""
    if settings.verify is not None:
        return "--azchroot-verify"
    if settings.no_publish:
        return "--azchroot-no-publish"
    return "skip_create_image" if spec.skip_create_image else None


def _clouds(directory: ImageDirectory) -> dict[str, Cloud]:
    """All clouds that plugins and conftests offer to this image. Hooks run last registered first."""
    found: dict[str, Cloud] = {}
    for offered in directory.ihook.pytest_azchroot_clouds(config=directory.config):
        for cloud in offered or ():
            found.setdefault(cloud.name, cloud)
    return found
