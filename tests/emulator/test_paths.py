"""Resource ids and request paths; pure."""

from __future__ import annotations

import pytest

from pytest_azchroot.emulator import errors
from pytest_azchroot.emulator.arm import call_name
from pytest_azchroot.emulator.http import Request
from pytest_azchroot.emulator.paths import ArmPath, location_key, parse

GROUP = "/subscriptions/S/resourceGroups/G"
COMPUTE = f"{GROUP}/providers/Microsoft.Compute"


def parsed(text: str) -> ArmPath:
    """A path that is one."""
    found = parse(text)
    assert found is not None
    return found


def test_a_resource() -> None:
    path = parsed(f"{COMPUTE}/galleries/Gal/images/Def/versions/1.0.0")
    assert (path.subscription, path.group, path.provider) == ("S", "G", "Microsoft.Compute")
    assert path.kind == "galleries/images/versions" and path.whole and path.name == "1.0.0"
    assert path.parent_id == f"{COMPUTE}/galleries/Gal/images/Def"
    assert path.shown_type == "Microsoft.Compute/galleries/Gal/images/Def/versions"


def test_case_does_not_matter() -> None:
    path = parsed(f"{COMPUTE}/DISKS/d".upper())
    assert path.type == "Microsoft.Compute/disks" and path.kind == "disks"
    assert path.key == parsed(f"{COMPUTE}/disks/D").key


def test_collections_and_actions() -> None:
    path = parsed(f"{COMPUTE}/disks/d/beginGetAccess/")
    assert not path.whole and path.kind == "disks/begingetaccess" and path.parent_id == f"{COMPUTE}/disks/d"
    assert not parsed(f"{COMPUTE}/disks").whole


def test_what_has_no_provider() -> None:
    assert parsed(GROUP).rest == () and parsed(GROUP).group == "G"
    assert parsed("/subscriptions/S/locations").rest == ("locations",)
    assert parsed("/subscriptions").subscription is None


@pytest.mark.parametrize("text", ["", "/", "x", "/tenants", "/metadata/instance", "/subscriptions//x"])
def test_what_is_no_path(text: str) -> None:
    assert parse(text) is None


def test_regions_have_two_forms() -> None:
    assert location_key("West US 2") == location_key("westus2") == "westus2"


def test_not_found_names_nested_resources() -> None:
    message = errors.not_found(parsed(f"{COMPUTE}/galleries/g/images/d")).message
    assert message.startswith("The Resource 'Microsoft.Compute/galleries/g/images/d' under resource group 'G' was not")


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("PUT", f"{COMPUTE}/disks/d", "PUT disks"),
        ("GET", f"{COMPUTE}/galleries/g/images/d/versions", "GET galleries/images/versions"),
        ("POST", f"{COMPUTE}/virtualmachines/v/attachDetachDataDisks", "POST virtualMachines/attachDetachDataDisks"),
        ("GET", "/subscriptions/S/providers/Microsoft.Compute/locations/l/DiskOperations/o", "GET DiskOperations"),
        ("GET", "/subscriptions/S", "GET subscriptions"),
        ("PUT", GROUP, "PUT resourceGroups"),
        ("GET", "/metadata/instance", "GET /metadata/instance"),
    ],
)
def test_names_of_calls(method: str, path: str, name: str) -> None:
    assert call_name(Request(method, "http", "h", path)) == name
