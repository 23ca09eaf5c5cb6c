"""Places to mount on, of an image's own tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_azchroot.sandbox.inroot import make_target, make_targets


def test_several_at_once_are_what_each_would_be(tmp_path: Path) -> None:
    (tmp_path / "var/proc").mkdir(parents=True)
    (tmp_path / "proc").symlink_to(tmp_path / "var/proc")
    dev, proc = f"{tmp_path}/dev", f"{tmp_path}/proc"
    found = make_targets([dev, proc, f"{proc}/sys"])
    assert found[dev] == {"path": dev, "made": (dev,)}
    assert found[proc] == {"path": make_target(proc, directory=True).path, "made": ()}
    assert found[f"{proc}/sys"] == {"path": f"{tmp_path}/var/proc/sys", "made": []}
    assert not (tmp_path / "var/proc/sys").exists()


@pytest.mark.parametrize("link", ["dev", "dev/run", "proc/1/root/tmp", "/"])
def test_links_from_one_into_another_are_left_for_later(tmp_path: Path, link: str) -> None:
    for name in ("dev", "proc"):
        (tmp_path / name).mkdir()
    (tmp_path / "run").symlink_to(link if link == "/" else tmp_path / link)
    assert make_targets([f"{tmp_path}/{name}" for name in ("dev", "proc", "run")]) == {}
    assert not (tmp_path / "dev/run").exists()
