"""The server itself: connections, logs, hooks, the way out."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pytest_azchroot.emulator.emulator import Emulator, Endpoint
from pytest_azchroot.emulator.errors import ArmError
from pytest_azchroot.emulator.hooks import Delay, OperationFault, Reset
from pytest_azchroot.emulator.http import Request, Response
from pytest_azchroot.emulator.settings import PlatformImage, Profile, Settings, SettingsError
from pytest_azchroot.errors import AzchrootError, UnavailableError

from .conftest import Compute, attach, connect, empty_disk
from .test_disks import refusal
from .test_machines import data_disks, lun_link
from .wire import ask

pytestmark = pytest.mark.root


class Rule:
    """A hook that says one thing of one kind of call or operation."""

    def __init__(
        self,
        what: str,
        answer: Response | Reset | Delay | None = None,
        fault: OperationFault | None = None,
    ) -> None:
        self._what, self._answer, self._fault = what, answer, fault

    def request(self, name: str, request: Request) -> Response | Reset | Delay | None:
        """Of the protocol."""
        return self._answer if name == self._what else None

    def operation(self, kind: str, resource: str) -> OperationFault | None:
        """Of the protocol."""
        return self._fault if kind == self._what else None


def test_one_connection_serves_many_requests(emulator: Emulator) -> None:
    connection = http.client.HTTPConnection(urlsplit(emulator.url).netloc)
    for _ in range(3):
        connection.request("GET", "/subscriptions?api-version=1", headers={"Authorization": "Bearer x"})
        assert connection.getresponse().read().startswith(b"{")
    connection.close()
    assert len({call["client"] for call in emulator.calls.read()}) == 1


def test_a_head_has_no_body_and_the_next_request_is_understood(emulator: Emulator) -> None:
    connection = http.client.HTTPConnection(urlsplit(emulator.url).netloc)
    for method in ("HEAD", "GET"):
        connection.request(method, "/subscriptions?api-version=1", headers={"Authorization": "Bearer x"})
        answer = connection.getresponse()
        assert answer.status == 200 and bool(answer.read()) == (method == "GET")
    connection.close()


def test_a_chunked_body(emulator: Emulator) -> None:
    connection = http.client.HTTPConnection(urlsplit(emulator.url).netloc)
    target = f"/subscriptions/{emulator.settings.subscription}/resourceGroups/new?api-version=1"
    body = iter([b'{"location":', b'"westus2"}'])
    connection.request("PUT", target, body, headers={"Authorization": "Bearer x"}, encode_chunked=True)
    assert connection.getresponse().status == 201
    connection.close()


def test_it_passes_nothing_on(emulator: Emulator) -> None:
    address = urlsplit(emulator.url)
    for line in ("CONNECT example.org:443 HTTP/1.1", "GET http://example.org/ HTTP/1.1"):
        with socket.create_connection((str(address.hostname), int(address.port or 0))) as connection:
            connection.sendall(f"{line}\r\nHost: example.org\r\n\r\n".encode())
            assert connection.recv(64).startswith(b"HTTP/1.1 403 ")


def test_it_listens_on_loopback_only(settings: Settings) -> None:
    with pytest.raises(AzchrootError, match="for this machine alone"):
        Emulator(settings, endpoints=[Endpoint("0.0.0.0")]).start()


def test_an_address_that_is_taken(settings: Settings, emulator: Emulator, tmp_path: Path) -> None:
    other = Emulator(Settings(tmp_path / "other"), endpoints=[Endpoint(), Endpoint(port=emulator.ports[0])])
    with pytest.raises(UnavailableError, match="cannot listen"):
        other.start()


def test_stopping_ends_connections_threads_and_listeners(settings: Settings) -> None:
    before = threading.active_count()
    with Emulator(settings, endpoints=[Endpoint(), Endpoint()]) as emulator:
        first, second = emulator.ports
        connections = [socket.create_connection(("127.0.0.1", port)) for port in (first, second, first)]
        assert first != second
    assert threading.active_count() == before
    for connection in connections:
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first))


def test_every_call_is_logged(emulator: Emulator, compute: Compute) -> None:
    empty_disk(compute, "d1")
    calls = emulator.calls.read()
    names = [call["name"] for call in calls]
    assert names == ["PUT disks", *["GET DiskOperations"] * (len(names) - 2), "GET disks"]
    assert calls[-2]["operation"] == "Succeeded"
    assert calls[0].keys() >= {"at", "ms", "method", "host", "path", "version", "status", "client", "agent", "id"}
    assert calls[0]["status"] == 202 and calls[-1]["status"] == 200
    ask(emulator, "GET", "disks/none")
    assert emulator.calls.read()[-1]["error"] == "ResourceNotFound"


# -- hooks


def test_a_hook_answers(emulator: Emulator, compute: Compute) -> None:
    error = ArmError(409, "SkuNotAvailable", "none left")
    emulator.hooks.add(Rule("PUT disks", error.response))
    assert refusal(lambda: empty_disk(compute, "d1")) == (409, "SkuNotAvailable", "none left")


def test_a_hook_resets_the_connection(emulator: Emulator) -> None:
    emulator.hooks.add(Rule("GET disks", Reset()))
    with pytest.raises(ConnectionResetError):
        ask(emulator, "GET", "disks/d1")
    assert emulator.calls.read()[-1]["status"] is None


def test_a_hook_delays(emulator: Emulator) -> None:
    rule = Rule("GET disks", Delay(0.2))
    emulator.hooks.add(rule)
    begin = time.monotonic()
    assert ask(emulator, "GET", "disks/d1").status == 404
    assert time.monotonic() - begin >= 0.2
    emulator.hooks.remove(rule)


def test_a_hook_fails_an_operation(emulator: Emulator, compute: Compute) -> None:
    error = ArmError(409, "OutOfCapacity", "no room")
    emulator.hooks.add(Rule("disks.create", fault=OperationFault(error=error)))
    assert refusal(lambda: empty_disk(compute, "d1"))[1:] == ("OutOfCapacity", "no room")
    assert compute.disks.get("rg1", "d1").properties.provisioning_state == "Failed"
    compute.disks.begin_delete("rg1", "d1").result()


def test_an_operation_that_never_ends(emulator: Emulator, compute: Compute) -> None:
    emulator.hooks.add(Rule("disks.create", fault=OperationFault(endless=True)))
    body = {"location": "westus2", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}}
    url = ask(emulator, "PUT", "disks/d1", body).headers["azure-asyncoperation"]
    assert [ask(emulator, "GET", url).json["status"] for _ in range(3)] == ["InProgress"] * 3


def test_a_device_that_never_appears(emulator: Emulator, compute: Compute) -> None:
    disk = empty_disk(compute, "d1").id
    emulator.hooks.add(Rule("virtualMachines.attachDetach", fault=OperationFault(no_device=True)))
    attach(compute, disk)
    assert [entry.name for entry in data_disks(compute)] == ["d1"]
    assert not lun_link(emulator.settings, 0).is_symlink()


def test_handlers_come_first(settings: Settings) -> None:
    def handle(request: Request) -> Response | None:
        return Response(200, {}, b"mine") if request.path == "/metadata/instance" else None

    with Emulator(settings, handlers=[handle]) as emulator:
        assert ask(emulator, "GET", "/metadata/instance").body == b"mine"
        assert emulator.machine()["properties"]["vmId"] == settings.vm_id


def test_tokens_are_checked(settings: Settings) -> None:
    def authorize(request: Request) -> None:
        if request.header("Authorization") != "Bearer good":
            raise ArmError(401, "InvalidAuthenticationToken", "no")

    with Emulator(settings, authorize=authorize) as emulator:
        assert ask(emulator, "GET", "disks", token="good").status == 200
        assert ask(emulator, "GET", "disks", token="bad").status == 401
        answer = ask(emulator, "GET", "locations/westus2/operations/x", token="bad")
        assert answer.error["code"] == "InvalidAuthenticationToken"


# -- settings


def test_the_network_s_round_trip(settings: Settings) -> None:
    profile = Profile(request=0.1)
    with Emulator(Settings(settings.directory, profile=profile)) as emulator:
        begin = time.monotonic()
        connect(emulator.url, settings).virtual_machines.get("rg1", "vm1")
        assert time.monotonic() - begin >= 0.1


@pytest.mark.parametrize("urn", ["", "a:b:c", "a:b:c:", "a:b:c:d:e"])
def test_what_names_no_image(urn: str) -> None:
    with pytest.raises(SettingsError, match="names no platform image"):
        PlatformImage(urn, Path("x"))


@pytest.mark.parametrize("text", ["[", "seconds: fast", "seconds: {a: b}", "speed: 3", "- 1"])
def test_a_profile_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"the profile .* cannot be used"):
        Profile.load(path)


def test_a_profile_for_what_is_no_operation(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"'disks.make', which no operation is"):
        Emulator(replace(settings, profile=Profile({"disks.make": 1}))).start()
