"""The proxy: unmodified clients with fixed endpoints reach the emulator, and nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest
import requests

from pytest_azchroot.emulator.proxy import is_known

from .azure import ARM, SCOPE, SYSTEM, TENANT, Azure
from .serving import Served, exchange, serving

SUBSCRIPTIONS = f"{ARM}/subscriptions?api-version=2022-12-01"


@pytest.fixture
def bearer(azure: Azure) -> dict[str, str]:
    return {"Authorization": f"Bearer {azure.tokens.issue(SYSTEM, ARM).value}"}


def test_requests(proxied: Served, bearer: dict[str, str]) -> None:
    answer = requests.get(SUBSCRIPTIONS, headers=bearer, timeout=10)
    assert answer.status_code == 200 and answer.json()["oid"] == SYSTEM.object_id
    assert proxied.asked == ["GET management.azure.com/subscriptions"]
    assert proxied.requests[0].base_url == ARM


def test_urllib(proxied: Served, bearer: dict[str, str]) -> None:
    opener = urllib.request.build_opener()  # urlopen keeps the first proxy that it was told of
    with opener.open(urllib.request.Request(SUBSCRIPTIONS, headers=bearer), timeout=10) as answer:
        assert json.load(answer)["oid"] == SYSTEM.object_id


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["curl", "-sS", "-m", "20", *arguments], check=False, capture_output=True, text=True)


@pytest.mark.root
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_curl(
    azure: Azure, served: Served, bearer: dict[str, str], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, served.url)
    monkeypatch.setenv("CURL_CA_BUNDLE", str(azure.authority.certificate_file))
    done = curl("-H", f"Authorization: {bearer['Authorization']}", SUBSCRIPTIONS)
    assert done.stderr == "" and json.loads(done.stdout)["oid"] == SYSTEM.object_id


def test_several_requests_in_one_tunnel(proxied: Served, bearer: dict[str, str]) -> None:
    with requests.Session() as session:
        for _ in range(3):
            assert session.get(SUBSCRIPTIONS, headers=bearer, timeout=10).status_code == 200
    assert len(proxied.requests) == 3


def test_the_metadata_service_in_absolute_form(proxied: Served) -> None:
    """Clients should go past proxies to it; those that do not are answered, too."""
    url = "http://169.254.169.254/metadata/instance/compute/name?api-version=2021-02-01&format=text"
    answer = requests.get(url, headers={"Metadata": "true"}, timeout=10)
    assert (answer.status_code, answer.text) == (200, "vm1")


def test_no_token_is_refused_in_the_tunnel(proxied: Served) -> None:
    answer = requests.get(SUBSCRIPTIONS, timeout=10)
    assert answer.status_code == 401 and f"https://login.windows.net/{TENANT}" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("url", ["https://example.com/", "https://management.azure.com.example/", "https://8.8.8.8/"])
def test_other_names_are_refused(proxied: Served, url: str) -> None:
    with pytest.raises(requests.exceptions.ProxyError, match="403"):
        requests.get(url, timeout=10)
    assert proxied.requests == []


def test_other_names_are_refused_in_absolute_form(proxied: Served) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener().open("http://example.com/", timeout=10)
    assert refused.value.code == 403 and b"does not answer for example.com" in refused.value.read()
    assert proxied.requests == []


@pytest.mark.parametrize("target", ["management.azure.com", ":443", "management.azure.com:", "management.azure.com:x"])
def test_what_is_no_target(served: Served, target: str) -> None:
    answer = exchange(served.address, f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400"))


def test_another_name_for_this_machine(served: Served) -> None:
    """A web page's own name may lead here; what it asks for is not answered."""
    sent = b"GET /metadata/versions HTTP/1.1\r\nHost: page.example\r\nMetadata: true\r\nConnection: close\r\n\r\n"
    assert exchange(served.address, sent).startswith(b"HTTP/1.1 403")
    assert exchange(served.address, sent.replace(b"page.example", b"localhost")).startswith(b"HTTP/1.1 200")


def test_the_scheme_is_what_the_client_speaks(azure: Azure) -> None:
    for tls, scheme in ((False, "http"), (True, "https")):
        with serving(azure.answer, azure.authority, tls=tls) as served:
            url = f"{served.url}/metadata/versions"
            answer = requests.get(
                url, headers={"Metadata": "true"}, verify=str(azure.authority.certificate_file), timeout=10
            )
        assert answer.status_code == 200 and [each.base_url for each in served.requests] == [served.url]
        assert served.url.startswith(f"{scheme}:")


@pytest.mark.parametrize("tunnel", [False, True])
def test_an_open_connection_does_not_keep_the_server(azure: Azure, tunnel: bool) -> None:
    """It ends while a client holds a TLS connection, and the client hears of it."""
    with serving(azure.answer, azure.authority, tls=not tunnel) as served:
        context = ssl.create_default_context(cafile=azure.authority.certificate_file)
        raw = socket.create_connection(served.address, timeout=20)
        if tunnel:
            raw.sendall(b"CONNECT management.azure.com:443 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert raw.recv(1024).startswith(b"HTTP/1.1 200 ")
        connection = context.wrap_socket(raw, server_hostname="management.azure.com")
        connection.sendall(b"GET /metadata/versions HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        threads = {each for each in threading.enumerate() if "process_request" in each.name}
        assert threads
    assert not any(each.is_alive() for each in threads)
    with connection, contextlib.suppress(ssl.SSLError, ConnectionError):
        assert connection.recv(1) == b""


def test_a_client_that_goes_at_once(served: Served) -> None:
    answer = exchange(served.address, b"CONNECT management.azure.com:443 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n")


def test_a_tunnel_without_tls(served: Served) -> None:
    with socket.create_connection(served.address, timeout=10) as connection:
        connection.sendall(b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1024).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /metadata/versions HTTP/1.0\r\nMetadata: true\r\n\r\n")
        assert b'"apiVersions"' in b"".join(iter(lambda: connection.recv(65536), b""))
    assert served.asked == ["GET 169.254.169.254/metadata/versions"]


def test_a_client_that_trusts_others_is_not_taken_in(proxied: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.delenv("CURL_CA_BUNDLE")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(SUBSCRIPTIONS, timeout=10)


def test_the_sdk_with_no_address_of_ours(proxied: Served) -> None:
    """Both the credential and the client have their built-in endpoints; the proxy's variables are all."""
    from azure.identity import ManagedIdentityCredential  # noqa: PLC0415
    from azure.mgmt.compute import ComputeManagementClient  # noqa: PLC0415

    seen: list[Any] = []
    with ComputeManagementClient(ManagedIdentityCredential(), "0", raw_response_hook=seen.append) as client:
        client.disks.get("rg1", "disk1")
    assert proxied.asked[-1] == (
        "GET management.azure.com/subscriptions/0/resourceGroups/rg1/providers/Microsoft.Compute/disks/disk1"
    )
    assert proxied.asked[0] == "GET 169.254.169.254/metadata/identity/oauth2/token"
    assert SCOPE.startswith(ARM) and os.environ["HTTPS_PROXY"] == proxied.url


@pytest.mark.parametrize(
    ("host", "known"),
    [
        *((name, True) for name in ("management.azure.com", "management.azure.com:443", "LOGIN.microsoftonline.com.")),
        *((name, True) for name in ("127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:443", "::1", "localhost:1")),
        *((name, True) for name in ("169.254.169.254", "md-x.blob.core.windows.net", "md-x.z1.blob.storage.azure.net")),
        *((name, False) for name in ("", "example.com", "xmanagement.azure.com", "management.azure.com.example")),
        *(
            (name, False)
            for name in (
                "10.0.0.1",
                "0.0.0.0",
                "graph.microsoft.com",
                "blob.core.windows.net",
                "azcliprod.blob.core.windows.net",
                "[::2]:443",
            )
        ),
    ],
)
def test_known_hosts(host: str, known: bool) -> None:
    assert is_known(host) == known
