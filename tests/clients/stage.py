"""A stage on which clients that nobody here wrote meet an emulator: namespaces without a way out.

All of it ends with the process that opened it, however that ends: the emulator is the first process of its PID
namespace and goes when its standard input does, and everything else on the stage goes with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_azchroot.emulator.settings import SUBSCRIPTION
from pytest_azchroot.emulator.state import Resource, State

from .serve import READY, Plan

PROJECT = Path(__file__).parents[2]
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1"
COMPUTE = f"{GROUP}/providers/Microsoft.Compute"
MACHINE = f"{COMPUTE}/virtualMachines/vm1"

_HOPE = 3.0
"""Seconds for what will not come."""


@dataclass(frozen=True)
class Ended:
    """A program that ran on a stage."""

    status: int
    """Negative: the signal that it was killed with, which is 9 where it took too long."""
    output: str
    seconds: float


class Stage:
    """An emulator at Azure's own addresses, in a network, mount and PID namespace. Use :func:`opened`."""

    def __init__(self, process: subprocess.Popen[str], directory: Path, url: str) -> None:
        self._process = process
        self.directory = directory
        self.url = url
        """Plain HTTP, from within."""

    @property
    def _enter(self) -> list[str]:
        """Runs a program within: `unshare` is in all the namespaces but the one for PIDs, which is its child's."""
        below = f"/proc/{self._process.pid}/ns"
        return ["nsenter", f"--net={below}/net", f"--mount={below}/mnt", f"--pid={below}/pid_for_children", "--"]

    def run(
        self, command: Sequence[str | Path], *, environment: Mapping[str, str], timeout: float, until: str | None = None
    ) -> Ended:
        """Run a program in a PID and mount namespace of its own, on the stage.

        :param timeout: seconds after which it and all it has started are killed.
        :param until: what it says when it begins to wait for what will not come; it is killed soon after.
        """
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--"]
        began = time.monotonic()
        process = subprocess.Popen(
            [*self._enter, *apart, *command],
            env=dict(environment),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        killed = threading.Event()

        def kill() -> None:
            killed.set()
            _kill_below(process.pid)

        timers = [threading.Timer(timeout, kill)]
        with process:
            timers[0].start()
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if until is not None and until in line and len(timers) == 1:
                    timers.append(threading.Timer(_HOPE, kill))
                    timers[1].start()
            status = process.wait()
        for timer in timers:
            timer.cancel()
            timer.join()
        return Ended(-9 if killed.is_set() else status, "".join(lines), time.monotonic() - began)

    def ask(self, method: str, path: str, body: object = None, *, version: str = "2024-03-02") -> Any:
        """One request to Resource Manager, as the machine's own identity, by a program within.

        :return: what the answer says; a long-running operation has ended.
        """
        sent = json.dumps({"method": method, "url": f"{self.url}{path}", "version": version, "body": body})
        command = [*self._enter, sys.executable, "-c", _ASK, sent]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)

    def calls(self) -> list[dict[str, Any]]:
        """The emulator's log."""
        lines = (self.directory / "azure/calls.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """End the emulator and everything on the stage."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            _kill_below(self._process.pid)
            self._process.wait()


_ASK = """
import json, sys, time, urllib.request
asked = json.loads(sys.argv[1])
metadata = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com/"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
token = json.load(opener.open(urllib.request.Request(metadata, headers={"Metadata": "true"})))["access_token"]
headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
def send(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with opener.open(urllib.request.Request(url, data, headers, method=method)) as answer:
        return answer.headers, json.loads(answer.read() or b"null")
url = asked["url"] + ("&" if "?" in asked["url"] else "?") + "api-version=" + asked["version"]
found, body = send(asked["method"], url, asked["body"])
poll = found.get("Azure-AsyncOperation")
while poll:
    state = send("GET", poll)[1]
    if state["status"] != "InProgress":
        assert state["status"] == "Succeeded", state
        body = send("GET", url)[1] if asked["method"] == "PUT" else state
        break
    time.sleep(0.02)
print(json.dumps(body))
"""


@contextmanager
def opened(directory: Path, *, images: Mapping[str, Path], name: str, **options: Any) -> Iterator[Stage]:
    """A stage, while it is needed.

    :param name: letters that no other stage has at the same time.
    :param options: of a :class:`.serve.Plan`.
    :raises AssertionError: something of it is left on the machine.
    """
    prefix = f"azc{os.getpid()}{name}"
    directory.mkdir(parents=True, exist_ok=True)
    plan = Plan(str(directory / "azure"), {urn: str(path) for urn, path in images.items()}, prefix, **options)
    plan.write(directory / "plan.json")
    with _made(Path("/dev/disk")):
        process = subprocess.Popen(
            [
                *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--"),
                *(sys.executable, "-m", "tests.clients.serve", str(directory / "plan.json")),
            ],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            said = process.stdout.readline().split()
            assert said[:1] == [READY], "the emulator did not start"
            stage = Stage(process, directory, said[1])
            try:
                yield stage
            finally:
                stage.close()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            left = list(Path("/dev").glob(f"{prefix}*"))
            for path in left:
                path.unlink()
        assert not left


@contextmanager
def _made(directory: Path) -> Iterator[None]:
    """A directory that may be missing in a container."""
    there = directory.exists()
    directory.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if not there:
            with suppress(OSError):
                directory.rmdir()


def _kill_below(pid: int) -> None:
    """End the first process of the PID namespace that a process of ours has made, and by that all in it."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
            os.kill(int(child), 9)


def resources(directory: Path) -> dict[str, Resource]:
    """What an emulator that has ended has left, by id."""
    state = State(directory / "azure/state.sqlite3")
    try:
        with state.change():
            return {each.id: each for each in state.find()}
    finally:
        state.close()
