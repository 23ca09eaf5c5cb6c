"""Fixtures for what needs no disks: metadata, tokens, TLS and proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .azure import Azure
from .serving import Served, serving


@pytest.fixture(scope="session")
def azure_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys are slow to make."""
    return tmp_path_factory.mktemp("azure")


@pytest.fixture
def azure(azure_directory: Path) -> Azure:
    """A small Azure without disks."""
    return Azure(azure_directory)


@pytest.fixture
def served(azure: Azure) -> Iterator[Served]:
    """It, at an address, where it is a proxy too."""
    with serving(azure.answer, azure.authority) as running:
        yield running


@pytest.fixture
def proxied(azure: Azure, served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """It as a proxy: the environment with which a client with fixed endpoints is started."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, served.url)
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(azure.authority.certificate_file))
    return served
