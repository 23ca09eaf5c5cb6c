"""Certificates: who is trusted for what, who may read the keys."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pytest_azchroot.emulator import tls
from pytest_azchroot.emulator.keys import kept
from pytest_azchroot.emulator.tls import Authority
from pytest_azchroot.errors import AzchrootError


def handshake(server: Authority, trusted: Path, name: str | None, *, host: str | None = None) -> ssl.SSLSocket:
    """The client's side of a connection, made with SNI for a name, or with none."""
    context = ssl.create_default_context(cafile=str(trusted))
    context.check_hostname = name is not None
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap(ours, host=host).close()
        except OSError:
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return context.wrap_socket(theirs, server_hostname=name)
    finally:
        thread.join()


def names(connection: ssl.SSLSocket) -> list[str]:
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    found = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(each.value) for each in found.value]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize(
    "name",
    [
        *("management.azure.com", "login.microsoftonline.com", "login.windows.net", "localhost"),
        *("md-abc.blob.core.windows.net", "md-abc.z1.blob.storage.azure.net", "MANAGEMENT.azure.com"),
    ],
)
def test_a_certificate_for_the_name_that_is_asked_for(authority: Authority, name: str) -> None:
    with handshake(authority, authority.certificate_file, name) as client:
        assert names(client) == [name.lower()]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_addresses_are_in_the_usual_certificate(authority: Authority, address: str) -> None:
    """No SNI is sent for an address."""
    with handshake(authority, authority.certificate_file, address) as client:
        assert {"localhost", "management.azure.com"} <= set(names(client))


def test_the_name_of_a_tunnel(authority: Authority) -> None:
    with handshake(authority, authority.certificate_file, None, host="login.windows.net") as client:
        assert names(client) == ["login.windows.net"]


def test_another_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, other.certificate_file, "management.azure.com")


@pytest.mark.parametrize("name", ["bank.example", "azure.com.example", "notazure.com"])
def test_the_authority_is_worth_nothing_elsewhere(authority: Authority, name: str) -> None:
    """Whoever trusts it, and loses its key, has lost Azure alone."""
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, authority.certificate_file, name)


def test_openssl_is_content(authority: Authority, tmp_path: Path) -> None:
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(authority.certificate(["management.azure.com", "127.0.0.1"]).public_bytes(Encoding.PEM))
    command: list[str | Path] = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-CAfile",
        authority.certificate_file,
        leaf,
    ]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"{leaf}: OK\n"


def test_keys_are_private(authority: Authority) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in authority.certificate_file.parent.iterdir()}
    assert modes == {"ca-key.pem": 0o600, "ca.pem": 0o644}


def test_the_next_start_uses_the_same(tmp_path: Path) -> None:
    first = Authority(tmp_path).certificate_file.read_bytes()
    second = Authority(tmp_path)
    assert second.certificate_file.read_bytes() == first
    handshake(second, second.certificate_file, "localhost").close()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    Authority(tmp_path)
    (tmp_path / "ca-key.pem").chmod(0o640)
    with pytest.raises(AzchrootError, match="is not private"):
        Authority(tmp_path)


def test_a_key_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca-key.pem").write_text("nonsense")
    (tmp_path / "ca-key.pem").chmod(0o600)
    with pytest.raises(AzchrootError, match="is not a private key"):
        Authority(tmp_path)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    Authority(tmp_path / "one")
    Authority(tmp_path / "two")
    shutil.copy(tmp_path / "one/ca.pem", tmp_path / "two/ca.pem")
    with pytest.raises(AzchrootError, match="do not belong together"):
        Authority(tmp_path / "two")


def test_what_another_process_made_meanwhile_is_kept(tmp_path: Path) -> None:
    def make() -> bytes:
        (tmp_path / "key").write_bytes(b"theirs")
        return b"ours"

    assert kept(tmp_path / "key", make) == b"theirs"
    assert os.listdir(tmp_path) == ["key"]


def _start(directory: Path) -> None:
    Authority(directory)


def test_many_that_start_at_once_agree(tmp_path: Path) -> None:
    """Each makes a key, one of them is kept; a half of each would be refused."""
    spawning = multiprocessing.get_context("spawn")
    started = [spawning.Process(target=_start, args=(tmp_path,)) for _ in range(3)]
    for each in started:
        each.start()
    for each in started:
        each.join()
    assert [each.exitcode for each in started] == [0] * 3
    assert sorted(os.listdir(tmp_path)) == ["ca-key.pem", "ca.pem"]
    Authority(tmp_path)


def test_a_silent_client_is_given_up(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_PATIENCE", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(OSError, match="timed out"):
        authority.wrap(ours)


def test_contexts_do_not_pile_up(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_KEPT_CONTEXTS", 3)
    for number in range(6):
        handshake(authority, authority.certificate_file, f"h{number}.azure.com").close()
    assert list(authority._contexts) == [f"h{number}.azure.com" for number in (3, 4, 5)]


def test_certificates_do_not_last(authority: Authority) -> None:
    leaf = authority.certificate(["localhost"])
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days < 398
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
