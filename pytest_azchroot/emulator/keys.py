"""Private keys of the emulator: made once, kept in its state directory, readable by its owner alone."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from pytest_azchroot.errors import AzchrootError

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def rsa_key(path: Path) -> rsa.RSAPrivateKey:
    """The RSA key in a file, mode 0600; made where there is no such file.

    :raises AzchrootError: others can read the file, or it does not hold an RSA key.
    """
    key = _kept_key(path, lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048))
    if not isinstance(key, rsa.RSAPrivateKey):
        raise AzchrootError(f"{path} is not an RSA key", hint="remove it")
    return key


def elliptic_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key on P-256 in a file; see :func:`rsa_key`."""
    key = _kept_key(path, lambda: ec.generate_private_key(ec.SECP256R1()))
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AzchrootError(f"{path} is not an elliptic curve key", hint="remove it")
    return key


def _kept_key(path: Path, make: Callable[[], Key]) -> object:
    content = kept(path, lambda: make().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    if path.stat().st_mode & 0o077:
        hint = f"remove it, or: chmod 600 {path}"
        raise AzchrootError(f"{path} is not private", why="others than its owner may read it", hint=hint)
    try:
        # "unsafe" is for keys of strangers; for our own, whether its factors are prime is 0.2 s at each start
        return load_pem_private_key(content, password=None, unsafe_skip_rsa_key_validation=True)
    except ValueError as error:
        raise AzchrootError(f"{path} is not a private key", why=str(error), hint="remove it") from error


def kept(path: Path, make: Callable[[], bytes], *, mode: int = 0o600) -> bytes:
    """The content of a file, made where it is not there: whole, or not at all.

    Of two processes that start at once one writes it, and both read that.
    """
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as new:  # made with mode 0600
        new.write(make())
        new.flush()
        os.fchmod(new.fileno(), mode)
        os.fsync(new.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first; a rename would replace what it made
            os.link(new.name, path)
    return path.read_bytes()
