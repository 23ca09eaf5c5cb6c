"""What counts as a test of an image's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_azchroot.selection import test_files as files_below
from pytest_azchroot.selection import test_names as names_in


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def test_a(): pass", ["test_a"]),
        ("async def test_a(): pass", ["test_a"]),
        ("@mark.skip\ndef test_a(): pass", ["test_a"]),
        ("class TestB:\n  def test_c(self): pass\n  def helper(self): pass", ["TestB::test_c"]),
        ("@pytest.fixture\ndef test_data(): pass", []),
        ("@pytest.fixture(scope='module')\ndef test_data(): pass", []),
        ("__test__ = False\ndef test_a(): pass", []),
        ("class TestB:\n  __test__ = False\n  def test_c(self): pass", []),
        ("if linux:\n  def test_a(): pass", []),
        ("def helper(): pass\nclass Helper:\n  def test_c(self): pass", []),
        ("def test_a(:", []),
        ("def test_a(): pass\0", []),
    ],
)
def test_names_by_pytests_default_rules(source: str, names: list[str]) -> None:
    assert names_in(source) == names


def test_files_by_pytests_default_rules(tmp_path: Path) -> None:
    for name in ["test_a.py", "b_test.py", "helper.py", "sub/test_c.py", ".hidden/test_d.py", "__pycache__/test_e.py"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in files_below(tmp_path)] == [
        "b_test.py",
        "test_a.py",
        "sub/test_c.py",
    ]


def test_a_nested_image_has_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "image.yaml").touch()
    (tmp_path / "inner" / "test_a.py").touch()
    assert list(files_below(tmp_path)) == []
