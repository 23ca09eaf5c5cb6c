"""Asking Azure, and waiting for what it does."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pytest_azchroot.clouds.azure import polling, retries
from pytest_azchroot.clouds.azure.calls import Call, Calls
from pytest_azchroot.clouds.azure.client import Azure, Operation
from pytest_azchroot.clouds.azure.credentials import credential
from pytest_azchroot.clouds.azure.environments import PUBLIC, Environment
from pytest_azchroot.clouds.azure.pace import Pace
from pytest_azchroot.clouds.azure.refusals import AzureError, OperationTimeoutError
from pytest_azchroot.emulator.http import Response
from pytest_azchroot.emulator.pytest_plugin import AzureEmulator
from pytest_azchroot.emulator.settings import Settings
from pytest_azchroot.spec.model import ImageSpec
from tests.emulator.serving import serving

pytestmark = pytest.mark.root

EMPTY = {"location": "westus2", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}}
PATIENCE = 30.0
"""More than anything here takes."""


@pytest.fixture
def azure(azure_emulator: AzureEmulator, said: list[str]) -> Iterator[Azure]:
    """With the machine's identity."""
    found = Azure(credential(ImageSpec(), None, PUBLIC), calls=Calls(), say=said.append)
    yield found
    found.close()


@pytest.fixture
def said() -> list[str]:
    """What people are told."""
    return []


def make(azure: Azure, emulator: AzureEmulator, name: str = "x", **options: Any) -> Operation[Any]:
    """Begin to make an empty disk."""
    disks = azure.compute(emulator.subscription_id).disks
    return azure.begin(f"creating disk {name}", disks.begin_create_or_update, "rg1", name, EMPTY, **options)


def grant(azure: Azure, emulator: AzureEmulator, name: str = "x") -> Operation[Any]:
    """Something that is asked by POST."""
    wanted = {"access": "Read", "durationInSeconds": 300}
    disks = azure.compute(emulator.subscription_id).disks
    return azure.begin(f"opening disk {name}", disks.begin_grant_access, "rg1", name, wanted)


def asked(emulator: AzureEmulator, name: str) -> list[int | None]:
    """How calls of a name were answered."""
    return [call["status"] for call in emulator.calls() if call["name"] == name]


def pollers() -> list[threading.Thread]:
    """Threads that ask."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("LROPoller")]


def gone(threads: list[threading.Thread]) -> bool:
    """Whether they end."""
    for thread in threads:
        thread.join(PATIENCE)
    return not any(thread.is_alive() for thread in threads)


def test_an_operation_ends(azure: Azure, azure_emulator: AzureEmulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    operation = make(azure, azure_emulator)
    disk = operation.wait(PATIENCE)
    assert operation.done() and disk["properties"]["diskState"] == "Unattached"
    assert operation.wait(PATIENCE) == disk
    assert [call["name"] for call in azure_emulator.calls()] == [
        "GET /metadata/identity/oauth2/token",
        "PUT disks",
        "GET DiskOperations",
        "GET disks",
    ]
    assert azure_emulator.calls()[1]["agent"].startswith("pytest-azchroot/")
    ours = [record.message for record in caplog.records if record.name.startswith("pytest_azchroot.clouds")]
    assert any(each.startswith("PUT disks/x: 202 in ") for each in ours)
    assert [call.name for call in azure.calls.all()] == ["PUT disks", "GET DiskOperations", "GET disks"]
    assert [wait.doing for wait in azure.calls.waits] == ["creating disk x", "creating disk x"]


@pytest.mark.parametrize("fault", [{"reset": True}, {"status": 500}, {"status": 429}, {"status": 503}])
def test_a_question_that_fails_says_nothing(azure: Azure, azure_emulator: AzureEmulator, fault: dict[str, Any]) -> None:
    for _ in range(6):  # one after the other: a rule does not count what another answers
        azure_emulator.fault(call="GET DiskOperations", nth=1, **fault)
        azure_emulator.fault(call="GET disks", nth=1, **fault)
    assert make(azure, azure_emulator).wait(PATIENCE)["name"] == "x"
    assert len(asked(azure_emulator, "GET DiskOperations")) == 7
    assert len(asked(azure_emulator, "GET disks")) == 7


def test_what_is_not_seen_yet(azure: Azure, azure_emulator: AzureEmulator) -> None:
    azure_emulator.fault(call="GET disks", nth=1, status=404, code="ResourceNotFound")
    assert make(azure, azure_emulator).wait(PATIENCE)["name"] == "x"
    assert asked(azure_emulator, "GET disks") == [404, 200]


def test_a_question_with_a_bad_answer(azure: Azure, azure_emulator: AzureEmulator) -> None:
    azure_emulator.fault(call="GET DiskOperations", status=403, code="AuthorizationFailed", message="not you")
    with pytest.raises(AzureError, match="creating disk x failed: AuthorizationFailed: not you") as error:
        make(azure, azure_emulator).wait(PATIENCE)
    assert error.value.status == 403


def test_an_operation_fails(azure: Azure, azure_emulator: AzureEmulator) -> None:
    azure_emulator.fault(operation="disks.create", code="InternalExecutionError", message="no luck")
    operation = make(azure, azure_emulator)
    for _ in range(2):
        with pytest.raises(AzureError) as error:
            operation.wait(PATIENCE)
        assert str(error.value).splitlines()[0] == "creating disk x failed: InternalExecutionError: no luck"
        assert error.value.hint is not None and "run again" in error.value.hint
        assert (error.value.status, error.value.code) == (None, "InternalExecutionError")
    assert operation.done() and operation.wait_done(0)


def test_a_refusal_is_told_at_once(azure: Azure, azure_emulator: AzureEmulator) -> None:
    """Whatever Retry-After says: what to do about a conflict is not known here."""
    azure_emulator.fault(call="PUT disks", status=409, code="Conflict", message="busy", retry_after=1)
    with pytest.raises(AzureError, match="creating disk x failed: Conflict: busy") as error:
        make(azure, azure_emulator)
    assert (error.value.status, error.value.code) == (409, "Conflict")
    assert asked(azure_emulator, "PUT disks") == [409]


@pytest.mark.parametrize(
    "fault", [{"reset": True}, {"status": 500}, {"status": 504}, {"status": 429, "retry_after": 1}]
)
def test_it_is_asked_again(azure: Azure, azure_emulator: AzureEmulator, fault: dict[str, Any]) -> None:
    azure_emulator.fault(call="PUT disks", nth=1, **fault)
    assert make(azure, azure_emulator).wait(PATIENCE)["name"] == "x"
    assert asked(azure_emulator, "PUT disks") == [fault.get("status"), 202]


@pytest.mark.parametrize("through", ["a proxy", "TLS alone"])
def test_what_may_have_been_done_is_not_sent_again(azure_emulator: AzureEmulator, through: str) -> None:
    here = Environment("here", PUBLIC.authority, azure_emulator.base_url, PUBLIC.audience)
    azure = Azure(credential(ImageSpec(), None, PUBLIC), environment=PUBLIC if through == "a proxy" else here)
    make(azure, azure_emulator).wait(PATIENCE)
    azure_emulator.fault(call="POST disks/beginGetAccess", reset=True)
    with pytest.raises(AzureError, match="opening disk x failed: no answer: ") as error:
        grant(azure, azure_emulator)
    azure.close()
    assert error.value.status is None
    assert asked(azure_emulator, "POST disks/beginGetAccess") == [None]


def test_a_post_that_was_not_done_is_sent_again(azure: Azure, azure_emulator: AzureEmulator) -> None:
    make(azure, azure_emulator).wait(PATIENCE)
    azure_emulator.fault(call="POST disks/beginGetAccess", nth=1, status=429, retry_after=1)
    assert grant(azure, azure_emulator).wait(PATIENCE)["accessSAS"].startswith("https://")
    assert asked(azure_emulator, "POST disks/beginGetAccess") == [429, 202]


def test_a_rate_limit_that_lasts(azure: Azure, azure_emulator: AzureEmulator) -> None:
    azure_emulator.fault(call="PUT disks", status=429, code="TooManyRequests", retry_after=303)
    with pytest.raises(AzureError, match="try again in 303 s"):
        make(azure, azure_emulator)
    assert asked(azure_emulator, "PUT disks") == [429]


def test_people_hear_of_long_waits(azure: Azure, azure_emulator: AzureEmulator, said: list[str]) -> None:
    azure_emulator.fault(call="PUT disks", status=429, code="TooManyRequests", retry_after=60)
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(make, azure, azure_emulator)
        while not said:
            assert not refused.done()
        azure.close()  # wakes it
        assert refused.exception(PATIENCE) is not None
    assert said == ["Azure asks to wait 60 s"]


def test_a_credential_that_is_refused(azure: Azure, azure_emulator: AzureEmulator) -> None:
    azure_emulator.fault(call="PUT disks", status=401, code="InvalidAuthenticationToken", message="expired")
    with pytest.raises(AzureError, match="InvalidAuthenticationToken: expired\nhint: the token was refused") as error:
        make(azure, azure_emulator)
    assert error.value.status == 401


def test_many_threads_fetch_one_token(azure: Azure, azure_emulator: AzureEmulator) -> None:
    azure_emulator.fault(call="GET /metadata/identity/oauth2/token", delay=0.2)
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda name: make(azure, azure_emulator, name), "abcdefgh")]
    assert [operation.wait(PATIENCE)["name"] for operation in made] == [*"abcdefgh"]
    assert azure.compute("00000000-0000-0000-0000-000000000000") is not azure.compute(azure_emulator.subscription_id)
    assert asked(azure_emulator, "GET /metadata/identity/oauth2/token") == [200]


def test_a_token_that_comes_late(azure: Azure, azure_emulator: AzureEmulator) -> None:
    azure_emulator.fault(call="GET /metadata/identity/oauth2/token", nth=1, status=500)
    azure_emulator.fault(call="GET /metadata/identity/oauth2/token", nth=1, reset=True)
    assert make(azure, azure_emulator).wait(PATIENCE)["name"] == "x"


def test_a_question_that_nobody_answers(
    azure: Azure, azure_emulator: AzureEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "_ANSWER_WITHIN", 0.2)
    azure_emulator.fault(call="GET DiskOperations", nth=1, delay=2.0)
    assert make(azure, azure_emulator).wait(PATIENCE)["name"] == "x"
    assert [call.status for call in azure.calls.all() if call.name == "GET DiskOperations"] == [None, 200]


@pytest.mark.parametrize("state", ["Failed", "Canceled"])
def test_it_has_failed_already(azure_emulator: AzureEmulator, state: str) -> None:
    answer = Response.of_json(200, {"name": "x", "properties": {"provisioningState": state}})
    with serving(lambda _: answer, azure_emulator.assembly.authority, tls=True) as served:
        here = Environment("here", PUBLIC.authority, served.url, PUBLIC.audience)
        azure = Azure(credential(ImageSpec(), None, PUBLIC), environment=here)
        operation = make(azure, azure_emulator)
        with pytest.raises(AzureError, match=f"creating disk x failed: Azure says '{state}'"):
            operation.wait(PATIENCE)
        azure.close()


class TestWhereAzureWantsToBeAskedSeldom:
    @pytest.fixture
    def azure_emulator_settings(self, azure_emulator_settings: Settings) -> Settings:
        profile = dataclasses.replace(azure_emulator_settings.profile, seconds={"disks.delete": 0.3})
        return dataclasses.replace(azure_emulator_settings, profile=profile, retry_after=60)

    def deletion(self, azure: Azure, emulator: AzureEmulator, *, over: Callable[[], bool]) -> Operation[Any]:
        make(azure, emulator).wait(PATIENCE)
        disks = azure.compute(emulator.subscription_id).disks
        return azure.begin("deleting disk x", disks.begin_delete, "rg1", "x", over=over)

    def test_the_disk_tells_that_it_is_gone(self, azure: Azure, azure_emulator: AzureEmulator) -> None:
        looks: list[bool] = []

        def over() -> bool:
            there = azure.compute(azure_emulator.subscription_id).disks.list_by_resource_group("rg1")
            looks.append(not [*there])
            return looks[-1]

        self.deletion(azure, azure_emulator, over=over).wait(PATIENCE)
        assert looks[-1] and len(asked(azure_emulator, "GET DiskOperations")) == 2  # one for making it

    def test_who_does_not_wait_any_more_looks_no_more(self, azure: Azure, azure_emulator: AzureEmulator) -> None:
        looks = []

        def over() -> bool:
            looks.append("there")
            return False

        operation = self.deletion(azure, azure_emulator, over=over)
        with pytest.raises(OperationTimeoutError):
            operation.wait(0.4)
        assert looks and operation.wait_done(PATIENCE)


class TestWhatTakesTime:
    @pytest.fixture
    def azure_emulator_settings(self, azure_emulator_settings: Settings) -> Settings:
        profile = dataclasses.replace(azure_emulator_settings.profile, seconds={"disks.create": 1.0})
        return dataclasses.replace(azure_emulator_settings, profile=profile)

    def test_is_asked_about_briskly(self, azure: Azure, azure_emulator: AzureEmulator) -> None:
        operation = make(azure, azure_emulator)
        assert not operation.done() and not operation.wait_done(0.01)
        operation.wait(PATIENCE)
        assert 2 <= len(asked(azure_emulator, "GET DiskOperations")) <= 20

    def test_ends_while_something_else_does(self, azure: Azure, azure_emulator: AzureEmulator) -> None:
        before = {*pollers()}
        made = [make(azure, azure_emulator, name) for name in "ab"]
        assert len({*pollers()} - before) == 2
        assert all(operation.wait_done(PATIENCE) for operation in made)

    def test_when_azure_says_how_often(self, azure: Azure, azure_emulator: AzureEmulator) -> None:
        for _ in range(2):
            azure_emulator.fault(call="GET DiskOperations", nth=1, status=429, retry_after=1)
        make(azure, azure_emulator).wait(PATIENCE)
        assert len(asked(azure_emulator, "GET DiskOperations")) <= 4


class TestEndless:
    @pytest.fixture
    def operation(self, azure: Azure, azure_emulator: AzureEmulator) -> Operation[Any]:
        azure_emulator.fault(operation="disks.create", endless=True)
        return make(azure, azure_emulator)

    def test_a_timeout(self, operation: Operation[Any], azure_emulator: AzureEmulator) -> None:
        threads = pollers()
        with pytest.raises(OperationTimeoutError) as error:
            operation.wait(0.3)
        assert str(error.value).startswith("creating disk x did not end within 0.3 s: Azure says 'InProgress' after ")
        assert threads and gone(threads)
        before = len(azure_emulator.calls())
        with pytest.raises(AzureError, match="creating disk x: nobody asks about it any more"):
            operation.wait(0.3)
        assert len(azure_emulator.calls()) == before

    def test_cancelling(self, operation: Operation[Any]) -> None:
        threads = pollers()
        operation.cancel()
        assert threads and gone(threads) and operation.done()

    def test_azure_has_asked_to_wait(self, azure: Azure, azure_emulator: AzureEmulator, said: list[str]) -> None:
        azure_emulator.fault(operation="disks.create", endless=True)
        azure_emulator.fault(call="GET DiskOperations", status=429, retry_after=60)
        operation = make(azure, azure_emulator)
        while azure.calls.count < 2:
            assert not operation.done()
        threads = pollers()
        operation.cancel()
        assert threads and gone(threads) and said == []

    def test_closing(self, azure: Azure, operation: Operation[Any], azure_emulator: AzureEmulator) -> None:
        threads = pollers()
        assert threads
        del operation  # whether or not somebody holds it
        azure.close()
        assert gone(threads)

    def test_limits_that_others_share(self, azure: Azure, azure_emulator: AzureEmulator) -> None:
        allowed = threading.Semaphore(0)
        enough = threading.Event()

        def allow() -> bool:
            if allowed.acquire(blocking=False):
                return True
            enough.set()
            return False

        operation = make(azure, azure_emulator, pace=Pace(floor=0.01, allow=allow))
        assert enough.wait(PATIENCE) and not asked(azure_emulator, "GET DiskOperations")
        allowed.release()
        assert operation.wait(PATIENCE)["name"] == "x"
        assert len(asked(azure_emulator, "GET DiskOperations")) == 1


def test_no_proxy_is_there(azure: Azure, azure_emulator: AzureEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAUSES", (0.01,) * 4)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(AzureError, match=r"no answer: .*proxy"):
        grant(azure, azure_emulator)
    assert azure.calls.count == 5


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_nobody_is_there(azure_emulator: AzureEmulator, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not sent is sent again, whatever it is."""
    monkeypatch.setattr(retries, "PAUSES", (0.01,) * 4)
    nowhere = Environment("none", PUBLIC.authority, "https://127.0.0.1:1", PUBLIC.audience)
    azure = Azure(credential(ImageSpec(), None, PUBLIC), environment=nowhere)
    with pytest.raises(AzureError, match=r"no answer: (.|\n)*hint: is Azure's endpoint reachable") as error:
        (make if method == "PUT" else grant)(azure, azure_emulator)
    azure.close()
    assert error.value.status is None and "?" not in str(error.value.why)
    assert [call.status for call in azure.calls.all()] == [None] * 5


def test_somebody_else_is_there(azure_emulator: AzureEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name)
    azure = Azure(credential(ImageSpec(), None, PUBLIC))
    with pytest.raises(AzureError, match=r"certificate verify failed(.|\n)*REQUESTS_CA_BUNDLE"):
        make(azure, azure_emulator)
    azure.close()
    assert azure.calls.count == 1


def test_where_time_went(azure_emulator: AzureEmulator) -> None:
    heard: list[str | Call] = []
    calls = Calls(before=heard.append, after=heard.append)
    azure = Azure(credential(ImageSpec(), None, PUBLIC, calls=calls), calls=calls)
    azure_emulator.fault(call="PUT disks", nth=1, reset=True)
    make(azure, azure_emulator).wait(PATIENCE)
    azure.close()
    assert [each for each in heard if isinstance(each, str)] == [
        "GET token",
        "PUT disks",
        "PUT disks",
        "GET DiskOperations",
        "GET disks",
    ]
    assert calls.count == 5 and calls.seconds > 0
    assert {(each.name, each.count, each.refused) for each in calls.summary()} == {
        ("GET token", 1, 0),
        ("PUT disks", 2, 1),
        ("GET DiskOperations", 1, 0),
        ("GET disks", 1, 0),
    }


def test_a_wait_within_a_wait() -> None:
    calls = Calls()
    with calls.waiting("all of it"):
        for doing in ("one", "two"):
            with calls.waiting(doing):
                pass
    with calls.waiting("more"):
        pass
    assert [wait.doing for wait in calls.waits] == ["all of it", "more"]


def test_what_a_hook_raises(azure_emulator: AzureEmulator) -> None:
    def stop(name: str) -> None:
        raise KeyboardInterrupt(name)

    azure = Azure(credential(ImageSpec(), None, PUBLIC), calls=Calls(before=stop))
    with pytest.raises(KeyboardInterrupt, match="PUT disks"):
        make(azure, azure_emulator)
    azure.close()
    assert asked(azure_emulator, "PUT disks") == []
