"""Access grants, and the bytes behind them."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from pytest_azchroot.disk import image, vhd
from pytest_azchroot.emulator.emulator import Emulator
from pytest_azchroot.emulator.settings import Settings

from .conftest import MARK, MARK_AT, MIB, Compute, attach, disk_of, empty_disk, platform_disk
from .test_disks import content, refusal
from .wire import ask

pytestmark = pytest.mark.root
READ = {"access": "Read", "durationInSeconds": 300}
WRITE = {"access": "Write", "durationInSeconds": 300}


def lent(compute: Compute, name: str, **options: Any) -> str:
    """The URL of a disk."""
    url: str = compute.disks.begin_grant_access("rg1", name, {**READ, **options}).result().access_sas
    return url


@pytest.fixture
def url(compute: Compute, settings: Settings) -> str:
    """A disk of the platform image, lent for reading."""
    platform_disk(compute, settings, "d1")
    return lent(compute, "d1")


def test_a_lent_disk_is_a_fixed_vhd(emulator: Emulator, url: str, tmp_path: Path, platform_file: Path) -> None:
    answer = ask(emulator, "GET", url, token=None)
    assert answer.status == 200 and answer.headers["x-ms-blob-type"] == "PageBlob"
    assert answer.body[: -vhd.FOOTER_SIZE] == platform_file.read_bytes()
    path = tmp_path / "disk.vhd"
    path.write_bytes(answer.body)
    assert image.identify(path).format == "fixed VHD"


def test_its_properties(emulator: Emulator, url: str) -> None:
    answer = ask(emulator, "HEAD", url, token=None)
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) == 16 * MIB + 512
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("header", ["Range", "x-ms-range"])
def test_a_range_of_it(emulator: Emulator, url: str, header: str) -> None:
    asked = {header: f"bytes={MARK_AT}-{MARK_AT + len(MARK) - 1}"}
    answer = ask(emulator, "GET", url, headers=asked, token=None)
    assert (answer.status, answer.body) == (206, MARK)
    assert answer.headers["content-range"] == f"bytes {MARK_AT}-{MARK_AT + len(MARK) - 1}/{16 * MIB + 512}"
    end = ask(emulator, "GET", url, headers={header: f"bytes={16 * MIB - 1}-"}, token=None)
    assert len(end.body) == 513 and end.body[1:].startswith(vhd.COOKIE)
    assert ask(emulator, "GET", url, headers={header: f"bytes={17 * MIB}-"}, token=None).status == 416


def test_where_it_has_data(emulator: Emulator, url: str) -> None:
    answer = ask(emulator, "GET", f"{url}&comp=pagelist", token=None)
    ranges = [
        (int(begin), int(end)) for begin, end in re.findall(rb"<Start>(\d+)</Start><End>(\d+)</End>", answer.body)
    ]
    assert any(begin <= MARK_AT <= end for begin, end in ranges)
    assert not any(begin <= 10 * MIB <= end for begin, end in ranges)
    assert ranges[-1] == (16 * MIB, 16 * MIB + 511)


def test_a_url_is_good_for_nobody_without_its_signature(emulator: Emulator, url: str) -> None:
    answer = ask(emulator, "GET", re.sub("sig=.*", "sig=guess", url), token=None)
    assert answer.status == 403 and b"<Code>AuthenticationFailed</Code>" in answer.body
    assert ask(emulator, "PUT", f"{url}&comp=page", b"", token=None).status == 403


def test_a_grant_ends(emulator: Emulator, compute: Compute, url: str) -> None:
    assert compute.disks.get("rg1", "d1").properties.disk_state == "ActiveSAS"
    compute.disks.begin_revoke_access("rg1", "d1").result()
    assert compute.disks.get("rg1", "d1").properties.disk_state == "Unattached"
    assert ask(emulator, "GET", url, token=None).status == 403


def test_a_lent_disk_is_not_deleted_nor_attached(compute: Compute, url: str) -> None:
    text = (
        "There is an active shared access signature outstanding for disk d1. Call EndGetAccess before attaching or "
        "deleting the disk. Learn more here: aka.ms/revokeaccessapi."
    )
    assert refusal(lambda: compute.disks.begin_delete("rg1", "d1")) == (409, "OperationNotAllowed", text)
    id_ = compute.disks.get("rg1", "d1").id
    assert refusal(lambda: attach(compute, id_)) == (409, "OperationNotAllowed", text)


def test_an_attached_disk_is_not_lent(compute: Compute, settings: Settings) -> None:
    attach(compute, empty_disk(compute, "d1").id)
    text = f"Access not permitted because disk d1 is currently attached to running VM {settings.machine_id}."
    assert refusal(lambda: lent(compute, "d1")) == (409, "Conflict", text)


def test_who_came_by_name_gets_a_name(compute: Compute, emulator: Emulator, settings: Settings) -> None:
    platform_disk(compute, settings, "d1")
    headers = {"Host": "management.azure.com"}
    location = ask(emulator, "POST", "disks/d1/beginGetAccess", READ, headers=headers).headers["location"]
    assert location.startswith("http://management.azure.com/subscriptions/")
    while (answer := ask(emulator, "GET", location)).status == 202:
        pass
    url = urlsplit(answer.json["accessSAS"])
    assert url.scheme == "https" and url.netloc.endswith(".blob.storage.azure.net")
    asked = {"Range": f"bytes={MARK_AT}-{MARK_AT + len(MARK) - 1}", "Host": url.netloc}
    assert ask(emulator, "GET", url.geturl(), headers=asked, token=None).body == MARK


def test_a_snapshot_is_lent(compute: Compute, emulator: Emulator, settings: Settings) -> None:
    disk = platform_disk(compute, settings, "d1")
    creation = {"createOption": "Copy", "sourceResourceId": disk.id}
    body = {"location": "westus2", "properties": {"creationData": creation}}
    compute.snapshots.begin_create_or_update("rg1", "s1", body).result()
    url = compute.snapshots.begin_grant_access("rg1", "s1", READ).result().access_sas
    asked = {"Range": f"bytes={MARK_AT}-{MARK_AT + len(MARK) - 1}"}
    assert ask(emulator, "GET", url, headers=asked, token=None).body == MARK
    compute.snapshots.begin_revoke_access("rg1", "s1").result()
    compute.snapshots.begin_delete("rg1", "s1").result()


def upload(compute: Compute, emulator: Emulator, data: bytes, *, size: int = 4 * MIB) -> str:
    """Make a disk to be uploaded, and write to its end; returns its URL."""
    disk_of(compute, "up", {"createOption": "Upload", "uploadSizeBytes": size + 512})
    url = lent(compute, "up", access="Write")
    assert compute.disks.get("rg1", "up").properties.disk_state == "ActiveUpload"
    for begin in (0, size + 512 - len(data)):
        headers = {"x-ms-range": f"bytes={begin}-{begin + len(data) - 1}", "x-ms-page-write": "update"}
        answer = ask(emulator, "PUT", f"{url}&comp=page", data, headers=headers, token=None)
        assert answer.status == 201
    return url


def test_an_upload_becomes_a_disk(compute: Compute, emulator: Emulator) -> None:
    footer = vhd.pack(vhd.fixed_footer(4 * MIB, unique_id=uuid4(), timestamp=datetime.now(timezone.utc)))
    data = bytes(range(256)) * 2 + footer
    upload(compute, emulator, data)
    compute.disks.begin_revoke_access("rg1", "up").result()
    disk = compute.disks.get("rg1", "up")
    assert disk.properties.disk_state == "Unattached" and disk.properties.disk_size_bytes == 4 * MIB
    found = content(emulator, disk.id)
    assert len(found) == 4 * MIB and found.startswith(data) and found.endswith(data[:512])
    attach(compute, disk.id)


def test_an_upload_that_is_no_vhd(compute: Compute, emulator: Emulator) -> None:
    url = upload(compute, emulator, b"\x01" * 512)
    _, code, message = refusal(lambda: compute.disks.begin_revoke_access("rg1", "up").result())
    assert code == "InvalidVhd"
    assert message == (
        f"The specified cookie value in VHD footer indicates that disk 'up' with blob {url.split('?')[0]} is not a "
        "supported VHD. Disk is expected to have cookie value 'conectix'."
    )


@pytest.mark.parametrize("body", [{"access": "Peek", "durationInSeconds": 3}, {"access": "Read"}, {}])
def test_what_a_grant_needs(compute: Compute, emulator: Emulator, body: dict[str, Any]) -> None:
    empty_disk(compute, "d1")
    answer = ask(emulator, "POST", "disks/d1/beginGetAccess", body)
    assert (answer.status, answer.error["code"]) == (400, "InvalidParameter")


def test_only_an_upload_is_written(compute: Compute) -> None:
    empty_disk(compute, "d1")
    assert refusal(lambda: lent(compute, "d1", access="Write"))[:2] == (409, "Conflict")
