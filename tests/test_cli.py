"""The command azchroot: what it prints, and how it ends."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_azchroot import __version__
from pytest_azchroot.cli import main
from pytest_azchroot.report import manifest
from pytest_azchroot.spec.reference import reference
from pytest_azchroot.spec.schema import json_schema

GOOD = "cloud: local\nsource: a.vhd\noutput: b.vhd\nvariables: {size: 1}\n"
BAD = "cloud: local\nsource: a.vhd\noutput: b.vdh\nflavor: x\n"


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {"images/good": GOOD, "images/bad": BAD, "images/other": GOOD.replace("size", "depth")}.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "image.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("path", ["images/good", "images/good/image.yaml"])
def test_a_valid_image(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", path]) == 0
    assert capsys.readouterr() == ("ok  images/good/image.yaml  (cloud local)\n", "")


@pytest.mark.usefixtures("images")
def test_problems_go_to_stderr_and_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "images"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "ok  images/good/image.yaml  (cloud local)",
        "ok  images/other/image.yaml  (cloud local)",
    ]
    assert err.splitlines() == [
        "images/bad/image.yaml:3: output: 'b.vdh' does not end in .vhd, .raw, .vhdx, .qcow2",
        "  hint: did you mean .vhd?",
        "images/bad/image.yaml:4: flavor: unknown option",
        "  hint: azchroot schema --markdown lists all options",
    ]


def test_a_file_given_twice_is_checked_once(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "images/good", "images/good/image.yaml"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.usefixtures("images")
def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--json", "images/bad", "images/good"]) == 1
    bad, good = json.loads(capsys.readouterr().out)
    assert good == {"path": "images/good/image.yaml", "ok": True, "cloud": "local", "problems": []}
    assert (bad["ok"], bad["cloud"], [each["line"] for each in bad["problems"]]) == (False, None, [3, 4])
    assert bad["problems"][0]["hint"] == "did you mean .vhd?"


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["validate", "nowhere"], "there is no nowhere"),
        (["validate"], "the following arguments are required: PATH"),
        (["validate", "--frob", "images"], "unrecognized arguments"),
        (["frob"], "invalid choice: 'frob'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert said in capsys.readouterr().err


def test_an_image_directory_stands_for_itself_alone(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = images / "images" / "good" / "parts"
    inner.mkdir()
    (inner / "image.yaml").write_text(BAD)
    assert main(["validate", "images/good"]) == 0
    assert capsys.readouterr().out == "ok  images/good/image.yaml  (cloud local)\n"


def test_a_directory_without_images_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(tmp_path)]) == 2
    assert "there is no image.yaml in" in capsys.readouterr().err


@pytest.mark.usefixtures("images")
def test_the_cloud_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--cloud", "azure", "images/good"]) == 1
    assert "the cloud azure does not act on output" in capsys.readouterr().err


def test_variables_of_one_image(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "v.yaml").write_text("size: 3\n")
    assert main(["validate", "images/good", "--var", "size=2", "--var-file", "v.yaml"]) == 0
    assert main(["validate", "images/good", "--var", "sise=2"]) == 1
    assert "did you mean size?" in capsys.readouterr().err


@pytest.mark.usefixtures("images")
def test_a_variable_of_one_of_several_images_is_fine_and_of_none_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    both = ["validate", "images/good", "images/other"]
    assert main([*both, "--var", "size=2", "--var", "depth=3"]) == 0
    capsys.readouterr()
    assert main([*both, "--var", "sise=2"]) == 1
    assert capsys.readouterr().err == "--var sise: no image declares this variable\n"


def test_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


def test_the_schema_of_manifests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--manifest"]) == 0
    assert json.loads(capsys.readouterr().out) == manifest.json_schema()


def test_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--markdown"]) == 0
    assert capsys.readouterr().out == reference()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "without root and without network"),
        (["validate", "--help"], "0 all are right, 1 something is wrong, 2 wrong usage"),
        (["schema", "--help"], "yaml-language-server: $schema="),
        (["--version"], f"azchroot {__version__}"),
    ],
)
def test_help(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert said in " ".join(capsys.readouterr().out.split())


WITHOUT_ROOT_OR_NETWORK = """
import os, socket, sys
from pytest_azchroot.cli import main
main(["validate", "image.yaml"])  # Python finds all of its own files while it may
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
del socket.socket
sys.exit(main(["validate", "image.yaml"]))
"""


def test_it_needs_neither_root_nor_network(images: Path) -> None:
    directory = images / "images" / "good"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROOT_OR_NETWORK], cwd=directory, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ok  image.yaml  (cloud local)\n" * 2), done.stderr


def test_the_command_is_installed() -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="azchroot")
    assert command.load() is main


def test_a_command_without_its_dashes_is_told_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["shell", "web.vhd", "ls", "/"])
    assert "unrecognized arguments: ls /; a command to run stands behind --\n" in capsys.readouterr().err
