"""The documentation holds together: links lead somewhere, examples are valid, the reference names everything."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_azchroot import cli, errors
from pytest_azchroot.attached import AttachedDisk
from pytest_azchroot.fixtures import FIXTURES
from pytest_azchroot.image import Image
from pytest_azchroot.sandbox import Chroot, Completed

from . import hooks_page
from .markdown import ROOT, Block, anchors, blocks, links, pages

REFERENCE = ROOT / "docs" / "reference"
ALL_BLOCKS = [block for page in pages() for block in blocks(page)]


def of_language(language: str) -> list[Block]:
    return [block for block in ALL_BLOCKS if block.language == language]


# -- links


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link]
        ahead += [target for target in targets if target.suffix == ".md" and target not in seen]
    assert [str(page.relative_to(ROOT)) for page in pages() if page not in seen] == []


# -- examples


@pytest.mark.parametrize("block", of_language("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", of_language("yaml"), ids=str)
def test_yaml_is_yaml(block: Block) -> None:
    assert yaml.safe_load(block.text) is not None


@pytest.mark.parametrize("block", of_language("sh"), ids=str)
def test_shell_is_shell(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


@pytest.mark.parametrize("block", [b for b in ALL_BLOCKS if (b.file or "").endswith("image.yaml")], ids=str)
def test_an_image_yaml_is_valid(block: Block, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "image.yaml").write_text(block.text)
    declared = (yaml.safe_load(block.text).get("variables") or {}).items()
    unset = [name for name, value in declared if value is None or (isinstance(value, dict) and "default" not in value)]
    code = cli.main(["validate", str(tmp_path), *(f"--var={name}=something" for name in unset)])
    assert code == 0, capsys.readouterr().err


def test_there_are_examples() -> None:
    """The expressions that find them still do."""
    assert {block.language for block in ALL_BLOCKS} >= {"python", "yaml", "sh", "console"}
    assert len(ALL_BLOCKS) > 30


# -- the reference


def test_the_page_of_hooks_is_up_to_date() -> None:
    advice = "run: python -m tests.docs.hooks_page >docs/reference/hooks.md"
    assert hooks_page.PAGE.read_text() == hooks_page.page(), advice


def test_every_hook_has_an_example() -> None:
    shown = "".join(block.text for block in blocks(hooks_page.PAGE))
    assert [name for name in hooks_page.hooks() if f"def {name}(" not in shown] == []


def test_command_line_names_every_option_and_setting() -> None:
    command = [sys.executable, "-m", "pytest", "--help", "-c", "/dev/null"]
    help = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = set(re.findall(r"--azchroot-[a-z-]+|^  (?:azchroot_[a-z_]+)(?= \()", help, re.MULTILINE))
    assert len(names) > 8
    assert missing({name.strip() for name in names}, "command-line.md") == []


def test_command_line_names_every_subcommand_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    names = set()
    subcommands = re.findall(r"^    (\w+) ", _help(capsys), re.MULTILINE)
    assert {"validate", "schema"} <= set(subcommands)
    for subcommand in subcommands:
        options = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", _help(capsys, subcommand), re.MULTILINE))
        names |= {f"azchroot {subcommand}", *(options - {"--help"})}
    assert missing(names, "command-line.md") == []


def _help(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    return capsys.readouterr().out


def test_fixtures_names_every_fixture() -> None:
    names = {name for name in FIXTURES if not name.startswith("_")}
    assert missing({f"## `{name}`" for name in names}, "fixtures.md") == []


def test_fixtures_names_everything_of_chroot() -> None:
    methods = {name: value for name, value in public(Chroot).items() if inspect.isfunction(value)}
    assert missing({f"`chroot.{name}" for name in public(Chroot)}, "fixtures.md") == []
    parameters = {name for method in methods.values() for name in inspect.signature(method).parameters} - {"self"}
    assert missing({f"`{name}`" for name in parameters - {"number"}}, "fixtures.md") == []


@pytest.mark.parametrize(("kind", "prefix"), [(Image, "image."), (AttachedDisk, "disk."), (Completed, "")])
def test_fixtures_names_every_attribute(kind: type, prefix: str) -> None:
    names = {*public(kind), *kind.__annotations__} - {"configuration"}
    assert missing({f"`{prefix}{name}" for name in names}, "fixtures.md") == []


def test_errors_are_named() -> None:
    names = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)
    } | {"CommandError"}
    assert missing({f"`{name}`" for name in names}, "fixtures.md") == []


def public(kind: type) -> dict[str, object]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def missing(names: set[str], page: str) -> list[str]:
    """The names that a page of the reference does not hold."""
    text = (REFERENCE / page).read_text()
    return sorted(name for name in names if name not in text)
