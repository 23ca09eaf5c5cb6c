"""The metadata service: its rules, its limits, and itself over the wire."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_azchroot.emulator.imds import ADDRESS, Imds, Limits

from .azure import ARM, SUBSCRIPTION, SYSTEM, VM_ID, Azure, machine
from .metadata import TOKEN_PATH, ask, imds_of
from .serving import Served, serving


@pytest.fixture
def imds(azure: Azure) -> Imds:
    return azure.imds


# -- rules


def test_the_header_is_required(imds: Imds) -> None:
    wanted = (400, {"error": "Bad request. Required metadata header not specified"})
    assert ask(imds, "/metadata/instance", metadata="") == wanted
    assert ask(imds, "/metadata/instance", metadata="false") == wanted
    assert ask(imds, "/metadata/versions", metadata="")[0] == 400
    assert ask(imds, "/metadata/instance", metadata="True")[0] == 200


@pytest.mark.parametrize("path", ["/metadata/instance", TOKEN_PATH, "/metadata/versions"])
def test_what_was_passed_on_is_refused(imds: Imds, path: str) -> None:
    status, found = ask(imds, path, ("resource", ARM), x_forwarded_for="10.0.0.9")
    assert status == 400 and "X-Forwarded-For" in found.get("error_description", found["error"])


@pytest.mark.parametrize("path", ["/metadata/instance", TOKEN_PATH])
def test_repeated_parameters_are_refused(imds: Imds, path: str) -> None:
    query = (("resource", ARM), ("api-version", "2021-02-01"), ("API-version", "2021-02-01"))
    assert ask(imds, path, *query)[0] == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
@pytest.mark.parametrize("path", ["/metadata/instance", "/metadata/versions", TOKEN_PATH])
def test_only_get(imds: Imds, method: str, path: str) -> None:
    assert ask(imds, path, method=method) == (405, {"error": "Not allowed"})


class Clock:
    """A time that passes when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_five_requests_in_any_second(azure: Azure) -> None:
    clock = Clock()
    imds = imds_of(azure, limits=Limits(), clock=clock)
    statuses = []
    for _ in range(7):
        statuses.append(ask(imds, "/metadata/instance")[0])
        clock.now += 0.1
    assert statuses == [200] * 5 + [429] * 2
    clock.now = 1001.0  # the first one is a second old
    assert [ask(imds, "/metadata/instance")[0] for _ in range(2)] == [200, 429]


def test_refused_requests_do_not_count(azure: Azure) -> None:
    clock = Clock()
    imds = imds_of(azure, limits=Limits(), clock=clock)
    for _ in range(100):
        ask(imds, "/metadata/instance")
    clock.now += 1
    assert ask(imds, "/metadata/instance")[0] == 200


def test_the_refusal(azure: Azure) -> None:
    imds = imds_of(azure, limits=Limits(per_second=0))
    assert ask(imds, "/metadata/instance") == (429, {"error": "Too many requests"})


def test_identities_have_a_limit_of_their_own(azure: Azure) -> None:
    imds = imds_of(azure, system=SYSTEM, limits=Limits(), clock=Clock())
    assert [ask(imds, TOKEN_PATH, ("resource", ARM))[0] for _ in range(21)] == [200] * 20 + [429]
    assert ask(imds, "/metadata/instance")[0] == 200


def test_five_tokens_at_once(azure: Azure) -> None:
    all_in, go_on = threading.Semaphore(0), threading.Event()

    def fetching() -> None:
        all_in.release()
        go_on.wait(30)

    imds = imds_of(azure, system=SYSTEM, limits=Limits(), fetching=fetching)
    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(ask, imds, TOKEN_PATH, ("resource", ARM)) for _ in range(5)]
        assert all(all_in.acquire(timeout=30) for _ in range(5))
        sixth = ask(imds, TOKEN_PATH, ("resource", ARM))[0]
        go_on.set()
        assert sixth == 429 and [each.result()[0] for each in running] == [200] * 5
    assert ask(imds, TOKEN_PATH, ("resource", ARM))[0] == 200


# -- events and attestation


def test_no_events_are_scheduled(imds: Imds) -> None:
    query = ("api-version", "2020-07-01")
    assert ask(imds, "/metadata/scheduledevents", query) == (200, {"DocumentIncarnation": 1, "Events": []})


def test_the_attested_document_is_signed(azure: Azure, tmp_path: Path) -> None:
    status, found = ask(azure.imds, "/metadata/attested/document", ("nonce", "1234567890"))
    assert status == 200 and found["encoding"] == "pkcs7"
    signed = tmp_path / "signed"
    signed.write_bytes(base64.b64decode(found["signature"]))
    command: list[str | Path] = ["openssl", "smime", "-verify", "-inform", "DER", "-in", signed, "-purpose", "any"]
    command += ["-CAfile", azure.authority.certificate_file]
    document = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert document["nonce"] == "1234567890" and document["vmId"] == machine()["properties"]["vmId"]
    assert document["subscriptionId"] == SUBSCRIPTION and document["sku"] == "12-gen2"


# -- over the wire


def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_client_reads_the_instance(served: Served) -> None:
    url = f"{served.url}/metadata/instance/compute?api-version=2021-02-01"
    status, body = fetch(url, Metadata="true")
    assert status == 200 and json.loads(body)["resourceId"] == VM_ID
    assert fetch(url)[0] == 400


@pytest.mark.root
def test_at_its_own_address(azure: Azure) -> None:
    with serving(azure.answer, azure.authority, address=(ADDRESS, 80)):
        status, body = fetch(
            f"http://{ADDRESS}/metadata/instance/compute/vmSize?api-version=2021-02-01&format=text", Metadata="true"
        )
    assert (status, body) == (200, b"Standard_D4s_v5")


def test_threads_share_one_limit(azure: Azure) -> None:
    imds = imds_of(azure, limits=Limits(), clock=Clock())
    one: Callable[[int], int] = lambda _: ask(imds, "/metadata/instance")[0]  # noqa: E731
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(one, range(64)))
    assert statuses.count(200) == 5
