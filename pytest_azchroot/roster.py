"""What of an image's directory runs in a session, and what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pytest_azchroot.collector import ImageDirectory, PublishItem, directory_of, is_step
from pytest_azchroot.gate import Ledger, count, short, some
from pytest_azchroot.selection import test_files, test_names


class Roster:
    """The tests of one image: those of its files, those collected, those selected. What it finds it writes down in
    the ledger.
    """

    def __init__(self, directory: ImageDirectory, ledger: Ledger, *, only_checks: bool = False) -> None:
        """:param only_checks: the image is there already, so it is no loss if steps do not run."""
        self.skipped_files: dict[Path, str] = {}
        """Files that were skipped at collection, with the reason."""
        self.publishes = False
        """Whether the publish item is selected."""
        self._directory = directory
        self._ledger = ledger
        self._only_checks = only_checks
        self._names: set[str] = set()
        self._spared: set[str] = set()

    def collected(self, item: pytest.Item) -> None:
        """A test of this image has been collected."""
        self._ledger.collected.append(item.nodeid)
        self._names.add(_written_name(item, self._directory.path))
        self.spare(item)

    def spare(self, item: pytest.Item) -> bool:
        """Whether a test makes the image or publishes it, and only checks are wanted. It is not missed then."""
        if self._only_checks and (isinstance(item, PublishItem) or is_step(item)):
            self._spared.add(item.nodeid)
        return item.nodeid in self._spared

    def select(self, items: Sequence[pytest.Item]) -> None:
        """Fix what runs of this image, and write down what of its directory does not."""
        mine = [item for item in items if directory_of(item) is self._directory]
        tests = [item for item in mine if not isinstance(item, PublishItem)]
        self.publishes = len(tests) < len(mine)
        self._ledger.select((item.nodeid, is_step(item)) for item in tests)
        written = [*self._written()]
        self._ledger.shadowed = [name for name, times in Counter(written).items() if times > 1]
        self._ledger.dropped = [*self._dropped(tests, written)]

    def _dropped(self, selected: list[pytest.Item], written: list[str]) -> Iterator[str]:
        path, session = self._directory.path, self._directory.session
        conftest = path / "conftest.py"
        if conftest.is_file() and not session.config.pluginmanager.has_plugin(str(conftest)):
            yield "its conftest.py was not loaded"
        is_part = not any(session.isinitpath(each) for each in (path, *path.parents))
        if is_part:
            yield "only a part of its directory was selected"
        kept = {item.nodeid for item in selected} | self._spared
        if gone := sorted({short(id) for id in self._ledger.collected if id not in kept}):
            yield f"{len(gone)} deselected ({some(gone)})"
        for file, reason in self.skipped_files.items():
            yield f"{file.relative_to(path)} was skipped at collection: {reason}"
        if self._ledger.collect_errors or (is_part and self._only_checks):
            return  # what a broken file holds is not known, nor which tests of one that was not read are checks
        if lost := sorted(set(written) - self._names):
            were = "was" if len(lost) == 1 else "were"
            yield f"{count(len(lost), 'test')} of its directory {were} not collected ({some(lost)})"

    def _written(self) -> Iterator[str]:
        """Every test that the directory's files hold, as ``test_x.py::test_a``."""
        root = self._directory.path
        for path in test_files(root, self._directory.config.getini("python_files")):
            if path in self.skipped_files:
                continue
            for name in test_names(path.read_bytes()):
                yield f"{path.relative_to(root).as_posix()}::{name}"


def _written_name(item: pytest.Item, root: Path) -> str:
    """A test as its file has it, without parameters: ``test_x.py::TestB::test_c``."""
    names = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
    names.append(getattr(item, "originalname", None) or item.name)
    return "::".join([item.path.relative_to(root).as_posix(), *names])
