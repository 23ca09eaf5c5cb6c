"""Long-running operations on the wire, as they were recorded from Azure."""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from pytest_azchroot.emulator import operations
from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import Profile, Settings

from .conftest import connect, empty_disk
from .wire import Answer, ask, compute_path

pytestmark = pytest.mark.root
EMPTY = {"location": "westus2", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Slow enough to look at what runs."""
    return replace(settings, profile=Profile({"disks.create": 0.5, "virtualMachines.attachDetach": 0.3}))


def ended(emulator: Emulator, url: str) -> Answer:
    """The answer of an operation's URL when it has ended."""
    while (answer := ask(emulator, "GET", url)).status == 202 or answer.json.get("status") == "InProgress":
        time.sleep(0.02)
    return answer


def test_a_new_disk(emulator: Emulator) -> None:
    answer = ask(emulator, "PUT", "disks/d1", EMPTY)
    assert answer.status == 202
    assert answer.json["properties"]["provisioningState"] == "Updating"
    assert answer.json["properties"]["isArmResource"] is True
    assert "retry-after" not in answer.headers
    poll = urlsplit(answer.headers["azure-asyncoperation"])
    assert f"{poll.scheme}://{poll.netloc}" == emulator.url
    start = (
        f"/subscriptions/{emulator.settings.subscription}/providers/Microsoft.Compute/locations/westus2/DiskOperations/"
    )
    assert poll.path.startswith(start)
    assert parse_qs(poll.query).keys() == {"p", "api-version"}
    location = urlsplit(answer.headers["location"])
    assert location.path == poll.path and parse_qs(location.query)["monitor"] == ["true"]


def test_the_status_of_an_operation(emulator: Emulator) -> None:
    url = ask(emulator, "PUT", "disks/d1", EMPTY).headers["azure-asyncoperation"]
    during = ask(emulator, "GET", url)
    assert during.status == 200
    assert during.json.keys() == {"startTime", "status", "name"} and during.json["status"] == "InProgress"
    after = ended(emulator, url)
    assert after.json.keys() == {"startTime", "endTime", "status", "name", "properties"}
    assert after.json["status"] == "Succeeded"
    assert after.json["properties"]["output"]["properties"]["diskState"] == "Unattached"


def test_the_location_of_an_operation(emulator: Emulator) -> None:
    url = ask(emulator, "PUT", "disks/d1", EMPTY).headers["location"]
    during = ask(emulator, "GET", url)
    assert (during.status, during.body) == (202, b"") and "location" in during.headers
    after = ended(emulator, url)
    assert after.status == 200 and after.json["name"] == "d1"


def test_an_update_of_a_machine_has_no_location(emulator: Emulator) -> None:
    answer = ask(emulator, "PATCH", "virtualMachines/vm1", {"tags": {}})
    assert answer.status == 200
    assert "/operations/" in answer.headers["azure-asyncoperation"]
    assert answer.headers["azure-asyncnotification"] == "Enabled"
    assert answer.headers["etag"] == answer.json["etag"] == '"2"'
    assert "location" not in answer.headers and "retry-after" not in answer.headers
    after = ended(emulator, answer.headers["azure-asyncoperation"])
    assert after.json.keys() == {"startTime", "endTime", "status", "name"}


def test_attaching_answers_the_storage_profile(emulator: Emulator) -> None:
    disk = empty_disk(connect(emulator.url, emulator.settings), "d1").id
    body = {"dataDisksToAttach": [{"diskId": disk}]}
    answer = ask(emulator, "POST", "virtualMachines/vm1/attachDetachDataDisks", body)
    assert (answer.status, answer.body) == (202, b"")
    after = ended(emulator, answer.headers["location"])
    assert after.status == 200
    assert [entry["name"] for entry in after.json["dataDisks"]] == ["d1"]


def test_what_galleries_answer(emulator: Emulator) -> None:
    answer = ask(emulator, "PUT", "galleries/gal", {"location": "westus2"})
    assert answer.status == 201 and "/capsOperations/" in answer.headers["azure-asyncoperation"]
    ended(emulator, answer.headers["azure-asyncoperation"])
    assert ask(emulator, "PUT", "galleries/gal", {"location": "westus2"}).status == 200


def test_deleting(emulator: Emulator) -> None:
    ended(emulator, ask(emulator, "PUT", "disks/d1", EMPTY).headers["azure-asyncoperation"])
    answer = ask(emulator, "DELETE", "disks/d1")
    assert (answer.status, answer.body) == (202, b"")
    assert ended(emulator, answer.headers["azure-asyncoperation"]).json["status"] == "Succeeded"
    assert ask(emulator, "GET", answer.headers["location"]).status == 204
    assert ask(emulator, "DELETE", "disks/d1").status == 204


def test_a_failed_operation(emulator: Emulator) -> None:
    compute = connect(emulator.url, emulator.settings)
    compute.disks.begin_create_or_update("rg1", "d1", EMPTY).result()
    disk = f"{compute_path(emulator)}/disks/d1"
    emulator.azure.store.remove(emulator.azure.resource(disk).hidden["file"])
    body = {"dataDisksToAttach": [{"diskId": disk}]}
    answer = ask(emulator, "POST", "virtualMachines/vm1/attachDetachDataDisks", body)
    failed = ended(emulator, answer.headers["azure-asyncoperation"])
    assert failed.status == 200 and failed.json["status"] == "Failed"
    assert failed.json["error"]["code"] == "InternalServerError"
    result = ask(emulator, "GET", answer.headers["location"])
    assert result.status == 500 and result.error["code"] == "InternalServerError"
    machine = ask(emulator, "GET", "virtualMachines/vm1").json["properties"]
    assert machine["provisioningState"] == "Failed" and machine["storageProfile"]["dataDisks"] == []


def test_retry_after_if_asked(settings: Settings) -> None:
    with Emulator(replace(settings, retry_after=1)) as emulator:
        answer = ask(emulator, "PUT", "disks/d1", EMPTY)
        assert answer.headers["retry-after"] == "1"
        assert ask(emulator, "GET", answer.headers["azure-asyncoperation"]).headers["retry-after"] == "1"


def test_an_operation_that_nobody_began(emulator: Emulator) -> None:
    url = ask(emulator, "PUT", "disks/d1", EMPTY).headers["azure-asyncoperation"]
    name = urlsplit(url).path.rsplit("/", 1)[1]
    assert ask(emulator, "GET", url.replace(name, "00000000-0000-0000-0000-000000000000")).status == 404


def test_the_first_poll_sees_what_takes_no_time(settings: Settings) -> None:
    with Emulator(replace(settings, profile=Profile())) as emulator:
        for name in ("d1", "d2", "d3"):
            url = ask(emulator, "PUT", f"disks/{name}", EMPTY).headers["azure-asyncoperation"]
            assert ask(emulator, "GET", url).json["status"] == "Succeeded"


def test_old_operations_are_forgotten(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_KEPT", 2)
    urls = []
    for _ in range(4):
        urls.append(ask(emulator, "PATCH", "virtualMachines/vm1", {"tags": {}}).headers["azure-asyncoperation"])
        ended(emulator, urls[-1])
    assert [ask(emulator, "GET", url).status for url in urls] == [404, 404, 200, 200]


def test_a_profile_is_read_from_a_file(settings: Settings) -> None:
    settings.directory.mkdir()
    path = settings.directory / "profile.yaml"
    path.write_text("seconds: {disks.create: 2, '*': 0.25}\nrequest: 0.05\n")
    profile = Profile.load(path)
    assert profile.latency("disks.create") == 2
    assert profile.latency("images.create") == 0.25
    assert profile.request == 0.05
