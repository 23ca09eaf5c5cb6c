"""Certificates for the names that clients know Azure by, from an authority of the emulator's own."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import threading
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pytest_azchroot.errors import AzchrootError

from .keys import elliptic_key, kept

DOMAINS = ("azure.com", "azure.net", "windows.net", "microsoftonline.com", "microsoft.com", "localhost")
"""The authority can certify names below these alone, whoever should get hold of its key (RFC 5280, 4.2.1.10)."""

LOOPBACK = ("127.0.0.0/8", "::1/128")
"""And these addresses."""

USUAL_NAMES = (
    "localhost",
    "management.azure.com",
    "login.microsoftonline.com",
    "login.windows.net",
    "127.0.0.1",
    "::1",
)
"""The names of the certificate for a client that does not say whom it wants (no SNI is sent for an address)."""

AUTHORITY_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=390)
"""Less than the 398 days beyond which some clients refuse a certificate."""

HANDSHAKE_PATIENCE = 30.0
"""Seconds for a client to say hello."""

_KEPT_CONTEXTS = 256
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


class Authority:
    """A certificate authority in a directory, made at the first use of it.

    :param directory: holds `ca.pem`, for clients, and `ca-key.pem`, mode 0600.
    :raises AzchrootError: what it holds cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self.certificate_file = directory / "ca.pem"
        """What clients are to trust: REQUESTS_CA_BUNDLE, SSL_CERT_FILE, CURL_CA_BUNDLE, `connection_verify`."""
        self._key = elliptic_key(directory / "ca-key.pem")
        self._certificate = x509.load_pem_x509_certificate(
            kept(self.certificate_file, lambda: _authority(self._key).public_bytes(Encoding.PEM), mode=0o644)
        )
        if self._certificate.public_key() != self._key.public_key():
            raise AzchrootError(f"the files in {directory} do not belong together", hint="remove ca.pem and ca-key.pem")
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())  # one for all names: it does not outlive the process
        self._lock = threading.Lock()
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()
        self._usual = self._context(USUAL_NAMES)

    def wrap(self, connection: socket.socket, *, host: str | None = None) -> ssl.SSLSocket:
        """The server's side of a TLS connection. Does the handshake: call it in the connection's own thread.

        :param host: the name to show to a client that does not ask for one.
        :raises OSError: the client does not agree, or is silent; the connection is the caller's to close.
        """
        context = self._usual if host is None else self._for(host)
        patience = connection.gettimeout()
        connection.settimeout(HANDSHAKE_PATIENCE)
        wrapped = context.wrap_socket(connection, server_side=True)
        wrapped.settimeout(patience)
        return wrapped

    def certificate(self, names: Sequence[str]) -> x509.Certificate:
        """A certificate for names and addresses."""
        return _leaf(names, self._leaf_key.public_key(), self._certificate, self._key)

    def sign(self, content: bytes, *, name: str) -> bytes:
        """Content within its PKCS #7 signature, in DER, by a certificate for a name."""
        builder = pkcs7.PKCS7SignatureBuilder().set_data(content)
        signed = builder.add_signer(self.certificate([name]), self._leaf_key, hashes.SHA256())
        return signed.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary])

    def _for(self, host: str) -> ssl.SSLContext:
        """The context for a host, made on demand; the usual one where nobody could have such a name."""
        name = host.lower().strip("[]")
        if not _is_address(name) and not _HOST.fullmatch(name):
            return self._usual
        with self._lock:
            found = self._contexts.pop(name, None) or self._context([name])
            self._contexts[name] = found
            while len(self._contexts) > _KEPT_CONTEXTS:
                self._contexts.popitem(last=False)
            return found

    def _context(self, names: Sequence[str]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        chain = [
            self._leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            self.certificate(names).public_bytes(Encoding.PEM),
        ]
        # the ssl module reads files alone; this one has no name, and nobody else can open it
        with os.fdopen(os.memfd_create("certificate"), "wb") as file:
            file.write(b"".join(chain))
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        context.sni_callback = self._chosen
        return context

    def _chosen(self, wrapped: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name:
            wrapped.context = self._for(name)


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "azchroot emulator: not Azure")])
    allowed: list[x509.GeneralName] = [x509.DNSName(domain) for domain in DOMAINS]
    allowed += [x509.IPAddress(ipaddress.ip_network(network)) for network in LOOPBACK]
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder(name, name, key.public_key(), AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints(permitted_subtrees=allowed, excluded_subtrees=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    names: Sequence[str],
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    alternatives = [
        x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name) for name in names
    ]
    return (
        _builder(subject, issuer.subject, key, LIFETIME)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + lifetime)
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
