"""These tests cannot reach anything off this machine."""

from __future__ import annotations

import os
import socket
import threading

import pytest
import requests

from pytest_azchroot.emulator.http import Response
from pytest_azchroot.emulator.imds import ADDRESS
from pytest_azchroot.emulator.isolation import ReachedOutError, guarded
from pytest_azchroot.emulator.server import Server


@pytest.mark.parametrize("address", ["192.0.2.1", "8.8.8.8"])
def test_nothing_else_can_be_reached(address: str) -> None:
    with pytest.raises((OSError, ReachedOutError)):
        socket.create_connection((address, 80), timeout=5)


@pytest.mark.root
def test_the_metadata_address_is_this_machine() -> None:
    with socket.create_server((ADDRESS, 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


@pytest.mark.root
def test_loopback_is_the_only_interface() -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"]


@pytest.mark.root
def test_threads_are_in_it_too() -> None:
    seen = []
    thread = threading.Thread(target=lambda: seen.append(os.readlink("/proc/thread-self/ns/net")))
    thread.start()
    thread.join()
    assert seen == [os.readlink("/proc/self/ns/net")] != [os.readlink(f"/proc/{os.getppid()}/ns/net")]


def test_without_a_namespace_the_interpreter_refuses() -> None:
    with guarded(), pytest.raises(ReachedOutError):
        socket.create_connection((ADDRESS, 80), timeout=5)


def test_the_guard_lets_loopback_through() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, guarded():
        socket.create_connection(server.getsockname(), timeout=5).close()


@pytest.mark.root
def test_a_server_at_the_metadata_address_hears_loopback_alone() -> None:
    """Even if an interface should have the address, too."""
    server = Server(ADDRESS, 0, lambda request: Response(200))
    server.start()
    try:
        assert server._server is not None
        bound = server._server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
        assert bound.rstrip(b"\0") == b"lo"
        assert requests.get(f"http://{ADDRESS}:{server.port}/", timeout=5).status_code == 200
    finally:
        server.stop()
