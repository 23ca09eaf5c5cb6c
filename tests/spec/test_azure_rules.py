"""What the cloud azure asks of an image.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cases import AZURE, GALLERY, SUB
from .reading import Case, check

AZURES = [
    Case(
        "nothing",
        "checks: none\n",
        [
            (None, "source", "is required, unless from_scratch"),
            (None, "image_resource_id", "this or shared_image_destination"),
        ],
    ),
    Case("no destination", "source: a:b:c:d\n", [(None, "image_resource_id", "is required, unless skip_create_image")]),
    Case(
        "source in no form",
        f"source: nonsense\nimage_resource_id: {SUB}/images/i\n",
        [(1, "source", "a platform image (publisher:offer:sku:version)")],
    ),
    Case(
        "URN of three",
        f"source: a:b:c\nimage_resource_id: {SUB}/images/i\n",
        [(1, "source", "it is not publisher:offer:sku:version")],
    ),
    Case(
        "source of another kind",
        f"source: {SUB}/images/x\nimage_resource_id: {SUB}/images/i\n",
        [(1, "source", "it is the id of a Microsoft.Compute/images")],
    ),
    Case(
        "destination of another kind",
        f"source: a:b:c:d\nimage_resource_id: {SUB}/disks/i\n",
        [(2, "image_resource_id", "not of a Microsoft.Compute/images")],
    ),
    Case(
        "temporary ids",
        AZURE
        + f"temporary_os_disk_id: {SUB}/images/x\ntemporary_os_disk_snapshot_id: x\ntemporary_data_disk_id_prefix: x\ntemporary_data_disk_snapshot_id: {SUB}/disks/x\n",
        [
            (3, "temporary_os_disk_id", "managed disk"),
            (4, "temporary_os_disk_snapshot_id", "snapshot"),
            (5, "temporary_data_disk_id_prefix", "managed disk"),
            (6, "temporary_data_disk_snapshot_id", "snapshot"),
        ],
    ),
    Case(
        "destination of nothing",
        "source: a:b:c:d\nshared_image_destination: {}\n",
        [
            (2, f"shared_image_destination.{name}", "is required")
            for name in ("resource_group", "gallery_name", "image_name", "image_version")
        ],
    ),
    Case(
        "destination as a list",
        "source: a:b:c:d\nshared_image_destination: []\n",
        [(2, "shared_image_destination", "a mapping is meant, not a list")],
    ),
    Case(
        "version as a number",
        GALLERY + "  image_version: 1.10\n",
        [(6, "shared_image_destination.image_version", 'quote it: "1.10"')],
    ),
    Case(
        "version of two",
        GALLERY + "  image_version: '1.10'\n",
        [(6, "shared_image_destination.image_version", "is not three numbers")],
    ),
    Case(
        "version too large",
        GALLERY + "  image_version: 1.0.20260131120000\n",
        [(6, "shared_image_destination.image_version", "above 2147483647")],
    ),
    Case(
        "a gallery's id",
        GALLERY.replace("gallery_name: n", "gallery_name: /x/n") + "  image_version: 1.0.0\n",
        [(4, "shared_image_destination.gallery_name", "is not a name")],
    ),
    Case(
        "no region name",
        GALLERY + "  image_version: 1.0.0\n  target_regions: [{replicas: 2}]\n",
        [(7, "shared_image_destination.target_regions[0].name", "is required")],
    ),
    Case(
        "regions",
        GALLERY
        + "  image_version: 1.0.0\n  target_regions:\n    - {name: a, replicas: 0}\n    - {name: b, replicas: 101}\n    - {name: c, storage_account_type: standard_zrs}\n",
        [
            (8, "shared_image_destination.target_regions[0].replicas", "must be 1 or more"),
            (9, "shared_image_destination.target_regions[1].replicas", "must be 100 or less"),
            (10, "shared_image_destination.target_regions[2].storage_account_type", "did you mean Standard_ZRS?"),
        ],
    ),
    Case(
        "a region twice",
        GALLERY + "  image_version: 1.0.0\n  target_regions: [{name: West Europe}, {name: westeurope}]\n",
        [(7, "shared_image_destination.target_regions", "is listed twice")],
    ),
    Case(
        "environment",
        AZURE + "cloud_environment_name: Publik\n",
        [(3, "cloud_environment_name", "did you mean Public?")],
    ),
]

CREDENTIALS = [
    Case(
        "secret alone",
        AZURE + "client_secret: abcdef\n",
        [(None, "client_id", "is required with client_secret")],
    ),
    Case(
        "two of them",
        AZURE + "client_id: i\nsubscription_id: s\nclient_secret: abcdef\nclient_jwt: ghijkl\n",
        [(6, "client_jwt", "cannot be set together with client_secret")],
    ),
    Case(
        "three of them",
        AZURE + "client_id: i\nsubscription_id: s\nclient_secret: abcdef\nclient_jwt: ghijkl\nclient_cert_path: /x\n",
        [
            (7, "client_cert_path", "cannot be set together with client_secret"),
            (6, "client_jwt", "cannot be set together with client_secret"),
        ],
    ),
    Case(
        "OIDC without url",
        AZURE + "client_id: i\nsubscription_id: s\noidc_request_token: abcdef\n",
        [(None, "oidc_request_url", "is required with oidc_request_token")],
    ),
    Case(
        "OIDC without token",
        AZURE + "oidc_request_url: u\n",
        [(None, "oidc_request_token", "is required with oidc_request_url")],
    ),
    Case(
        "password alone",
        AZURE + "client_cert_password: abcdef\n",
        [(3, "client_cert_password", "has no effect without client_cert_path")],
    ),
    Case("tenant alone", AZURE + "tenant_id: t\n", [(3, "tenant_id", "nothing says as whom")]),
    Case(
        "CLI and more",
        AZURE + "use_azure_cli_auth: true\nclient_id: i\nclient_secret: abcdef\n",
        [(4, "client_id", "use_azure_cli_auth"), (5, "client_secret", "use_azure_cli_auth")],
    ),
    Case(
        "a short secret",
        AZURE + "client_id: i\nsubscription_id: s\nclient_secret: abc\n",
        [(5, "client_secret", "less than 4 characters")],
    ),
]


@pytest.mark.parametrize("case", [case.param for case in AZURES + CREDENTIALS])
def test_what_is_wrong_is_said(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)
