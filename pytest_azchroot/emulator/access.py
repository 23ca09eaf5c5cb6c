"""Access grants (SAS): ``beginGetAccess`` and ``endGetAccess`` of disks and snapshots."""

from __future__ import annotations

import os
import secrets
import time

from pytest_azchroot.disk import vhd

from . import errors
from .azure import Azure, Call, Routes, require_group
from .disks import KINDS, noun
from .errors import ArmError
from .http import Request, Response
from .operations import DISKS, Work
from .state import Json, Resource

GRANT = "grant"
BLOB_DOMAIN = ".z12.blob.storage.azure.net"
"""As in URLs of AzureStorageExplorer#6654; the number is a storage zone's."""
_LENT = {"ActiveSAS", "ActiveUpload"}


def begin_access(azure: Azure, call: Call) -> Response:
    """Lend a disk's bytes for a time, for reading, or for writing where it waits to be uploaded."""
    require_group(azure, call.path)
    found = azure.resource(call.resource_id)
    access, seconds = str(call.body.get("access") or ""), call.body.get("durationInSeconds")
    if access.lower() not in {"read", "write"}:
        raise errors.invalid("grantAccessData.access", access) if access else errors.missing("grantAccessData.access")
    if not isinstance(seconds, int) or seconds < 1:
        raise errors.invalid("grantAccessData.durationInSeconds", seconds)
    expire(azure, found)
    found = azure.resource(found.id)
    if owner := found.body.get("managedBy"):
        raise errors.lending_attached(found.name, owner)
    write, state = access.lower() == "write", found.properties.get("diskState")  # a disk that was not made has none
    if write != (state in {"ReadyToUpload", "ActiveUpload"}):
        raise errors.lent_already(found.name)
    if not found.hidden.get("ready") and not write:
        raise errors.busy(noun(found), found.name)
    token, container = f"md-{secrets.token_hex(6)}", secrets.token_hex(6)
    signature = secrets.token_urlsafe(32)
    query = f"sv=2018-03-28&sr=b&si={secrets.token_hex(16)}&sig={signature}"
    arguments = {
        "key": found.key,
        "token": token,
        "url": f"{_blob_url(call.request, token)}/{container}/abcd?{query}",
        "signature": signature,
        "write": write,
        "expires": time.time() + seconds,
    }
    return _submitted(azure, call, found, "grant", arguments)


def _blob_url(request: Request, token: str) -> str:
    """Where the client can reach the bytes, by the way that it came: by address, or as in Azure by name."""
    host = request.host.lower().partition(":")[0]
    if host.endswith(".azure.com"):
        return f"https://{token}{BLOB_DOMAIN}"
    return f"{request.base_url}/{token}"


def end_access(azure: Azure, call: Call) -> Response:
    """Take all grants back. What was uploaded becomes a disk, if it is a fixed VHD."""
    require_group(azure, call.path)
    found = azure.resource(call.resource_id)
    return _submitted(azure, call, found, "revoke", {"key": found.key})


def _submitted(azure: Azure, call: Call, found: Resource, verb: str, arguments: Json) -> Response:
    name = azure.operations.submit(
        f"{found.kind}.{verb}", found.id, arguments, segment=DISKS, location=found.body["location"]
    )
    return Response(202, azure.operations.headers(name, call.request))


def expire(azure: Azure, found: Resource) -> None:
    """End grants whose time is over; a disk with none left is free again."""
    for token, grant in azure.state.records(GRANT).items():
        if grant["key"] == found.key and grant["expires"] < time.time():
            azure.state.remove_record(GRANT, token)
    if found.properties.get("diskState") == "ActiveSAS" and not _grants(azure, found.key):
        found.properties["diskState"] = "Unattached"
        azure.state.put(found)


def _grants(azure: Azure, key: str) -> list[str]:
    return [token for token, grant in azure.state.records(GRANT).items() if grant["key"] == key]


def works(azure: Azure) -> dict[str, Work]:
    """What the operations do."""

    def granted(arguments: Json) -> Json:
        found = azure.resource(arguments["key"])
        found.properties["diskState"] = "ActiveUpload" if arguments["write"] else "ActiveSAS"
        azure.state.put(found)
        azure.state.put_record(GRANT, arguments["token"], {**arguments, "file": found.hidden["file"]})
        return {"accessSAS": arguments["url"]}

    def check(arguments: Json) -> None:
        with azure.state.change():
            found = azure.resource(arguments["key"])
            urls = [each["url"] for each in azure.state.records(GRANT).values() if each["key"] == found.key]
        if found.properties.get("diskState") == "ActiveUpload":
            _check_upload(azure, found, urls[0].split("?")[0] if urls else "")

    def revoked(arguments: Json) -> None:
        found = azure.resource(arguments["key"])
        for token in _grants(azure, found.key):
            azure.state.remove_record(GRANT, token)
        if found.properties.get("diskState") == "ActiveUpload":
            azure.store.cut(found.hidden["file"], found.properties["diskSizeBytes"])
            found.hidden["ready"] = True
        if found.properties.get("diskState") in _LENT:
            found.properties["diskState"] = "Unattached"
            azure.state.put(found)

    found: dict[str, Work] = {}
    for kind in KINDS:
        found |= {f"{kind}.grant": Work(finish=granted, shown=True), f"{kind}.revoke": Work(check, revoked)}
    return found


def _check_upload(azure: Azure, found: Resource, url: str) -> None:
    """:raises ArmError: what was written does not end in the footer of a fixed VHD of this size."""
    size = found.properties["diskSizeBytes"]
    fd = os.open(azure.store.path(found.hidden["file"]), os.O_RDONLY | os.O_CLOEXEC)
    try:
        footer = os.pread(fd, vhd.FOOTER_SIZE, size)
    finally:
        os.close(fd)
    if not vhd.is_footer(footer):
        raise errors.bad_footer(found.name, url)
    problems = vhd.check_azure(vhd.parse(footer), size + vhd.FOOTER_SIZE)
    problems = [problem for problem in problems if "smallest" not in problem]
    if problems:
        raise ArmError(
            400, "InvalidVhd", f"The disk '{found.name}' with blob {url} is no VHD for Azure: {problems[0]}."
        )


def routes() -> Routes:
    """Of grants."""
    found: Routes = {}
    for kind in KINDS:
        found["POST", f"{kind}/begingetaccess/*"] = begin_access
        found["POST", f"{kind}/endgetaccess/*"] = end_access
    return found
