"""``azchroot emulator``: start it, say how clients reach it, run until told to stop."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cryptography import x509

from .assembly import Accounts, Assembly, assembled
from .emulator import Endpoint
from .faults import FaultPlan
from .imds import DOCUMENTED, NO_LIMITS
from .login import HOSTS
from .options import Pair, Where
from .settings import Machine, PlatformImage, Profile, Settings, SettingsError
from .surroundings import Surroundings
from .tenant import Application
from .tokens import Principal

SCRIPT, DESCRIPTION = "environment.sh", "environment.json"
"""What a running emulator has in its directory, for shells and for programs. Not there: it does not run (yet)."""

_NAMESPACE = uuid.UUID("6f1c3c52-6f0b-4a55-8d43-3f2f7d0a9c11")
"""Object ids are made of client ids, to be the same at each start."""


def run(options: argparse.Namespace, command: Sequence[str] = ()) -> int:
    """Serve until SIGINT or SIGTERM, or while a command runs; returns the exit status.

    :param command: runs with the variables set; its exit status is ours.
    :raises pytest_azchroot.errors.AzchrootError: it cannot start.
    """
    logging.basicConfig(format="azchroot emulator: %(message)s", level=logging.WARNING)
    accounts = _accounts(options)
    assembly = _assembled(options, accounts)
    with _stopping() as stop, assembly.emulator:
        emulator = assembly.emulator
        settings = emulator.settings
        around = Surroundings(
            settings,
            url=emulator.url,
            tls_url=f"https://{options.listen}:{emulator.ports[1]}",
            ca_file=assembly.authority.certificate_file.absolute(),
            applications=accounts.applications,
        )
        with _told(around):
            if command:
                return _while(command, around, stop)
            print(greeting(around), flush=True)
            stop.wait()
            print("stopping", file=sys.stderr)
    return 0


def settings_of(options: argparse.Namespace) -> Settings:
    """What the options say.

    :raises SettingsError: a file is not there, or something is said wrongly.
    """
    images = [PlatformImage(urn, Path(path)) for urn, path in options.image]
    missing = next((image.path for image in images if not image.path.is_file()), None)
    if missing is not None:
        raise SettingsError(f"there is no image {missing}")
    defaults = Settings(options.directory)
    return Settings(
        options.directory,
        images=tuple(images),
        machine=Machine(options.vm_group, options.vm_name, options.vm_size, options.vm_zone),
        location=options.location,
        subscription=options.subscription or defaults.subscription,
        tenant=options.tenant or defaults.tenant,
        profile=Profile.load(options.profile) if options.profile else Profile(),
        retry_after=options.retry_after,
        devices=options.devices,
        family=options.family,
        throttled=options.throttles,
        overlap=options.overlap,
        calls=options.calls,
    )


def _assembled(options: argparse.Namespace, accounts: Accounts) -> Assembly:
    metadata: Where | None = options.metadata
    more = [] if metadata is None else [Endpoint(metadata.address or options.listen, metadata.port)]
    return assembled(
        settings_of(options),
        accounts=accounts,
        limits=DOCUMENTED if options.throttles else NO_LIMITS,
        address=options.listen,
        port=options.port,
        tls_port=options.tls_port,
        more=more,
        hooks=[FaultPlan.load(options.faults)] if options.faults else [],
    )


def _accounts(options: argparse.Namespace) -> Accounts:
    settings = settings_of(options)
    group = f"/subscriptions/{settings.subscription}/resourceGroups/{settings.machine.group}"
    users = [
        Principal(
            settings.tenant,
            client_id,
            _object_id(client_id),
            f"{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}",
        )
        for name, client_id in options.identity
    ]
    secrets: list[Pair] = options.application
    certificates: list[Pair] = options.certificate
    applications = [
        Application(
            client_id,
            _object_id(client_id),
            secrets=[value for name, value in secrets if name == client_id],
            certificates=[_certificate(Path(value)) for name, value in certificates if name == client_id],
        )
        for client_id in dict.fromkeys(name for name, _ in [*secrets, *certificates])
    ]
    return Accounts(applications, users, system=not options.no_system_identity)


def _object_id(client_id: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, client_id.lower()))


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} holds no certificate in PEM", why=str(error)) from error


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set this. They end a wait, and break off nothing."""
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _told(around: Surroundings) -> Iterator[None]:
    """Descriptions in the directory, while it runs. The script comes last: whoever waits for it finds both."""
    directory = around.settings.directory
    texts = {DESCRIPTION: json.dumps({"pid": os.getpid(), **around.description()}, indent=2), SCRIPT: around.script()}
    for name in (SCRIPT, DESCRIPTION):
        (directory / name).unlink(missing_ok=True)
    for name, text in texts.items():
        part = directory / f".{name}"
        part.write_text(f"{text.rstrip()}\n", encoding="utf-8")
        part.chmod(0o600)  # there are secrets in it
        part.rename(directory / name)
    try:
        yield
    finally:
        for name in (SCRIPT, DESCRIPTION):
            (directory / name).unlink(missing_ok=True)


def _while(command: Sequence[str], around: Surroundings, stop: threading.Event) -> int:
    """The exit status of a command, which is asked to end when we are."""
    try:
        process = subprocess.Popen(command, env=around.applied(os.environ))
    except OSError as error:
        raise SettingsError(f"{command[0]} cannot be run", why=error.strerror) from error
    while True:
        try:
            status = process.wait(0.1)
            return status if status >= 0 else 128 - status
        except subprocess.TimeoutExpired:
            if stop.is_set():
                stop.clear()
                process.terminate()


def greeting(around: Surroundings) -> str:
    """What somebody who has started it wants to know."""
    settings = around.settings
    directory = settings.directory.absolute()
    hosts = ", ".join(("management.azure.com", HOSTS[0]))
    lines = [
        f"Azure for this machine alone: {around.url} (also a proxy), {around.tls_url}",
        "",
        f"virtual machine  {settings.machine_id}, {settings.machine.size}, {settings.location}",
        f"platform images  {', '.join(image.urn for image in settings.images) or 'none: --image URN=FILE'}",
        f"disks appear in  {settings.device_directory.absolute()} ({settings.family})"
        + ("" if os.geteuid() == 0 else ": not now. Attaching a disk takes root, the rest does not"),
        f"log of calls     {around.calls}",
        "",
        "In the shell of a client:",
        "",
        *(f"  {line}" for line in around.script().splitlines()),
        "",
        f"or:  . {shlex.quote(str(directory / SCRIPT))}     (for programs: {DESCRIPTION} beside it)",
        "",
        f"An SDK without a proxy: base_url is {around.tls_url}, its certificate as above.",
        f"Clients that take neither: in a network namespace of their own, lead {hosts}",
        "here by /etc/hosts, with --tls-port 443 --metadata 169.254.169.254:80.",
        "",
        "Ctrl-C stops it.",
    ]
    return "\n".join(lines)
