"""``azchroot emulator``: how it starts, what it tells clients, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.credentials import AccessToken
from azure.mgmt.compute import ComputeManagementClient

from pytest_azchroot import cli
from pytest_azchroot.disk.loop import wait_until_free
from pytest_azchroot.emulator.settings import Settings

from .azure import CLIENT, KEY, REGISTERED, SECRET, pem
from .conftest import URN, Compute, PlainHttp, attach, empty_disk, loops_below, settled
from .test_machines import lun_link

pytestmark = pytest.mark.root  # it is another program: only a namespace keeps that from going elsewhere

COMMAND = (sys.executable, "-m", "pytest_azchroot.cli", "emulator", "--port", "0", "--tls-port", "0")
ASK = [sys.executable, "-c", "import os, sys; print(os.environ[sys.argv[1]])"]


@contextmanager
def running(directory: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The command, and its description once it serves. It is killed in the end."""
    described = directory / "environment.json"
    described.unlink(missing_ok=True)
    process = subprocess.Popen([*COMMAND, *options, directory], stdout=subprocess.PIPE, text=True)
    try:
        settled(lambda: described.exists() or process.poll() is not None)
        assert process.poll() is None
        yield process, json.loads(described.read_text())
    finally:
        process.kill()
        process.communicate()


class IdentityOf:
    """A credential: an identity of the machine, asked for at an address."""

    def __init__(self, url: str, client_id: str | None = None) -> None:
        self._url = f"{url}/metadata/identity/oauth2/token"
        self._asked = {"api-version": "2018-02-01", "resource": "https://management.azure.com/"}
        self._asked |= {} if client_id is None else {"client_id": client_id}

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Of the SDK's protocol."""
        found = requests.get(self._url, params=self._asked, headers={"Metadata": "true"}, timeout=10).json()
        return AccessToken(found["access_token"], int(found["expires_on"]))


def connected(told: dict[str, Any], *, client_id: str | None = None) -> Compute:
    """Azure's SDK, pointed at what was described."""
    return ComputeManagementClient(
        IdentityOf(told["url"], client_id),
        told["subscription"],
        base_url=told["url"],
        credential_scopes=["https://management.azure.com/.default"],
        per_call_policies=[PlainHttp()],
        polling_interval=0.05,
    )


def refused(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said to wrong usage."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["emulator", "/nowhere", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_other_addresses_are_refused_with_the_reason(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused("--listen", address, capsys=capsys)
    assert "for this machine alone" in said and "127.0.0.0/8" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("--metadata", "192.0.2.1:80"),
        ("--metadata", "169.254.1.1:80"),
        ("--port", "70000"),
        ("--retry-after", "0"),
        ("--image", "Debian:debian-12:12:1"),
        ("--family", "ide"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments[0] in refused(*arguments, capsys=capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--image", "a:b:c:1=/nowhere/a.raw"), "there is no image /nowhere/a.raw"),
        (("--image", "a:b=/etc/passwd"), "'a:b' names no platform image"),
        (("--faults", "/nowhere/faults"), "the fault plan /nowhere/faults cannot be used"),
        (("--profile", "/nowhere/profile"), "the profile /nowhere/profile cannot be used"),
        (("--certificate", f"{CLIENT}=/etc/passwd"), "/etc/passwd holds no certificate"),
    ],
)
def test_what_it_cannot_start_with(
    arguments: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["emulator", str(tmp_path / "azure"), *arguments]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_devices_are_gone(number: int, tmp_path: Path) -> None:
    with running(tmp_path) as (process, told):
        compute = connected(told)
        attach(compute, empty_disk(compute, "d1").id)
        assert lun_link(Settings(tmp_path), 0).is_block_device()
        process.send_signal(number)
        assert process.wait(30) == 0
        assert loops_below(tmp_path) == [] and not (tmp_path / "environment.sh").exists()


def test_killed_and_started_again_it_goes_on(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    with running(tmp_path) as (process, told):
        compute = connected(told)
        attach(compute, empty_disk(compute, "d1").id, lun=2)
        with lun_link(settings, 2).open("r+b") as device:
            device.write(b"before")
        process.kill()
    assert all(wait_until_free(name, "") for name in loops_below(tmp_path))
    with running(tmp_path) as (_, told), lun_link(settings, 2).open("rb") as device:
        assert device.read(6) == b"before"


def test_it_runs_while_a_command_does(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, tmp_path, "--application", f"{CLIENT}={SECRET}", "--", *ASK, "AZURE_CLIENT_SECRET"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{SECRET}\n", "")


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_its_status_is_the_commands(command: str, status: int, tmp_path: Path) -> None:
    assert subprocess.run([*COMMAND, tmp_path, "--", "sh", "-c", command], check=False).returncode == status


def test_a_command_has_no_other_way_to_azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "IDENTITY_ENDPOINT", "AZURE_AUTHORITY_HOST", "ARM_CLIENT_ID"):
        monkeypatch.setenv(name, "elsewhere")
    done = subprocess.run([*COMMAND, tmp_path, "--", "env"], capture_output=True, text=True, check=True)
    assert "elsewhere" not in done.stdout
    assert "HTTPS_PROXY=http://127.0.0.1:" in done.stdout


def test_sigterm_goes_to_the_command(tmp_path: Path) -> None:
    script = "trap 'exit 5' TERM; touch ready; while :; do sleep 0.05; done"
    process = subprocess.Popen([*COMMAND, tmp_path / "azure", "--", "sh", "-c", script], cwd=tmp_path)
    settled((tmp_path / "ready").exists)
    process.terminate()
    assert process.wait(30) == 5


def test_the_script_leads_a_shell_here(tmp_path: Path) -> None:
    url = "http://169.254.169.254/metadata/versions"
    code = f"import requests; print(requests.get('{url}', headers={{'Metadata': 'true'}}).status_code)"
    with running(tmp_path, "--metadata", "0"):
        assert (tmp_path / "environment.sh").stat().st_mode & 0o077 == 0
        lines = f'. {tmp_path}/environment.sh; "$0" -c "$1"; echo "$AZCHROOT_DEVICES"'
        done = subprocess.run(
            ["sh", "-c", lines, sys.executable, code],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "NO_PROXY": "*"},
        )
        assert done.stdout.splitlines() == ["200", str(tmp_path / "dev")], done.stderr


def test_the_metadata_services_own_address(tmp_path: Path) -> None:
    with running(tmp_path, "--metadata", "169.254.169.254:80"):
        url = "http://169.254.169.254/metadata/instance/compute/name?api-version=2021-02-01&format=text"
        assert requests.get(url, headers={"Metadata": "true"}, timeout=10).text == "vm1"


def test_the_options_are_what_clients_meet(tmp_path: Path, platform_file: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(pem(KEY, REGISTERED))
    (tmp_path / "faults.yaml").write_text("[{call: GET snapshots, status: 418, code: Teapot}]")
    (tmp_path / "profile.yaml").write_text("{seconds: {disks.create: 60}}")
    options = (
        *("--image", f"{URN}={platform_file}", "--certificate", f"{CLIENT}={tmp_path / 'cert.pem'}"),
        *("--vm-name", "builder", "--vm-group", "images", "--vm-size", "Standard_D2s_v6", "--family", "nvme"),
        *("--location", "westeurope", "--vm-zone", "2", "--identity", f"mine={CLIENT}", "--no-system-identity"),
        *("--faults", str(tmp_path / "faults.yaml"), "--profile", str(tmp_path / "profile.yaml")),
        *("--retry-after", "3", "--calls", str(tmp_path / "log.jsonl"), "--throttles"),
    )
    with running(tmp_path / "azure", *options) as (_, told):
        assert told["vm"].endswith("/resourceGroups/images/providers/Microsoft.Compute/virtualMachines/builder")
        assert told["images"] == {URN: str(platform_file)}
        compute = connected(told, client_id=CLIENT)
        machine = compute.virtual_machines.get("images", "builder")
        assert (machine.location, machine.zones) == ("westeurope", ["2"])
        with pytest.raises(Exception, match="Teapot"):
            compute.snapshots.get("images", "s1")
        disk: dict[str, Any] = {
            "location": "westeurope",
            "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1},
        }
        url = f"{told['url']}{told['vm'].rsplit('/', 2)[0]}/disks/d1?api-version=2024-03-02"
        token = IdentityOf(told["url"], CLIENT).get_token().token
        made = requests.put(url, json=disk, headers={"Authorization": f"Bearer {token}"}, timeout=10)
        assert (made.status_code, made.headers["Retry-After"]) == (202, "3")
    calls = [json.loads(line)["name"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"GET virtualMachines", "GET snapshots", "PUT disks"} <= set(calls)


def test_two_in_one_directory(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path):
        assert subprocess.run([*COMMAND, tmp_path], check=False).returncode == 1
        assert "another emulator runs" in capfd.readouterr().err
        assert (tmp_path / "environment.sh").exists()
