"""Templates: what they know where, what is said about the others, and what they give."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from pytest_azchroot.spec import ConfigError, TemplateError, clean_resource_name
from pytest_azchroot.spec.templates import LATE, Scope, is_template, render

from .cases import AZURE, LOCAL, SUB
from .reading import Case, check, read


def local(line: str) -> str:
    return LOCAL + line + "\n"


CASES = [
    Case("syntax", local('mount_path: "{{ device"'), [(4, "mount_path", "is not a template")]),
    Case("syntax hint", local('mount_path: "{{ device"'), [(4, "mount_path", "{{ '{{' }}")]),
    Case("unclosed if", local('post_mount_commands: ["{% if device %}x"]'), [(4, "post_mount_commands[0]", "endif")]),
    Case("filter", local('mount_path: "/{{ device | frob }}"'), [(4, "mount_path", "frob")]),
    Case("Device", local('mount_path: "/mnt/{{ .Device }}"'), [(4, "mount_path", "Jinja2 here: {{ device }}")]),
    Case(
        "MountPath",
        local('post_mount_commands: ["ls {{.MountPath}}"]'),
        [(4, "post_mount_commands[0]", "Jinja2 here: {{ mount_path }}")],
    ),
    Case("user", local('mount_path: "/{{user `place`}}"'), [(4, "mount_path", "{{ var.place }}")]),
    Case("env", local("mount_path: '/{{ env \"HOME\" }}'"), [(4, "mount_path", "{{ env.HOME }}")]),
    Case("vm", AZURE + 'client_id: "{{ vm `name` }}"\n', [(3, "client_id", "{{ vm.name }}")]),
    Case("isotime", local("mount_path: '/{{isotime \"2006\"}}'"), [(4, "mount_path", 'isotime("%Y-%m-%d")')]),
    Case("clean", local("mount_path: '/{{ clean_resource_name `a` }}'"), [(4, "mount_path", "clean_resource_name(…)")]),
    Case("unknown name", local('mount_path: "/{{ devise }}"'), [(4, "mount_path", "did you mean device?")]),
    Case("far name", local('mount_path: "/{{ zzz }}"'), [(4, "mount_path", "known here are")]),
    Case(
        "a variable without var",
        local('mount_path: "/{{ size }}"\nvariables: {size: 1}'),
        [(4, "mount_path", "write var.size")],
    ),
    Case(
        "an unknown variable",
        local('mount_path: "/{{ var.sise }}"\nvariables: {size: 1}'),
        [(4, "mount_path", "did you mean var.size?")],
    ),
    Case("no variables", local('mount_path: "/{{ var.a }}"'), [(4, "mount_path", "declare it under variables:")]),
    Case(
        "an unknown variable in brackets",
        local("mount_path: \"/{{ var['a'] }}\""),
        [(4, "mount_path", "there is no variable a")],
    ),
    Case(
        "an unknown variable by a computed name",
        local("mount_path: \"/{{ var['a' ~ 'b'] }}\""),
        [(4, "mount_path", "var.ab has no value")],
    ),
    Case(
        "a method is no variable", local('mount_path: "/{{ var.values }}"'), [(4, "mount_path", "no variable values")]
    ),
    Case(
        "too early",
        local('mount_options: ["{{ device }}"]'),
        [(4, "mount_options[0]", "it is known in pre_mount_comm")],
    ),
    Case(
        "mount path before the mount",
        local('pre_mount_commands: ["{{ mount_path }}"]'),
        [(4, "pre_mount_commands[0]", "mount_path is not known here")],
    ),
    Case("command elsewhere", local('mount_options: ["{{ command }}"]'), [(4, "mount_options[0]", "command_wrapper")]),
    Case(
        "vm on local",
        local('mount_options: ["{{ vm.name }}"]'),
        [(4, "mount_options[0]", "not known on the cloud local")],
    ),
    Case("vm's key", AZURE + 'client_id: "{{ vm.nam }}"\n', [(3, "client_id", "vm has name, subscription_id")]),
    Case("vm for a number", AZURE + 'os_disk_size_gb: "{{ vm.zone }}"\n', [(3, "os_disk_size_gb", "needed before")]),
    Case("vm for a boolean", AZURE + 'skip_cleanup: "{{ vm.zone }}"\n', [(3, "skip_cleanup", "needed before")]),
    Case("image's key", local('mount_path: "/{{ image.size }}"'), [(4, "mount_path", "image has name")]),
    Case("environment", local('mount_path: "/{{ env.NOPE }}"'), [(4, "mount_path", "NOPE is not set")]),
    Case(
        "a late environment",
        local('post_mount_commands: ["{{ env.NOPE }}"]'),
        [(4, "post_mount_commands[0]", "NOPE is not set")],
    ),
    Case(
        "a partition 0",
        local('pre_mount_commands: ["{{ partition(0) }}"]'),
        [(4, "pre_mount_commands[0]", "the first one is partition(1)")],
    ),
    Case("an error", local('mount_path: "/{{ 1 // 0 }}"'), [(4, "mount_path", "division")]),
    Case("the sandbox", local("mount_path: \"/{{ ''.__class__.__mro__ }}\""), [(4, "mount_path", "unsafe")]),
    Case(
        "a number that is none",
        local('os_disk_size_gb: "{{ image.name }}"'),
        [(4, "os_disk_size_gb", "gave 'demo', which is not a whole number")],
    ),
    Case(
        "a boolean that is none",
        local('skip_create_image: "{{ image.name }}"'),
        [(4, "skip_create_image", "neither true nor false")],
    ),
    Case(
        "seconds that are none", local('command_timeout: "{{ image.name }}"'), [(4, "command_timeout", "not a number")]
    ),
    Case("a list that is none", local('mount_options: "{{ image.name }}"'), [(4, "mount_options", "is not a list")]),
    Case(
        "a choice that is none", local('checks: "{{ image.name }}"'), [(4, "checks", "'demo' is not one of required")]
    ),
    Case(
        "in another cloud's block",
        LOCAL + 'clouds:\n  azure:\n    client_id: "{{ vm.name }}{{ foo }}"\n',
        [(6, "clouds.azure.client_id", "foo is not a name")],
    ),
    Case(
        "vm in the block local",
        AZURE + 'clouds:\n  local:\n    source: "{{ vm.name }}"\n',
        [(5, "clouds.local.source", "not known on the cloud local")],
    ),
    Case(
        "in a nested field",
        "source: a:b:c:d\nshared_image_destination:\n  resource_group: '{{ x }}'\n"
        "  gallery_name: g\n  image_name: 3\n  image_version: 1.0.0\n",
        [
            (3, "shared_image_destination.resource_group", "x is not a name"),
            (5, "shared_image_destination.image_name", "a text is meant"),
        ],
    ),
    Case(
        "two in one text",
        local('mount_path: "/{{ foo }}{{ bar }}"'),
        [(4, "mount_path", "bar is not"), (4, "mount_path", "foo is not")],
    ),
    Case("cloud", 'cloud: "{{ var.c }}"\nvariables: {c: locl}\n' + AZURE, [(1, "cloud", "there is no cloud 'locl'")]),
]


@pytest.mark.parametrize("case", [case.param for case in CASES])
def test_what_is_wrong_with_a_template_is_said(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


def test_every_kind_of_option_can_be_a_template(tmp_path: Path) -> None:
    spec = read(
        tmp_path,
        LOCAL
        + """
os_disk_size_gb: "{{ var.size }}"
skip_create_image: "{{ var.flag }}"
command_timeout: "{{ var.seconds }}"
mount_partition: "{{ 1 + 1 }}"
mount_options: "{{ ['noatime', var.flag] | tojson }}"
chroot_mounts: "[[bind, /dev, '{{ var.seconds }}']]"
copy_files: ["/etc/{{ image.name }}"]
checks: "{% if var.flag == 'yes' %}none{% else %}required{% endif %}"
variables: {size: 7, flag: yes, seconds: 2.50}
""",
    ).spec
    assert (spec.os_disk_size_gb, spec.skip_create_image, spec.command_timeout) == (7, True, 2.5)
    assert (spec.mount_partition, spec.mount_options) == (2, ("noatime", "yes"))
    assert spec.chroot_mounts == (("bind", "/dev", "2.50"),)
    assert (spec.copy_files, spec.checks) == (("/etc/demo",), "none")


def test_a_value_is_never_a_template_itself(tmp_path: Path) -> None:
    configuration = read(
        tmp_path,
        LOCAL + 'mount_options: ["{{ var.a }}"]\npost_mount_commands: ["echo {{ var.a }}"]\nvariables: {a: x}\n',
        variables=["a={{ env.SECRET }}"],
        environ={"SECRET": "no"},
    )
    assert configuration.spec.mount_options == ("{{ env.SECRET }}",)
    assert configuration.render(configuration.spec.post_mount_commands[0]) == "echo {{ env.SECRET }}"


def test_shell_is_left_alone(tmp_path: Path) -> None:
    shell = "for x in ${#list}; do awk '{#x}' \"${x%%{*}\" & done # {# #}\n"
    spec = read(tmp_path, LOCAL + f"post_mount_commands:\n  - |\n    {shell}").spec
    assert spec.post_mount_commands == (shell,)
    assert not is_template(shell)


def test_shell_beside_a_template_keeps_every_character(tmp_path: Path) -> None:
    configuration = read(tmp_path, LOCAL + "post_mount_commands:\n  - |\n    echo ${#a} {# {{ image.name }} #}\n\n")
    assert configuration.render(configuration.spec.post_mount_commands[0]) == "echo ${#a} {# demo #}\n"


def test_a_raw_block_is_taken_literally(tmp_path: Path) -> None:
    configuration = read(tmp_path, LOCAL + "post_mount_commands: [\"docker ps --format '{{ '{{' }}.Names}}'\"]\n")
    assert configuration.render(configuration.spec.post_mount_commands[0]) == "docker ps --format '{{.Names}}'"


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("pre_mount_commands", '["{{ device }} {{ device_name }} {{ partition(2) }}"]'),
        ("mount_path", '"/mnt/{{ device_name }}{{ device }}"'),
        ("manual_mount_command", '"mount {{ partition(1) }} {{ mount_path }}"'),
        ("post_mount_commands", '["{{ device }} {{ partition(2) }} {{ mount_path }}"]'),
        ("pre_unmount_commands", '["{{ device }} {{ partition(2) }} {{ mount_path }}"]'),
        ("command_wrapper", '"sudo {{ command }}"'),
    ],
)
def test_late_options_stay_templates_and_know_their_names(option: str, line: str, tmp_path: Path) -> None:
    configuration = read(tmp_path, LOCAL + f"{option}: {line}\n")
    value = getattr(configuration.spec, option)
    text = value if isinstance(value, str) else value[0]
    assert "{{" in text
    late: dict[str, object] = {
        "device": Path("/dev/loop3"),
        "partition": lambda number: f"/dev/loop3p{number}",
        "mount_path": "/m",
        "command": "ls",
    }
    expected = {
        "pre_mount_commands": "/dev/loop3 loop3 /dev/loop3p2",
        "mount_path": "/mnt/loop3/dev/loop3",
        "manual_mount_command": "mount /dev/loop3p1 /m",
        "command_wrapper": "sudo ls",
    }
    assert configuration.render(text, **late) == expected.get(option, "/dev/loop3 /dev/loop3p2 /m")


def test_every_late_option_is_tested_above() -> None:
    assert len(LATE) == 6


def test_rendering_without_a_late_value_fails_with_the_template(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=re.escape("cannot render '{{ device }}'")):
        read(tmp_path, LOCAL).render("{{ device }}")


def test_names_are_fixed_for_a_configuration(tmp_path: Path) -> None:
    configuration = read(tmp_path, LOCAL)
    text = "{{ timestamp }} {{ isotime }} {{ uuid }}"
    assert configuration.render(text) == configuration.render(text)
    assert re.fullmatch(r"\d{10} \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [0-9a-f-]{36}", configuration.render(text))
    assert configuration.render(text) != read(tmp_path, LOCAL).render(text)


def test_time_is_utc() -> None:
    scope = Scope("i", {}, {}, datetime(2026, 1, 31, 12, tzinfo=timezone.utc), "u")
    text = "{{ timestamp }} {{ isotime }} {{ isotime() }} {{ isotime('%Y%m%d') }}"
    assert render(text, scope, {}) == "1769860800 2026-01-31T12:00:00Z 2026-01-31T12:00:00Z 20260131"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a.b_c-9", "a.b_c-9"),
        ("a b/c", "a-b-c"),
        ("é", ""),
        ("é1", "--1"),
        ("x-_.", "x"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12-00-00Z"),
        ("", ""),
    ],
)
def test_clean_resource_name(text: str, clean: str, tmp_path: Path) -> None:
    assert clean_resource_name(text) == clean
    configuration = read(tmp_path, LOCAL + "variables: {t: ''}\n", variables=[f"t={text}"])
    assert configuration.render("{{ var.t | clean_resource_name }}") == clean
    assert configuration.render("{{ clean_resource_name(var.t) }}") == clean


def test_the_environment_can_be_missing_where_a_default_is_given(tmp_path: Path) -> None:
    text = LOCAL + 'mount_options: ["{{ env.A | default(\'none\') }}", "{{ env.B }}"]\n'
    assert read(tmp_path, text, environ={"B": "b"}).spec.mount_options == ("none", "b")


VM = {
    "name": "builder",
    "subscription_id": "s",
    "resource_group": "rg",
    "location": "westeurope",
    "resource_id": f"{SUB}/virtualMachines/builder",
    "zone": "",
}
WAITING = """
source: "a:b:c:{{ vm.zone or 'latest' }}"
shared_image_destination:
  resource_group: "{{ vm.resource_group }}"
  gallery_name: g
  image_name: "{{ image.name }}"
  image_version: "{{ var.version or vm.name }}"
  target_regions: [{name: "{{ vm.location }}"}]
post_mount_commands: ["echo {{ vm.name }} {{ device_name }}"]
variables: {version: ""}
"""


def test_texts_with_vm_wait_for_it(tmp_path: Path) -> None:
    configuration = read(tmp_path, WAITING, variables=["version=1.2.3"])
    destination = configuration.spec.shared_image_destination
    assert destination is not None
    assert (destination.resource_group, destination.image_name) == ("{{ vm.resource_group }}", "demo")
    assert configuration.render(destination.resource_group, vm=VM) == "rg"

    known = configuration.with_vm(VM)
    destination = known.spec.shared_image_destination
    assert destination is not None
    assert (destination.resource_group, destination.target_regions[0].name) == ("rg", "westeurope")
    assert (known.spec.source, destination.image_version) == ("a:b:c:latest", "1.2.3")
    assert known.render(known.spec.post_mount_commands[0], device="/dev/sdc") == "echo builder sdc"


def test_a_choice_that_waits_is_checked_when_it_is_known(tmp_path: Path) -> None:
    configuration = read(tmp_path, AZURE + 'image_hyperv_generation: "V{{ vm.zone }}"\n')
    assert configuration.with_vm({"zone": "2"}).spec.image_hyperv_generation == "V2"
    with pytest.raises(ConfigError, match="'V3' is not one of V1, V2"):
        configuration.with_vm({"zone": "3"})


def test_what_waited_is_checked_when_it_is_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, WAITING).with_vm({**VM, "zone": "a/b"})
    assert [(each.line, each.field) for each in caught.value.problems] == [
        (7, "shared_image_destination.image_version"),
        (2, "source"),
    ]
