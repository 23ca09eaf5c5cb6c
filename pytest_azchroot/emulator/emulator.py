"""The whole: state, disks, devices, and a server in front of them."""

from __future__ import annotations

import fcntl
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType

from pytest_azchroot.errors import AzchrootError, UnavailableError

from . import arm, blobs, groups, machines
from .arm import Authorize, ResourceManager
from .attaching import entries
from .azure import Azure
from .calls import CallLog
from .datadisks import disk_id
from .devices import Devices
from .errors import no_token
from .hooks import Delay, Hook, Hooks, Reset
from .http import Request, Response
from .operations import Operations
from .server import Server, Tunnels, Wrap
from .settings import Settings, SettingsError
from .state import Json, Resource, State
from .store import Store
from .throttles import Throttles

log = logging.getLogger(__name__)

Handle = Callable[[Request], "Response | None"]
"""Answers the requests that are for it."""


@dataclass(frozen=True)
class Endpoint:
    """Where to listen. Port 0: any that is free."""

    address: str = "127.0.0.1"
    port: int = 0
    wrap: Wrap | None = None
    """Makes TLS of a connection."""
    tunnels: Tunnels | None = None
    """Makes it a forward proxy."""


class Emulator:
    """Azure on loopback, as a context manager.

    :param handlers: asked before Resource Manager, in their order: instance metadata, token endpoints.
    :param authorize: raises an :class:`.errors.ArmError` for a request whose token is not good; by default any
        bearer token is.
    :param hooks: faults and limits.
    :raises UnavailableError: another emulator has the directory, or an address is taken.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        endpoints: Iterable[Endpoint] = (Endpoint(),),
        handlers: Iterable[Handle] = (),
        authorize: Authorize | None = None,
        hooks: Iterable[Hook] = (),
    ) -> None:
        self.settings = settings
        self.hooks = Hooks(hooks)
        self._endpoints = list(endpoints)
        self._handlers = list(handlers)
        self._authorize = authorize or self._any_token
        self._stack = ExitStack()
        self._servers: list[Server] = []
        self._azure: Azure | None = None
        self._calls: CallLog | None = None

    def __enter__(self) -> Emulator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Go on where the last emulator in the directory ended, and listen."""
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Stop listening, take the devices away, leave the state for the next emulator."""
        self._stack.close()
        self._servers = []

    @property
    def url(self) -> str:
        """Of the first endpoint: ``http://127.0.0.1:40001``."""
        endpoint = self._endpoints[0]
        scheme = "http" if endpoint.wrap is None else "https"
        return f"{scheme}://{endpoint.address}:{self._servers[0].port}"

    @property
    def ports(self) -> list[int]:
        """Of all endpoints, in their order."""
        return [server.port for server in self._servers]

    @property
    def azure(self) -> Azure:
        """What is behind the server, for fixtures and other handlers. Only while it runs."""
        assert self._azure is not None
        return self._azure

    @property
    def calls(self) -> CallLog:
        """Every call so far. Only while it runs, or has run."""
        assert self._calls is not None
        return self._calls

    def machine(self) -> Json:
        """The model of the machine that this machine plays, as GET shows it: instance metadata is made of it."""
        with self.azure.state.change():
            return machines.shown(self.azure.resource(self.settings.machine_id))

    def add_handler(self, handle: Handle) -> None:
        """Another handler, asked after those that are there and before Resource Manager."""
        self._handlers.append(handle)

    # -- starting

    def _open(self, stack: ExitStack) -> None:
        self._servers = []
        settings = self.settings
        directory = settings.directory.absolute()
        settings = replace(settings, directory=directory)
        directory.mkdir(parents=True, exist_ok=True)
        stack.callback(os.close, _lock(settings))
        state = State(directory / "state.sqlite3")
        stack.callback(state.close)
        self._calls = CallLog(settings.calls or directory / "calls.jsonl")
        stack.callback(self._calls.close)
        devices = Devices(settings.device_directory, family=settings.family, prefix=settings.prefix)
        stack.callback(devices.close)
        operations = Operations(settings, state, self.hooks)
        stack.callback(operations.close)
        azure = Azure(settings, state, Store(directory / "disks"), devices, operations, self.hooks)
        self._azure = azure
        if settings.throttled:
            throttles = Throttles(owner=operations.owner)
            self.hooks.add(throttles)
            stack.callback(self.hooks.remove, throttles)
        operations.register(arm.works(azure))
        _check_profile(settings, operations)
        _seed(azure)
        _sweep(azure)
        _attach_again(azure)
        operations.resume()
        self._manager = ResourceManager(azure, self._authorize)
        for endpoint in self._endpoints:
            server = Server(endpoint.address, endpoint.port, self._answer, wrap=endpoint.wrap, tunnels=endpoint.tunnels)
            server.start()
            stack.callback(server.stop)
            self._servers.append(server)

    def _any_token(self, request: Request) -> None:
        if not (request.header("Authorization") or "").lower().startswith("bearer "):
            raise no_token(self.settings.tenant)

    # -- answering

    def _answer(self, request: Request) -> Response | Reset:
        began, request_id = time.monotonic(), str(uuid.uuid4())
        name = arm.call_name(request)
        answer = self._hooked(name, request)
        if not isinstance(answer, Reset):
            common = {"x-ms-request-id": request_id, "x-ms-correlation-request-id": request_id}
            if echoed := request.header("x-ms-client-request-id"):
                common["x-ms-client-request-id"] = echoed
            answer = replace(answer, headers={**common, **answer.headers})
        logged = None if isinstance(answer, Reset) else answer
        self.calls.write(name, request, logged, began=began, request_id=request_id)
        return answer

    def _hooked(self, name: str, request: Request) -> Response | Reset:
        ruled = self.hooks.request(name, request)
        if isinstance(ruled, Delay):
            self.azure.operations.wait(ruled.seconds)
        elif ruled is not None:
            return ruled
        if self.settings.profile.request and not request.path.startswith("/metadata/"):
            self.azure.operations.wait(self.settings.profile.request)
        try:
            return self._handled(request)
        except Exception as error:
            log.exception("%s", name)
            text = {
                "error": {"code": "InternalServerError", "message": f"Encountered internal server error: {error!r}"}
            }
            return Response.of_json(500, text)

    def _handled(self, request: Request) -> Response:
        handlers: list[Handle] = [
            *self._handlers,
            lambda each: blobs.handle(self.azure, each),
            self._manager.handle,
        ]
        for handle in handlers:
            answer = handle(request)
            if answer is not None:
                return answer
        text = {"error": {"code": "NotFound", "message": f"The emulator has nothing at '{request.path}'."}}
        return Response.of_json(404, text)


def _check_profile(settings: Settings, operations: Operations) -> None:
    unknown = sorted(set(settings.profile.seconds) - {*operations.kinds, "*"})
    if unknown:
        hint = f"there are {', '.join(operations.kinds)}, and * for all others"
        raise SettingsError(f"the profile has seconds for {unknown[0]!r}, which no operation is", hint=hint)


def _lock(settings: Settings) -> int:
    fd = os.open(settings.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        what = f"another emulator runs in {settings.directory}"
        raise UnavailableError(what, hint="stop it, or name another directory") from error
    return fd


def _seed(azure: Azure) -> None:
    """The machine and its group, in a directory that is new."""
    settings = azure.settings
    with azure.state.change():
        if azure.state.get(groups.group_id(azure, settings.machine.group)) is None:
            groups.made_group(azure, settings.machine.group, settings.location)
        if azure.state.get(settings.machine_id) is None:
            machine = settings.machine
            properties = machines.model(machine.name, machine.size, settings.machine_id, asked={})
            properties["vmId"] = settings.vm_id
            if settings.family == "nvme":
                properties["storageProfile"]["diskControllerType"] = "NVMe"
            body: Json = {
                "name": machine.name,
                "id": settings.machine_id,
                "type": machines.TYPE,
                "location": settings.location,
                "tags": {},
                "properties": properties,
            }
            if machine.zone is not None:
                body["zones"] = [machine.zone]
            azure.state.put(Resource(settings.machine_id, machines.KIND, body))


def _sweep(azure: Azure) -> None:
    """Remove files that no resource and no operation knows: a killed emulator left them."""
    with azure.state.change():
        kept = {str(each.hidden.get("file")) for each in azure.state.find()}
        for each in azure.state.find():
            kept.update(each.hidden.get("files", {}).values())
        for arguments in azure.operations.running():
            sources = [arguments.get("source") or {}, *(arguments.get("sources") or {}).values()]
            kept.update(source["pin"] for source in sources if "pin" in source)
    azure.store.sweep(kept)


def _attach_again(azure: Azure) -> None:
    """The devices that the machine had. Those on their way are their operation's."""
    with azure.state.change():
        machine = azure.resource(azure.settings.machine_id)
    for entry in entries(machine):
        disk = azure.state.get(disk_id(entry))
        if disk is not None and disk.properties.get("diskState") == "Attached":
            try:
                azure.devices.attach(entry["lun"], azure.store.path(disk.hidden["file"]))
            except (AzchrootError, OSError) as error:
                log.warning("LUN %s of %s is not attached again: %s", entry["lun"], machine.name, error)
