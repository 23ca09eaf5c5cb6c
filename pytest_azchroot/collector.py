"""How images appear in pytest's tree: a directory with an ``image.yaml``, and its publish item.

::

    <Dir images>
      <ImageDirectory debian>            fixtures image, disk, chroot, host live here
        <Module test_10_base.py> …
      <ImageFile debian/image.yaml>
        <PublishItem publish>

:class:`ImageDirectory` yields the publish item but does not own it: its parent is the directory's parent, so that
pytest itself tears the image down, fixtures of users included, before the item is set up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.fixtures import FIXTURES
from pytest_azchroot.gate import Answer
from pytest_azchroot.selection import CONFIG_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_azchroot.suite import Suite

MARKER = "provision"


class ImageDirectory(pytest.Package):
    """A directory with an ``image.yaml``.

    It is a Package because package-scoped fixtures live as long as the Package that they are registered on. It needs
    no ``__init__.py``, and imports one only where there is one.
    """

    suite: Suite | None = None

    def setup(self) -> None:
        if (self.path / "__init__.py").is_file():
            super().setup()

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        if self.suite is None:
            # Here and not earlier: the directory's conftest has been loaded, so its hooks are heard.
            try:
                self.suite = self.config.pluginmanager.get_plugin("azchroot-suites").open(self)  # type: ignore[union-attr]
            except AzchrootError as error:
                raise self.CollectError(str(error)) from error
            for name, function in FIXTURES.items():
                pytest.register_fixture(name=name, func=function, node=self, scope="package")
        yield from super().collect()
        assert self.parent is not None
        file: ImageFile = ImageFile.from_parent(self.parent, path=self.path / CONFIG_NAME)
        file.directory = self
        yield file


class ImageFile(pytest.File):
    """The ``image.yaml``: where the publish item stands."""

    directory: ImageDirectory

    def collect(self) -> Iterable[pytest.Item]:
        item: PublishItem = PublishItem.from_parent(self, name="publish")
        if self.config.pluginmanager.has_plugin("timeout"):  # a time limit for tests is none for uploads
            item.add_marker(pytest.mark.timeout(0))
        yield item


class PublishItem(pytest.Item):
    """The publication of an image, as a test: passed, failed, or skipped with the reason."""

    parent: ImageFile

    @property
    def suite(self) -> Suite:
        suite = self.parent.directory.suite
        assert suite is not None
        return suite

    def runtest(self) -> None:
        verdict = self.suite.decide()
        if verdict.answer is Answer.SKIP:
            skip(str(verdict))
        if verdict.answer is Answer.FAIL:
            pytest.fail(str(verdict), pytrace=False)
        for artifact in self.suite.publish():
            self.user_properties.append((f"image.{artifact.kind}", artifact.id))
            if artifact.digest:
                self.user_properties.append((f"image.{artifact.kind}.digest", artifact.digest))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **kwargs: Any) -> Any:
        if isinstance(excinfo.value, AzchrootError):
            return f"{self.suite.image.name} was not published: {excinfo.value}"
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"publish {self.suite.image.name}"


def directory_of(node: pytest.Item | pytest.Collector) -> ImageDirectory | None:
    """The image that a node belongs to."""
    if isinstance(node, PublishItem):
        return node.parent.directory
    if isinstance(node, ImageFile):
        return node.directory
    return node.getparent(ImageDirectory)


def skip(reason: str) -> NoReturn:
    """Skip the running item; `-rs` names the item, and not a line of ours."""
    exception = pytest.skip.Exception(reason)
    exception._use_item_location = True
    raise exception


def is_step(item: pytest.Item) -> bool:
    """Whether a test may change its image."""
    return item.get_closest_marker(MARKER) is not None


def in_written_order(
    items: list[pytest.Item],
    index: dict[pytest.Item, int],
    sources: Callable[[ImageDirectory], Iterable[ImageDirectory]] = lambda _: (),
) -> list[pytest.Item]:
    """The items with each image's together, in the order in which they are written, its publish item last.

    Images stand where their first item stands, but after those that they start from; what is no image's stays where
    it is.

    :param index: the position of each item at its collection.
    :param sources: the images that an image starts from.
    """
    groups: dict[object, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(directory_of(item) or item, []).append(item)
    ordered: list[pytest.Item] = []

    def place(owner: object) -> None:
        members = groups.pop(owner, [])  # taken out first, so that a circle of sources ends here
        if members and isinstance(owner, ImageDirectory):
            for source in sources(owner):
                place(source)
            members.sort(key=lambda item: _position(item, owner.path, index))
        ordered.extend(members)

    for owner in list(groups):
        place(owner)
    return ordered


def _position(item: pytest.Item, root: Path, index: dict[pytest.Item, int]) -> tuple[bool, tuple[str, ...], int]:
    if isinstance(item, PublishItem):
        return True, (), 0
    return False, item.path.relative_to(root).parts, index.get(item, len(index))
