"""Variables: how they are declared, and which value counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_azchroot.spec import BUILTIN_CLOUDS, ConfigError, declared_variables, load

from .cases import LOCAL
from .reading import Case, check, problems, read, write


def declaring(*lines: str) -> str:
    return LOCAL + "variables:\n" + "".join(f"  {line}\n" for line in lines)


CASES = [
    Case(
        "a list", LOCAL + "variables: [a]\n", [(4, "variables", "a mapping of names to defaults is meant, not a list")]
    ),
    Case("a name", declaring("my-var: 1"), [(5, "variables.my-var", "is not a name")]),
    Case("a digit first", declaring("9a: 1"), [(5, "variables.9a", "is not a name")]),
    Case("a list as default", declaring("a: [1]"), [(5, "variables.a", "a text, number or boolean is meant")]),
    Case("a mapping as default", declaring("a: {default: {}}"), [(5, "variables.a.default", "not a mapping")]),
    Case(
        "an unknown key", declaring("a: {default: 1, sensitiv: yes}"), [(5, "variables.a.sensitiv", "mean sensitive?")]
    ),
    Case("a far key", declaring("a: {default: 1, x: yes}"), [(5, "variables.a.x", "has default and sensitive")]),
    Case(
        "sensitive as a text", declaring("a: {default: 1, sensitive: maybe}"), [(5, "variables.a.sensitive", "true or")]
    ),
    Case("a template", declaring("a: '{{ env.X }}'"), [(5, "variables.a", "is not a template")]),
    Case(
        "required", declaring("a:"), [(5, "variables.a", "--azchroot-var a=VALUE, --azchroot-var-file FILE or AZCHROO")]
    ),
    Case(
        "required and sensitive", declaring("a: {sensitive: true}"), [(5, "variables.a", "has no value and no default")]
    ),
    Case(
        "required and used",
        declaring("a:") + 'mount_options: ["{{ var.a }}"]\nos_disk_size_gb: "{{ var.a }}"\n',
        [(5, "variables.a", "has no value and no default")],
    ),
    Case("undeclared", LOCAL, [(None, "--azchroot-var a", "declares none under variables:")], variables=["a=1"]),
    Case(
        "undeclared, near",
        declaring("size: 1"),
        [(None, "--azchroot-var sise", "did you mean size?")],
        variables=["sise=1"],
    ),
    Case(
        "undeclared, far",
        declaring("size: 1", "b: 2"),
        [(None, "--azchroot-var x", "declared are b, size")],
        variables=["x=1"],
    ),
    Case("no equals", declaring("a: 1"), [(None, "--azchroot-var a", "is not NAME=VALUE")], variables=["a"]),
    Case(
        "a short secret",
        declaring("a: {default: abc, sensitive: true}"),
        [(5, "variables.a", "less than 4 characters")],
    ),
    Case(
        "no secret",
        declaring("a: {sensitive: true}"),
        [(5, "variables.a", "less than 4 characters")],
        environ={"AZCHROOT_VAR_A": ""},
    ),
]


@pytest.mark.parametrize("case", [case.param for case in CASES])
def test_what_is_wrong_with_variables_is_said(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.parametrize(
    ("spelling", "value"),
    [("1.10", "1.10"), ("yes", "yes"), ("0x1F", "0x1F"), ("007", "007"), ('"a b"', "a b"), ("''", ""), ("1e3", "1e3")],
)
def test_a_default_is_what_is_written(spelling: str, value: str, tmp_path: Path) -> None:
    assert read(tmp_path, declaring(f"a: {spelling}", f"b: {{default: {spelling}}}")).variables == {
        "a": value,
        "b": value,
    }


def test_the_strongest_value_counts_and_its_origin_is_known(tmp_path: Path) -> None:
    weak = write(tmp_path, "d: file\ne: file\nf: weaker than an argument\n", "weak.yaml")
    strong = write(tmp_path, "# comment\ne: 1.10\n", "strong.yaml")
    configuration = read(
        tmp_path,
        declaring("a: default", "b: default", "Cc: default", "d: default", "e: default", "f: default", "g: default"),
        variables=["f=first", "f=last=1", "g="],
        variable_files=[weak, strong],
        environ={
            "AZCHROOT_VAR_b": "exact",
            "AZCHROOT_VAR_B": "upper",
            "AZCHROOT_VAR_CC": "upper",
            "AZCHROOT_VAR_d": "weaker than a file",
            "AZCHROOT_VAR_f": "weaker than an argument",
            "AZCHROOT_VAR_other": "of another image",
        },
    )
    assert configuration.variables == {
        "a": "default",
        "b": "exact",
        "Cc": "upper",
        "d": "file",
        "e": "1.10",
        "f": "last=1",
        "g": "",
    }
    assert configuration.origins == {
        "a": "its default",
        "b": "the environment variable AZCHROOT_VAR_b",
        "Cc": "the environment variable AZCHROOT_VAR_CC",
        "d": f"{weak}:1",
        "e": f"{strong}:2",
        "f": "--azchroot-var",
        "g": "--azchroot-var",
    }


@pytest.mark.parametrize(
    ("text", "line", "field", "part"),
    [
        ("a: 1\nbb: 2\n", 2, "bb", "no variable bb is declared"),
        ("a: [1]\n", 1, "a", "not a list"),
        ("a:\n", 1, "a", "not nothing"),
        ("- a\n", 1, "", "a mapping of names to values is meant, not a list"),
        ("a: 1\na: 2\n", 2, "a", "given twice"),
        ("a: {\n", 2, "", "is not YAML"),
    ],
)
def test_problems_of_a_variable_file_name_it(text: str, line: int, field: str, part: str, tmp_path: Path) -> None:
    file = write(tmp_path, text, "values.yaml")
    (found,) = problems(tmp_path, declaring("a: 1"), variable_files=[file])
    assert (found.path, found.line, found.field) == (file, line, field)
    assert part in found.message


def test_a_variable_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, LOCAL, variable_files=[tmp_path / "no.yaml"])
    assert found.message == "cannot be read: No such file or directory"


def test_an_empty_variable_file_is_fine(tmp_path: Path) -> None:
    assert read(tmp_path, LOCAL, variable_files=[write(tmp_path, "# none\n", "v.yaml")]).variables == {}


def test_another_images_variables_can_be_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, declaring("a: 1"))
    file = write(tmp_path, "c: 3\n", "values.yaml")
    configuration = load(
        path,
        clouds=BUILTIN_CLOUDS,
        variables=["a=2", "b=3"],
        variable_files=[file],
        environ={},
        unknown_variables="ignore",
    )
    assert configuration.variables == {"a": "2"}
    assert declared_variables(path) == {"a"}


def test_a_variable_that_only_another_cloud_uses_need_not_be_set(tmp_path: Path) -> None:
    text = declaring("secret: {sensitive: true}") + 'clouds:\n  azure:\n    client_secret: "{{ var.secret }}"\n'
    assert read(tmp_path, text).variables == {}


def test_secrets_are_those_of_variables_and_of_options(tmp_path: Path) -> None:
    configuration = read(
        tmp_path,
        """
        source: a:b:c:d
        skip_create_image: true
        client_id: i
        subscription_id: s
        client_cert_path: /x
        client_cert_password: "{{ var.a }}-{{ env.B }}"
        variables: {a: {default: hunter2, sensitive: true}, c: {default: unseen, sensitive: false}}
        """,
        environ={"B": "bbbb"},
    )
    assert configuration.secrets == ("hunter2", "hunter2-bbbb")
    assert "hunter2" not in repr(configuration)


def test_problems_do_not_tell_secrets(tmp_path: Path) -> None:
    text = declaring("a: {sensitive: true}") + 'checks: "{{ var.a }}"\nlvm_root_device: "{{ var.a }}"\n'
    found = problems(tmp_path, text, variables=["a=hunter2hunter2"])
    assert len(found) == 2
    assert not any("hunter2" in str(each) for each in found)


def test_declared_variables_of_a_broken_file_are_known(tmp_path: Path) -> None:
    path = write(tmp_path, declaring("a: 1") + "nonsense: x\n")
    assert declared_variables(path) == {"a"}
    assert declared_variables(tmp_path / "none.yaml") == frozenset()
    with pytest.raises(ConfigError):
        load(path, clouds=BUILTIN_CLOUDS)
