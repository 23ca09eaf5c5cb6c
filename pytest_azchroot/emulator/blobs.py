"""The bytes behind an access grant, as a page blob: a fixed VHD.

Source: learn.microsoft.com, "Blob service REST API": Get Blob, Get Blob Properties, Get Page Ranges, Put Page.
"""

from __future__ import annotations

import hmac
import os
import re
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import formatdate
from xml.sax.saxutils import escape

from pytest_azchroot.disk import copy, vhd

from .access import GRANT
from .azure import Azure
from .http import Request, Response, Stream
from .state import Json

_BY_NAME = re.compile(r"(md-[0-9a-f]+)\.[^/]*/[^/]+/abcd")
_BY_ADDRESS = re.compile(r"[^/]*/(md-[0-9a-f]+)/[^/]+/abcd")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PIECE = 1024**2
_LARGEST_WRITE = 4 * 1024**2
_PAGE = 512


def handle(azure: Azure, request: Request) -> Response | None:
    """Answer a request for a lent disk; None if the path is no such thing."""
    where = f"{request.host.lower()}{request.path}"
    match = _BY_NAME.fullmatch(where) or _BY_ADDRESS.fullmatch(where)
    if match is None:
        return None
    with azure.state.change():
        grant = azure.state.record(GRANT, match[1])
    return _refusal(grant, request) or _answer(azure, grant or {}, request)


def _refusal(grant: Json | None, request: Request) -> Response | None:
    if grant is None or not hmac.compare_digest(str(request.value("sig")), grant["signature"]):
        return _error(403, "AuthenticationFailed", "Server failed to authenticate the request.")
    if grant["expires"] < time.time():
        return _error(403, "AuthenticationFailed", "Signature not valid in the specified time frame.")
    return None


def _answer(azure: Azure, grant: Json, request: Request) -> Response:
    operation = (request.value("comp") or "").lower()
    if request.method in {"GET", "HEAD"} and operation == "pagelist":
        return _page_list(azure, grant)
    if request.method in {"GET", "HEAD"} and not operation:
        return _read(azure, grant, request)
    if request.method == "PUT" and operation == "page":
        return _write(azure, grant, request)
    return _error(405, "UnsupportedHttpVerb", "The resource doesn't support the specified HTTP verb.")


def _error(status: int, code: str, message: str) -> Response:
    text = (
        f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>'
    )
    return Response(status, {"Content-Type": "application/xml", "x-ms-error-code": code}, text.encode())


def _length(azure: Azure, grant: Json) -> int:
    """A disk that is uploaded has room for its footer; of another the footer is made up."""
    size = azure.store.size(grant["file"])
    return size if grant["write"] else size + vhd.FOOTER_SIZE


def _headers(azure: Azure, grant: Json) -> dict[str, str]:
    changed = azure.store.path(grant["file"]).stat().st_mtime
    return {
        "Accept-Ranges": "bytes",
        "ETag": f'"0x{uuid.uuid5(uuid.NAMESPACE_URL, grant["file"]).hex[:15].upper()}"',
        "Last-Modified": formatdate(changed, usegmt=True),
        "x-ms-blob-type": "PageBlob",
        "x-ms-blob-sequence-number": "0",
        "x-ms-version": "2018-03-28",
    }


def _read(azure: Azure, grant: Json, request: Request) -> Response:
    length = _length(azure, grant)
    headers = {"Content-Type": "application/octet-stream", **_headers(azure, grant)}
    asked = request.header("x-ms-range") or request.header("Range")
    if not asked:
        return Response(200, headers, Stream(length, _pieces(azure, grant, 0, length)))
    match = _RANGE.fullmatch(asked.strip())
    if match is None or int(match[1]) >= length:
        return _error(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
    begin, end = int(match[1]), min(int(match[2]) + 1 if match[2] else length, length)
    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{length}"
    return Response(206, headers, Stream(end - begin, _pieces(azure, grant, begin, end)))


def _pieces(azure: Azure, grant: Json, begin: int, end: int) -> Iterator[bytes]:
    path = azure.store.path(grant["file"])
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        position = begin
        while position < min(end, size):
            piece = os.pread(fd, min(_PIECE, min(end, size) - position), position)
            if not piece:
                return
            yield piece
            position += len(piece)
        if end > size:
            yield _footer(grant, size)[position - size : end - size]
    finally:
        os.close(fd)


def _footer(grant: Json, size: int) -> bytes:
    """The same for the same disk, so that ranges fit together."""
    made = datetime(2020, 1, 1, tzinfo=timezone.utc)
    return vhd.pack(vhd.fixed_footer(size, unique_id=uuid.uuid5(uuid.NAMESPACE_URL, grant["file"]), timestamp=made))


def _page_list(azure: Azure, grant: Json) -> Response:
    """Where there is data."""
    size, length = azure.store.size(grant["file"]), _length(azure, grant)
    fd = os.open(azure.store.path(grant["file"]), os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = [(begin, end - 1) for begin, end in copy.extents(fd, size)]
    finally:
        os.close(fd)
    if length > size:
        found.append((size, length - 1))
    rows = "".join(f"<PageRange><Start>{begin}</Start><End>{end}</End></PageRange>" for begin, end in found)
    text = f'<?xml version="1.0" encoding="utf-8"?><PageList>{rows}</PageList>'
    headers = {"Content-Type": "application/xml", "x-ms-blob-content-length": str(length), **_headers(azure, grant)}
    return Response(200, headers, text.encode())


def _write(azure: Azure, grant: Json, request: Request) -> Response:
    if not grant["write"]:
        return _error(
            403, "AuthorizationPermissionMismatch", "This request is not authorized to perform this operation."
        )
    match = _RANGE.fullmatch((request.header("x-ms-range") or request.header("Range") or "").strip())
    length = _length(azure, grant)
    if match is None or not match[2] or int(match[1]) % _PAGE or (int(match[2]) + 1) % _PAGE or int(match[2]) >= length:
        return _error(416, "InvalidPageRange", "The page range specified is invalid.")
    begin, end = int(match[1]), int(match[2]) + 1
    clear = (request.header("x-ms-page-write") or "").lower() == "clear"
    data = bytes(end - begin) if clear else request.body
    if len(data) != end - begin or (len(data) > _LARGEST_WRITE and not clear):
        return _error(400, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format.")
    fd = os.open(azure.store.path(grant["file"]), os.O_RDWR | os.O_CLOEXEC)
    try:
        if data.strip(b"\0") or os.pread(fd, len(data), begin).strip(b"\0"):  # zeros over a hole leave it one
            copy.write_all(fd, data, begin)
    finally:
        os.close(fd)
    return Response(201, {**_headers(azure, grant), "x-ms-request-server-encrypted": "true"})
