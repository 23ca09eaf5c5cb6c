"""The fixtures for users' own tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

ENABLED = 'pytest_plugins = ["pytest_azchroot.emulator.pytest_plugin"]\n'

USES = """
import os, subprocess, sys, threading, urllib.request
from pathlib import Path
import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient

EMPTY = {"location": "westus2", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}}

def make(compute, name="d1"):
    return compute.disks.begin_create_or_update("rg1", name, EMPTY).result()

def test_client(azure_emulator):
    compute = azure_emulator.compute()
    disk = make(compute)
    assert azure_emulator.disk_file(disk.id).stat().st_size == 1024**3
    assert compute.virtual_machines.get("rg1", "vm1").id == azure_emulator.vm_id
    assert azure_emulator.base_url.startswith("https://127.0.0.1:")
    assert [call["name"] for call in azure_emulator.calls() if call["status"] == 202] == ["PUT disks"]

def test_code_that_knows_nothing_of_it(azure_emulator):
    with ComputeManagementClient(DefaultAzureCredential(), os.environ["AZURE_SUBSCRIPTION_ID"]) as compute:
        assert list(compute.disks.list()) == []

def test_each_test_has_its_own(azure_emulator):
    with pytest.raises(ResourceNotFoundError):
        azure_emulator.compute().disks.get("rg1", "d1")

def test_fault(azure_emulator):
    azure_emulator.fault(call="PUT disks", status=409, code="Planned")
    with pytest.raises(HttpResponseError, match="Planned"):
        make(azure_emulator.compute())

def test_attached_disk_is_a_device(azure_emulator):
    compute = azure_emulator.compute()
    wanted = {"dataDisksToAttach": [{"diskId": make(compute).id, "lun": 3}]}
    compute.virtual_machines.begin_attach_detach_data_disks("rg1", "vm1", wanted).result()
    assert (azure_emulator.device_directory / "disk/azure/scsi1/lun3").is_block_device()

ASK = "import urllib.request as u;" \\
      "r = u.Request('http://169.254.169.254/metadata/instance/compute/name?api-version=2021-02-01&format=text');" \\
      "r.add_header('Metadata', 'true'); print(u.build_opener(u.ProxyHandler({})).open(r, timeout=5).read().decode())"

def test_a_program_that_minds_no_proxy_meets_its_metadata(azure_emulator):
    done = subprocess.run([sys.executable, "-c", ASK], env=azure_emulator.environment, capture_output=True, text=True)
    assert done.stdout == "vm1\\n", done.stderr

def test_so_does_this_process(azure_emulator, capsys):
    exec(ASK)
    assert capsys.readouterr().out == "vm1\\n"
"""


def run(pytester: pytest.Pytester, text: str, *options: str) -> pytest.RunResult:
    """Run tests of a user."""
    pytester.makeconftest(ENABLED)
    pytester.makepyfile(text)
    return pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider", *options)


def test_what_a_test_can_do(pytester: pytest.Pytester) -> None:
    run(pytester, USES).assert_outcomes(passed=7)


def test_it_is_not_there_unless_enabled(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(azure_emulator): pass")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'azure_emulator' not found*"])


def test_what_can_be_overridden(pytester: pytest.Pytester, platform_file: Path) -> None:
    text = f"""
        import dataclasses, pytest
        from pathlib import Path
        from azure.identity import ClientSecretCredential, EnvironmentCredential
        from pytest_azchroot.emulator.assembly import Accounts
        from pytest_azchroot.emulator.tenant import Application

        @pytest.fixture
        def azure_emulator_images():
            return {{"Debian:debian-12:12-gen2:1.2.3": Path({str(platform_file)!r})}}

        @pytest.fixture
        def azure_emulator_accounts():
            return Accounts(applications=[Application("5" * 8 + "-5555-5555-5555-" + "5" * 12, "6", ["secret"])])

        @pytest.fixture
        def azure_emulator_settings(azure_emulator_settings):
            return dataclasses.replace(azure_emulator_settings, location="northeurope")

        def test_it(azure_emulator):
            compute = azure_emulator.compute(credential=EnvironmentCredential())
            found = compute.virtual_machine_images.list("northeurope", "Debian", "debian-12", "12-gen2")
            assert [version.name for version in found] == ["1.2.3"]
            assert compute.virtual_machines.get("rg1", "vm1").location == "northeurope"
    """
    run(pytester, text).assert_outcomes(passed=1)


GUARD = """
    import os, socket, threading, pytest
    from pytest_azchroot.emulator.isolation import ReachedOutError

    @pytest.fixture
    def azure_emulator_isolation():
        return "{isolation}"

    @pytest.fixture(scope="session")
    def elsewhere():
        go, found = threading.Event(), []
        def connect():
            go.wait()
            try:
                socket.create_connection(("169.254.169.254", 80), timeout=2).close()
            except Exception as error:
                found.append(error)
        thread = threading.Thread(target=connect)
        thread.start()
        return lambda: (go.set(), thread.join(), found[0])[-1]

    def test_a_thread_that_was_there_before(elsewhere, azure_emulator):
        assert isinstance(elsewhere(), ReachedOutError)

    def test_this_thread(azure_emulator):
        address = ("192.0.2.1", 80)
        with pytest.raises((ReachedOutError, OSError)) as caught:
            socket.create_connection(address, timeout=2)
        assert ("{isolation}" == "guard") == isinstance(caught.value, ReachedOutError)
        assert len(azure_emulator.compute().virtual_machines.get("rg1", "vm1").name) == 3

    def test_afterwards_all_is_as_before():
        assert "HTTPS_PROXY" not in os.environ
        assert os.readlink("/proc/thread-self/ns/net") == os.readlink(f"/proc/{{os.getppid()}}/ns/net")
"""


@pytest.mark.parametrize("isolation", ["namespace", "guard"])
def test_nothing_goes_to_a_real_metadata_service(pytester: pytest.Pytester, isolation: str) -> None:
    assert "HTTPS_PROXY" not in os.environ
    run(pytester, GUARD.format(isolation=isolation)).assert_outcomes(passed=3)
